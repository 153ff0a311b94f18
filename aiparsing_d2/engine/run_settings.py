"""Which settings a run has, and of what kind: a config with others is refused.

Below ``train``, the settings are those of :class:`TrainSettings`. Below ``model``, ``dataloader``,
``optimizer`` and the like, they are arguments of what a node builds.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from torch.nn.parallel import DistributedDataParallel

from aiparsing_d2.data.json_files import shortened

from .config_error import ConfigError, nearest_known
from .overrides import NO_OUTPUT_DIR, arguments_of, takes_any

__all__ = ["TrainSettings", "check_settings"]


@dataclass
class AmpSettings:
    """Mixed precision, see :func:`~aiparsing_d2.engine.build_trainer`."""

    enabled: bool | None = None
    precision: str = "float16"


@dataclass
class EmaSettings:
    """Averaged weights, see :class:`~aiparsing_d2.engine.ExponentialMovingAverage`."""

    enabled: bool = False
    decay: float = 0.999


@dataclass
class ClippingSettings:
    """See :func:`~aiparsing_d2.engine.clip_gradients`."""

    max_norm: float | None = None
    norm_type: float = 2.0


@dataclass
class CheckpointerSettings:
    """Arguments of Detectron2's ``PeriodicCheckpointer``; files must be called model_*."""

    period: int = 5000
    max_to_keep: int | None = None


@dataclass
class BestCheckpointerSettings:
    """Arguments of Detectron2's ``BestCheckpointer``."""

    val_metric: str = "parsing/APp50"
    mode: str = "max"
    file_prefix: str = "model_best"


@dataclass
class TrainSettings:
    """The keys of ``train``, which configs/common/train.py explains; ``ddp`` holds arguments of
    Detectron2's ``create_ddp_model``.
    """

    output_dir: str = "./output"
    init_checkpoint: str = ""
    allow_unfitting_weights: bool = False
    max_iter: int = 90000
    clip_gradients: ClippingSettings | None = field(default_factory=ClippingSettings)
    nonfinite: str = "stop"
    amp: AmpSettings = field(default_factory=AmpSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
    ddp: dict[str, Any] = field(default_factory=dict)
    checkpointer: CheckpointerSettings = field(default_factory=CheckpointerSettings)
    best_checkpointer: BestCheckpointerSettings | None = field(
        default_factory=BestCheckpointerSettings
    )
    eval_period: int = 5000
    log_period: int = 20
    writers: list[Any] = field(default_factory=list)
    channels_last: bool | None = None
    eval_precision: str | None = None
    seed: int = -1
    scale_to_batch_size: int | None = None
    device: str = "cuda"


_PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train", "test_time_augmentation")
_NEEDED_GROUPS = ("model", "dataloader", "train")
_NEEDED_TO_TRAIN = ("dataloader.train", "optimizer", "lr_multiplier")
_NEEDED_OF_TRAIN = (
    *("output_dir", "init_checkpoint", "max_iter", "device", "eval_period", "log_period"),
    *("amp", "ddp", "checkpointer"),
)
_LOADERS = ("train", "test", "evaluator", "register")
_TTA = ("enabled", "wrapper")
_POSITIVE = (
    *("max_iter", "log_period", "scale_to_batch_size"),
    *("checkpointer.period", "checkpointer.max_to_keep"),
)
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "ema.decay": (lambda x: 0 <= x < 1, "from 0 to less than 1"),
    "clip_gradients.max_norm": (lambda x: x > 0, "more than 0"),
    "clip_gradients.norm_type": (lambda x: x > 0, "more than 0, or inf"),
    # numpy takes 32 bits, and each process adds its rank.
    "seed": (lambda x: x <= 2**32 - comm.get_world_size(), "less than 2**32, the ranks added"),
}
_CHOICES = {
    "nonfinite": ("stop", "skip"),
    "amp.precision": ("float16", "bfloat16"),
    "eval_precision": ("auto", "fp32", "bf16", "fp16"),
    "best_checkpointer.mode": ("max", "min"),
}


def check_settings(config: DictConfig, evaluation_only: bool = False) -> None:
    """Refuse a config that lacks what a run needs, or has settings that nothing reads.

    A setting to which another part of the config refers, as "${train.mine}", is read.

    Args:
        config: of a run.
        evaluation_only: whether nothing is trained.

    Raises:
        ConfigError: naming the key, and the known one that is nearest.
    """
    needed = ("dataloader.test",) if evaluation_only else _NEEDED_TO_TRAIN
    for key in (*_NEEDED_GROUPS, *needed):
        node = OmegaConf.select(config, key, throw_on_missing=False)
        if not isinstance(node, DictConfig):
            found = "it is missing" if node is None else f"it is {shortened(node)}"
            raise ConfigError(f"a run needs a group {key} in its config; {found}")
    for name in map(str, config):
        # A file in Python may have other names, of what it computes with.
        close = difflib.get_close_matches(name, _PARTS, n=1, cutoff=0.8)
        if close and name not in _PARTS:
            raise ConfigError(f"nothing reads {name}; did you mean {close[0]}?")
    referred = set(_references(config))
    _check_names(config.dataloader, "dataloader", _LOADERS, referred)
    if isinstance(config.get("test_time_augmentation"), DictConfig):
        _check_names(config.test_time_augmentation, "test_time_augmentation", _TTA, referred)
    _check_train(config.train, referred)
    if not evaluation_only:
        _check_batch_and_rate(config)
    for part in _PARTS:
        if part != "train" and part in config:
            _check_arguments(config[part], part)


def _references(node: Any) -> Iterator[str]:
    """Return the keys that a config refers to by "${...}" with their whole names."""
    if isinstance(node, (DictConfig, ListConfig)):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, str):
        yield from re.findall(r"\$\{\s*([\w.]+)\s*\}", node)
    elif isinstance(node, (dict, list, tuple)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _references(child)


def _check_names(node: DictConfig, group: str, known: tuple[str, ...], referred: set[str]) -> None:
    for name in map(str, node):
        if name not in known and f"{group}.{name}" not in referred:
            raise ConfigError(
                f"nothing reads {group}.{name}; {nearest_known(name, known, f'{group}.')}"
            )


def _check_train(train: DictConfig, referred: set[str]) -> None:
    output_dir = train.get("output_dir", "")
    if output_dir is None or str(output_dir).strip() in ("", "None", "null"):
        raise ConfigError(NO_OUTPUT_DIR.format(shortened(output_dir)))
    for name in _NEEDED_OF_TRAIN:
        if train.get(name) is None:
            raise ConfigError(f"a run needs train.{name} in its config")
    known = OmegaConf.structured(TrainSettings)
    try:
        given = {
            key: OmegaConf.to_container(value, resolve=True)
            if OmegaConf.is_config(value)
            else value
            for key, value in ((str(key), train[key]) for key in train)
            # What a writer is built from may be objects, which settings have not.
            if key != "writers" and (key in known or f"train.{key}" not in referred)
        }
        settings = OmegaConf.merge(known, given)
    except ConfigKeyError as error:
        place, _, name = error.full_key.rpartition(".")
        keys = OmegaConf.select(known, place) if place else known
        prefix = f"train.{place}." if place else "train."
        raise ConfigError(
            f"nothing reads {prefix}{name}; {nearest_known(name, map(str, keys), prefix)}"
        ) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"train.{error.full_key}: {str(error).partition(chr(10))[0]}") from error
    for key, value in _leaves(given, ""):
        typed = OmegaConf.select(settings, key)
        if typed != value or isinstance(typed, str) != isinstance(value, str):
            raise ConfigError(f"train.{key} is {value!r}; it must be {typed!r}")
    arguments = (*inspect.signature(DistributedDataParallel).parameters, "fp16_compression")
    _check_names(train.ddp, "train.ddp", arguments, referred)
    for key in _POSITIVE:
        value = OmegaConf.select(settings, key)
        if value is not None and value < 1:
            raise ConfigError(f"train.{key} is {value}; it must be at least 1")
    for key, (is_inside, words) in _RANGES.items():
        value = OmegaConf.select(settings, key)
        if value is not None and not is_inside(value):
            raise ConfigError(f"train.{key} is {value}; it must be {words}")
    for key, choices in _CHOICES.items():
        value = OmegaConf.select(settings, key)
        if value is not None and value not in choices:
            raise ConfigError(f"train.{key} is {value!r}; it must be one of {', '.join(choices)}")
    try:
        torch.device(settings.device)
    except RuntimeError as error:
        raise ConfigError(
            f"train.device is {shortened(settings.device)}; it must be a device of PyTorch, as "
            "cuda for a GPU or cpu"
        ) from error
    _check_arguments(train.get("writers"), "train.writers")


def _check_batch_and_rate(config: DictConfig) -> None:
    """Refuse numbers that a run's length and rate cannot be computed with."""
    batch_size, rate = (
        OmegaConf.select(config, key, throw_on_resolution_failure=False, throw_on_missing=False)
        for key in ("dataloader.train.total_batch_size", "optimizer.lr")
    )
    # None is for the constructors to refuse, of which some take it.
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise ConfigError(
            f"dataloader.train.total_batch_size is {shortened(batch_size)}; it must be a whole "
            "number, at least 1"
        )
    if isinstance(rate, (int, float)) and not 0 <= rate < math.inf:
        raise ConfigError(f"optimizer.lr is {rate}; it must be a finite number, at least 0")


def _leaves(group: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in group.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_arguments(node: Any, path: str) -> None:
    """Refuse keys that are no argument of what their node builds."""
    if not isinstance(node, (DictConfig, ListConfig)) or node._is_none():
        return
    if isinstance(node, DictConfig) and "_target_" in node and not takes_any(node):
        arguments = arguments_of(node)
        for name in map(str, node):
            if name not in arguments and name != "_target_":
                raise ConfigError(
                    f"nothing reads {path}.{name}; {nearest_known(name, arguments, f'{path}.')}"
                )
    names: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
    for name in names:
        if not OmegaConf.is_interpolation(node, name) and not OmegaConf.is_missing(node, name):
            _check_arguments(node[name], f"{path}.{name}")

"""Configs and models by name, in the manner of :mod:`detectron2.model_zoo`.

A name is a path below the folder configs/ of the repository: without suffix for a LazyConfig
("cihp/aiparsing_R_50_FPN_cihp_75ep"), with ".yaml" for a yacs config
("yaml/cihp/aiparsing_R_50_FPN_cihp_75ep.yaml"). MODEL_ZOO.md says which experiment each one is.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from omegaconf import DictConfig
from torch import nn

from aiparsing_d2.config import add_aiparsing_config
from aiparsing_d2.engine import FittingCheckpointer, check_init_checkpoint

from .shipped_weights import find_shipped_weights

__all__ = [
    "find_config_file",
    "get",
    "get_checkpoint",
    "get_config",
    "get_config_file",
    "list_configs",
]

_YAML_FOLDER = "yaml"
# Not experiments: what the LazyConfigs import.
_PARTS_FOLDER = "common"


def _configs_folder() -> Path:
    """Beside this file in a wheel; the repository's own in a clone or an editable install."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "configs"


def list_configs() -> list[str]:
    """Names of all experiments, sorted, LazyConfigs before yacs configs."""
    folder = _configs_folder()
    lazy = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py"))
    # Base configs lie in the YAML folder itself, experiments below it.
    yacs = (path.relative_to(folder) for path in (folder / _YAML_FOLDER).glob("*/*.yaml"))
    return [
        *sorted(path.as_posix() for path in lazy if path.parts[0] != _PARTS_FOLDER),
        *sorted(path.as_posix() for path in yacs),
    ]


def get_config_file(name: str) -> str:
    """
    Args:
        name: see the module; the suffix ".py" is allowed. The parts that experiments are made of
            can be named too, e.g. "common/models/aiparsing_fpn".

    Returns:
        The config's file, e.g. for ``train_net.py --config-file``.

    Raises:
        ValueError: there is no such config; the message names similar ones.
    """
    file_name = name if name.endswith((".py", ".yaml")) else f"{name}.py"
    folder = _configs_folder()
    file = folder / file_name
    if not file.is_file():
        similar = difflib.get_close_matches(name.removesuffix(".py"), list_configs(), n=3)
        hint = (
            f"did you mean {' or '.join(map(repr, similar))}?"
            if similar
            else "MODEL_ZOO.md and list_configs() name them"
        )
        raise ValueError(f"there is no file {name}, and no config {name!r} in {folder}: {hint}")
    return str(file)


def find_config_file(config: str) -> str:
    """Find what a command line calls a config.

    Args:
        config: a file; or a name, see the module, also written as in a clone ("configs/NAME.py").

    Returns:
        The file.

    Raises:
        ValueError: there is no such file, nor a config of this name.
    """
    if os.path.isfile(config):
        return config
    return get_config_file(config.removeprefix("configs/"))


def get_checkpoint(name: str) -> str:
    """Weights trained with a config: the package's own, or from where a run of it leaves them.

    The package carries weights for photographs (docs/MODEL_CARD.md), none of the data sets of the
    paper. ``train_net.py`` leaves a run's in the config's output folder, which is relative to the
    current folder.

    Args:
        name: as for :func:`get_config`.

    Returns:
        The package's file, else ``model_final.pth`` in the config's output folder.

    Raises:
        FileNotFoundError: it does not exist; the message says how to get weights.
        ValueError: the package's file is damaged.
    """
    cfg = get_config(name)
    shipped = find_shipped_weights(name.removesuffix(".py"))
    if shipped is not None:
        return str(shipped)
    output_dir = cfg.OUTPUT_DIR if isinstance(cfg, CfgNode) else cfg.train.output_dir
    checkpoint = os.path.join(output_dir, "model_final.pth")
    if not os.path.isfile(checkpoint):
        raise FileNotFoundError(
            f"there are no trained weights for {name!r}: the package carries none of this config, "
            f"and {os.path.abspath(checkpoint)} does not exist. Train with this config, convert "
            "the authors' published weights by 'python -m aiparsing_d2 convert-weights authors', "
            "or give a file as weights=..."
        )
    return checkpoint


def get_config(
    name: str, trained: bool = False, weights: str | None = None
) -> DictConfig | CfgNode:
    """Load a config.

    The weights it starts from are its ``train.init_checkpoint``, in yacs ``MODEL.WEIGHTS``: unless
    told otherwise the backbone's from ImageNet, by their name in Detectron2's catalogue
    ("detectron2://ImageNetPretrained/…", downloaded when a model loads them).

    Args:
        name: see the module.
        trained: whether to start from the weights that :func:`get_checkpoint` finds.
        weights: what to start from: a file, a URL or a name of Detectron2's catalogue.

    Raises:
        ValueError: there is no such config, or both ``trained`` and ``weights`` are given.
        FileNotFoundError: there are no trained weights.
    """
    if trained and weights is not None:
        raise ValueError(f"give either trained=True or weights={weights!r}, not both")
    file = get_config_file(name)
    if trained:
        weights = get_checkpoint(name)
    if file.endswith(".yaml"):
        cfg = get_cfg()
        add_aiparsing_config(cfg)
        cfg.merge_from_file(file)
        if weights is not None:
            cfg.MODEL.WEIGHTS = weights
    else:
        cfg = LazyConfig.load(file)
        if weights is not None:
            cfg.train.init_checkpoint = weights
    return cfg


def get(
    name: str, trained: bool = False, weights: str | None = None, device: str | None = None
) -> nn.Module:
    """Build a config's model and load its weights: all of them, or those of its body alone.

    Args:
        name, trained, weights: see :func:`get_config`. ``weights=""`` loads none.
        device: e.g. "cpu"; the default is a GPU where there is one.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: see :func:`get_config`.
        FileNotFoundError: the weights are a file that does not exist.
        ConfigError: the weights do not fit. Lists the tensors.
    """
    cfg = get_config(name, trained, weights)
    checkpoint = cfg.MODEL.WEIGHTS if isinstance(cfg, CfgNode) else cfg.train.init_checkpoint
    check_init_checkpoint(checkpoint)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(cfg, CfgNode):
        cfg.MODEL.DEVICE = device
        model = build_model(cfg)
    else:
        model = instantiate(cfg.model).to(device)
    FittingCheckpointer(model).load_body_or_all(checkpoint)
    return model

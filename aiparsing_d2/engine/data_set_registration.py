"""Data sets that a config registers, so that the YAML saved from it can register them again.

A config may list calls, which its YAML keeps::

    dataloader.register = [L(register_cihp)(name="my_train", root="my_data", split="train")]

or call ``register_cihp`` and the like in its file. The YAML then names that file, and reading the
YAML runs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from omegaconf import DictConfig, ListConfig, OmegaConf

from aiparsing_d2.data.json_files import shortened

from .config_error import ConfigError
from .config_file import check_targets, read_config_file

__all__ = ["data_set_names", "keep_registrations", "register_by_config_file"]

# Name of a data set -> the config file that registered it when it was read.
_registered_by: dict[str, str] = {}


def data_set_names(config: DictConfig, loader: str) -> list[str]:
    """Names of the data sets of ``dataloader.train`` or ``dataloader.test``."""
    names = config.dataloader[loader].dataset.names
    return [names] if isinstance(names, str) else list(names)


@contextmanager
def noting_registrations(config_file: str) -> Iterator[None]:
    """Remember which data sets are registered while a config file is run."""
    known = set(DatasetCatalog)
    yield
    for name in set(DatasetCatalog) - known:
        _registered_by[name] = os.path.abspath(config_file)


def register_data_sets(config: DictConfig) -> None:
    """Make the calls of ``dataloader.register``."""
    calls = OmegaConf.select(config, "dataloader.register", throw_on_missing=False)
    if calls is not None and not isinstance(calls, ListConfig):
        raise ConfigError(f"dataloader.register is {shortened(calls)}, not a list of calls")
    for call in calls or ():
        if not isinstance(call, DictConfig) or "_target_" not in call:
            raise ConfigError(f"dataloader.register has {shortened(call)}, which is no call")
        instantiate(call)


def keep_registrations(config: DictConfig) -> None:
    """Add calls to ``dataloader.register`` for data sets that the config's file registers.

    Args:
        config: about to be saved as YAML; changed in place.
    """
    names = {
        name
        for loader in ("train", "test")
        if config.dataloader.get(loader) is not None
        for name in data_set_names(config, loader)
    }
    files = sorted({_registered_by[name] for name in names if name in _registered_by})
    calls = list(config.dataloader.get("register") or ())
    kept = {call.get("config_file") for call in calls}
    calls += [L(register_by_config_file)(config_file=f) for f in files if f not in kept]
    if calls:
        config.dataloader.register = calls


def register_by_config_file(config_file: str) -> None:
    """Run a config file for the data sets that it registers.

    Args:
        config_file: a LazyConfig in Python.

    Raises:
        ConfigError: it is not there.
    """
    if not os.path.isfile(config_file):
        raise ConfigError(
            f"{config_file}, which registers the data sets of this run, does not exist; put it "
            "there, or register them by dataloader.register"
        )
    with noting_registrations(config_file):
        check_targets(read_config_file(config_file))

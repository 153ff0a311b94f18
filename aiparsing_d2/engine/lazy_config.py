"""Reading the config of a run."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from .config_error import ConfigError
from .config_file import check_targets, read_config_file
from .data_set_registration import noting_registrations, register_data_sets

__all__ = ["load_lazy_config"]


def load_lazy_config(config_file: str) -> DictConfig:
    """``LazyConfig.load`` that registers the config's data sets and refuses a yacs config.

    A Python file is run, as any program; of a YAML file nothing is, see :func:`read_config_file`.

    Args:
        config_file: a Python file, or a YAML file saved from a LazyConfig.

    Raises:
        ConfigError: the file is a yacs config, and the message names the LazyConfig of the same
            name; or it holds what might run code, or a ``_target_`` that nothing is built from.
    """
    with noting_registrations(config_file):
        cfg = read_config_file(config_file)
    file = Path(config_file)
    # Keys of yacs are in capitals, those of a LazyConfig are names of variables.
    if file.suffix in (".yaml", ".yml") and all(str(key).isupper() for key in cfg):
        # configs/yaml/cihp/….yaml belongs to configs/cihp/….py.
        same_name = Path(*(part for part in file.parts if part != "yaml")).with_suffix(".py")
        raise ConfigError(
            f"{config_file} is a yacs config, for scripts on Detectron2's get_cfg(); give a "
            f"LazyConfig{f', here {same_name}' if same_name.is_file() else ''}"
        )
    check_targets(cfg)
    register_data_sets(cfg)
    return cfg

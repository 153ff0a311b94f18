"""Overrides of a config on the command line."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from typing import Any

from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from .config_error import ConfigError, nearest_known
from .config_file import check_targets

__all__ = ["apply_overrides", "parse_arguments"]


def parse_arguments(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse a command line on which flags stand before, between or behind the overrides.

    Args:
        parser: Detectron2's ``default_argument_parser``, or one whose last argument is ``opts``
            too and takes all that follows.
        arguments: default: those of the process.
    """
    args = parser.parse_args(arguments)
    overrides: list[str] = []
    while args.opts:
        is_flag = [word.startswith("-") for word in args.opts]
        num_overrides = is_flag.index(True) if any(is_flag) else len(args.opts)
        overrides += args.opts[:num_overrides]
        args = parser.parse_args(args.opts[num_overrides:], namespace=args)
    args.opts = overrides
    return args


def apply_overrides(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """``LazyConfig.apply_overrides`` for keys that exist.

    A key exists if the config has it, or if it is an argument of what its node builds. A whole
    number in another notation, as 1e3, stays one where the config has a whole number.

    Args:
        config: a LazyConfig, changed in place.
        overrides: ``key=value`` each, in Hydra's grammar. ``+key=value`` also adds a key.

    Returns:
        The config.

    Raises:
        ConfigError: a key does not exist, or a value cannot be read or is text where the config has
            a number or a boolean. The message names it, and the key that is nearest. Or a
            ``_target_`` is refused, see :func:`check_targets`.
    """
    for override in overrides:
        key, value, may_add = _parse(override)
        if not may_add:
            _check_keys(config, key, value)
        value = _of_kind(override, OmegaConf.select(config, key), value)
        try:
            # Detectron2 parses the text again; a whole number it would read as a float.
            if isinstance(value, int) and not isinstance(value, bool):
                LazyConfig.apply_overrides(config, [f"{key}={value}"])
            else:
                LazyConfig.apply_overrides(config, [override])
        except KeyError as error:
            raise ConfigError(f"{override!r}: {error.args[0]}") from error
    check_targets(config)
    return config


def _parse(override: str) -> tuple[str, Any, bool]:
    """Key, value, and whether the key may be new."""
    if "=" not in override:
        raise ConfigError(f"{override!r} is no override: write key=value, as train.max_iter=1000")
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
        if parsed.is_delete():
            raise ConfigError(f"{override!r}: keys cannot be deleted; most can be set to null")
        if parsed.is_sweep_override():
            raise ConfigError(f"{override!r}: a list is written in brackets, key=[1,2]")
        return parsed.key_or_group, parsed.value(), parsed.is_add() or parsed.is_force_add()
    except HydraException as error:
        key, _, value = override.partition("=")
        quoted = "'{}'".format(value.replace("'", r"\'"))
        raise ConfigError(
            f"cannot read the value in {override!r}; as text it is quoted, for a shell: "
            f'"{key}={quoted}"'
        ) from error


def _check_keys(config: DictConfig, key: str, value: Any) -> None:
    """Refuse a key that does not exist; in a dictionary that is merged, each of its keys."""
    node, path = config, []
    for name in key.split("."):
        if not isinstance(node, (DictConfig, ListConfig)):
            raise ConfigError(f"{key}: {'.'.join(path)} is {node}, which has no key {name!r}")
        if not _has(node, name):
            place = "".join(f"{part}." for part in path)
            raise ConfigError(
                f"the config has no key {place}{name}: {nearest_known(name, _known(node), place)} "
                f"(+{key}=... adds a key)"
            )
        path.append(name)
        node = OmegaConf.select(config, ".".join(path))
    if isinstance(value, dict) and isinstance(node, DictConfig) and "_target_" not in value:
        for name, part in value.items():
            _check_keys(config, f"{key}.{name}", part)


def _has(node: DictConfig | ListConfig, name: str) -> bool:
    if isinstance(node, ListConfig):
        return name.isdigit() and int(name) < len(node)
    return name in _known(node) or _takes_any(node)


def _known(node: DictConfig | ListConfig) -> list[str]:
    """Keys of a node, and arguments of what it builds."""
    if isinstance(node, ListConfig):
        return [str(i) for i in range(len(node))]
    arguments = _arguments(node)
    named = [a.name for a in arguments if a.kind in (a.POSITIONAL_OR_KEYWORD, a.KEYWORD_ONLY)]
    return [*(str(key) for key in node), *named]


def _takes_any(node: DictConfig) -> bool:
    return any(a.kind == a.VAR_KEYWORD for a in _arguments(node))


def _arguments(node: DictConfig) -> list[inspect.Parameter]:
    if "_target_" not in node:
        return []
    target = node._target_
    target = locate(target) if isinstance(target, str) else target
    return list(inspect.signature(target).parameters.values())


def _of_kind(override: str, now: Any, value: Any) -> Any:
    """Return the value as a number or a boolean where the config has one."""
    if isinstance(value, float) and value.is_integer() and _is_int(now):
        return int(value)
    is_text = isinstance(value, str) and "${" not in value
    if is_text and isinstance(now, (bool, int, float)):
        kind = "true or false" if isinstance(now, bool) else "a number"
        raise ConfigError(f"{override!r}: {value!r} is not {kind}, as {now} is")
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

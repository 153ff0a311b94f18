"""Overrides of a config on the command line."""

from __future__ import annotations

import copy
import difflib
import inspect
import math
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.utils.registry import locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aiparsing_d2.data.json_files import shortened

from .config_error import ConfigError, nearest_known
from .config_file import check_targets

__all__ = ["apply_overrides"]

NO_OUTPUT_DIR = "train.output_dir={}: give a folder to write to, as train.output_dir=output/first"

# The sign that lets a key be new, and the key, in which "[0]" may stand for ".0".
_KEY = re.compile(r"(\+\+?|)\s*([^\s.=\[\]+~'\"]+(?:\.[^\s.=\[\]'\"]+|\[\d+\])*)")
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def apply_overrides(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """``LazyConfig.apply_overrides`` for keys that exist, and for values as people type them.

    A key exists if the config has it, or if it is an argument of what its node builds. What the
    config has now says how a value is read: where it is text, anything is text, unquoted too, and a
    leading ``~/`` is the home folder; where it is true or false, so are yes, no, on, off, 1 and 0;
    where it is a whole number, 1e3 is one.

    Args:
        config: a LazyConfig, changed in place.
        overrides: ``key=value`` each, with spaces around "=" or without, in one word or several.
            Values are in Hydra's grammar: numbers, true, false, null, text, [1,2] and {a:1}.
            ``+key=value`` also adds a key. Of two of the same key the last counts.

    Returns:
        The config.

    Raises:
        ConfigError: a key does not exist, or a value cannot be read or is of another kind than what
            the config has. The message, of one line, names it, and the key that is nearest. Or a
            ``_target_`` is refused, see :func:`check_targets`.
    """
    for override in _joined(overrides):
        key, text, may_add = _split(override)
        if text in ("None", "null") and key == "train.output_dir":
            raise ConfigError(NO_OUTPUT_DIR.format(text))
        if text == "None":
            raise ConfigError(
                f"{shortened(override)}: what Python calls None is written null: {key:.80}=null; "
                f"""the text is quoted: {shlex.quote(f"{key:.80}='None'")}"""
            )
        if not may_add:
            _check_key(config, key)
        now = OmegaConf.select(config, key)
        value = _of_kind(override, now, text, _parsed(override, key, text, now))
        if not may_add:
            _check_keys_of_dict(config, key, value)
        _update(config, override, key, value)
    check_targets(config)
    return config


def _joined(words: Sequence[str]) -> list[str]:
    """Join what stands on both sides of an "=" with spaces around it."""
    joined: list[str] = []
    for word in words:
        before = joined[-1] if joined else "x=x"
        begins_value = word.startswith("=") and "=" not in before
        ends_value = before.endswith("=") and before.count("=") == 1 and "=" not in word
        if begins_value or ends_value:
            joined[-1] += word
        elif "=" not in before:
            raise ConfigError(f"{_no_override(before)}, here {shortened(f'{before}={word}')}")
        else:
            joined.append(word)
    if joined and "=" not in joined[-1]:
        raise ConfigError(f"{_no_override(joined[-1])}, as train.max_iter=1000")
    return joined


def _no_override(word: str) -> str:
    if word.startswith("~"):
        return f"{shortened(word)}: keys cannot be deleted; most can be set to null: write key=null"
    return f"{shortened(word)} is no override: write key=value"


def _split(override: str) -> tuple[str, str, bool]:
    """Key, text of the value, and whether the key may be new."""
    name, _, text = override.partition("=")
    match = _KEY.fullmatch(name.strip())
    if name.strip().startswith("~"):
        raise ConfigError(f"{shortened(override)}: keys cannot be deleted; most can be set to null")
    if match is None:
        raise ConfigError(
            f"{shortened(name)} in {shortened(override)} is no key; one is train.max_iter"
        )
    return re.sub(r"\[(\d+)\]", r".\1", match[2]), text.strip(), bool(match[1])


def _parsed(override: str, key: str, text: str, now: Any) -> Any:
    """Return the value that a text is in Hydra's grammar; where the config has text, any text."""
    try:
        (parsed,) = OverridesParser.create().parse_overrides([f"x={text}"])
        if not parsed.is_sweep_override():
            return parsed.value()
        reason = "a list is written in brackets, key=[1,2]"
    except (HydraException, RecursionError, ValueError):
        reason = "it is no number, list or text that can be read"
    if isinstance(now, str):
        return text
    quoted = "{}='{}'".format(key, text.replace("'", r"\'"))
    is_number = isinstance(now, (bool, int, float)) or len(quoted) > 80
    advice = "" if is_number else f"; as text it is quoted: {shlex.quote(quoted)}"
    raise ConfigError(f"cannot read the value in {shortened(override)}: {reason}{advice}")


def _of_kind(override: str, now: Any, text: str, value: Any) -> Any:
    """Return the value as text, a number or a boolean where the config has one."""
    is_scalar = isinstance(value, (bool, int, float, str))
    if isinstance(value, str) and "${" in value:
        return value
    if isinstance(now, (DictConfig, dict)) and is_scalar:
        raise ConfigError(
            f"{shortened(override)}: that is a group of keys, of which each has a value: "
            f"{', '.join(map(str, now))}"
        )
    if isinstance(now, str) and is_scalar:
        value = value if isinstance(value, str) else text
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{shortened(override)}: this is no text in UTF-8") from error
        return os.path.expanduser(value) if value.startswith("~/") else value
    if isinstance(now, bool) and is_scalar:
        if str(value).lower() not in _BOOLEANS:
            raise ConfigError(f"{shortened(override)}: {shortened(value)} is not true or false")
        return _BOOLEANS[str(value).lower()]
    if isinstance(now, (int, float)) and is_scalar:
        is_number = not isinstance(value, (bool, str)) and not math.isnan(value)
        if not is_number or (isinstance(now, int) and math.isinf(value)):
            raise ConfigError(
                f"{shortened(override)}: {shortened(value)} is not a number, as {now} is"
            )
        return _whole(value) if isinstance(now, int) else value
    if now is None and "." not in text:
        return _whole(value)
    if isinstance(now, ListConfig) and isinstance(value, list) and all(map(_is_int, now)):
        return [_whole(item) for item in value]
    return value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _update(config: DictConfig, override: str, key: str, value: Any) -> None:
    """Set a key; nothing is changed after an error."""
    parts = key.split(".")
    for length in range(1, len(parts)):
        node = OmegaConf.select(config, ".".join(parts[:length]))
        if node is not None and not OmegaConf.is_config(node):
            raise ConfigError(
                f"{shortened(override)}: {'.'.join(parts[:length])} is {shortened(node)}, which "
                "has no keys"
            )
    try:
        if "${" in override:  # to what does not exist is told now, not when somebody follows it
            probe = copy.deepcopy(config)
            OmegaConf.update(probe, key, value, merge=True)
            OmegaConf.resolve(OmegaConf.create({"x": OmegaConf.select(probe, key)}))
        OmegaConf.update(config, key, value, merge=True)
    except (OmegaConfBaseException, RecursionError, ValueError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{shortened(override)}: {reason}") from error


def _check_key(config: DictConfig, key: str) -> None:
    """Refuse a key that does not exist."""
    node, path = config, []
    for name in key.split("."):
        if not isinstance(node, (DictConfig, ListConfig)):
            raise ConfigError(
                f"{key}: {'.'.join(path)} is {shortened(node)}, which has no key {name!r}"
            )
        if not _has(node, name):
            place = "".join(f"{part}." for part in path)
            known = known_keys(node)
            hint = nearest_known(name, known, place)
            if not difflib.get_close_matches(name, known):  # as with names of another framework
                hint = _same_ending(config, key) or hint
            raise ConfigError(
                f"the config has no key {place}{name:.80}: {hint} (+{key:.80}=... adds a key)"
            )
        path.append(name)
        node = OmegaConf.select(config, ".".join(path))


def _same_ending(config: DictConfig, key: str) -> str:
    """Return the end of a message that names the keys whose last name is that of ``key``, in
    capitals or not; empty without any.
    """
    ending = key.rpartition(".")[2].lower()
    keys = _all_keys(OmegaConf.to_container(config, resolve=False), "")
    keys = [known for known in keys if known.rpartition(".")[2].lower() == ending]
    if key.lower() in keys:
        keys = [key.lower()]
    nearest = difflib.get_close_matches(key.lower(), keys, n=3, cutoff=0)
    return f"did you mean {' or '.join(nearest)}?" if nearest else ""


def _all_keys(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from _all_keys(child, f"{prefix}{name}.")


def _check_keys_of_dict(config: DictConfig, key: str, value: Any) -> None:
    """Refuse keys that do not exist in a dictionary that is merged."""
    if not isinstance(value, dict) or "_target_" in value:
        return
    if isinstance(OmegaConf.select(config, key), DictConfig):
        for name, part in value.items():
            _check_key(config, f"{key}.{name}")
            _check_keys_of_dict(config, f"{key}.{name}", part)


def _has(node: DictConfig | ListConfig, name: str) -> bool:
    if isinstance(node, ListConfig):
        return name.isdecimal() and int(name) < len(node)
    return name in known_keys(node) or takes_any(node)


def known_keys(node: DictConfig | ListConfig) -> list[str]:
    """Keys of a node, and arguments of what it builds."""
    if isinstance(node, ListConfig):
        return [str(i) for i in range(len(node))]
    return [*(str(key) for key in node), *arguments_of(node)]


def arguments_of(node: DictConfig) -> list[str]:
    """Names of the arguments of what a node builds."""
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return [argument.name for argument in _parameters(node) if argument.kind in named]


def takes_any(node: DictConfig) -> bool:
    """Whether what a node builds takes arguments of any name."""
    return any(argument.kind == argument.VAR_KEYWORD for argument in _parameters(node))


def _parameters(node: DictConfig) -> list[inspect.Parameter]:
    if "_target_" not in node:
        return []
    target = node._target_
    try:
        target = locate(target) if isinstance(target, str) else target
        return list(inspect.signature(target).parameters.values())
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigError(
            f"_target_: {shortened(node._target_)} cannot be called: {error}"
        ) from error

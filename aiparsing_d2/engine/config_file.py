"""Reading and writing config files without running what only looks like values.

A config in Python is a program, and runs as one. A YAML file is data: nothing in it is run, and
what it names to build objects from must be something that a model or a training is built from. What
is refused are the usual ways to run code, not all that there may be: build from configs you trust.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from unittest import mock

import yaml
from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aiparsing_d2.whole_files import whole_file

from .config_error import ConfigError

__all__ = ["check_targets", "read_config_file", "saving_whole_configs"]

# Of the standard library, all that configs build objects from.
_HARMLESS = {
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "frozenset", "int", "list")),
    *(f"builtins.{name}" for name in ("range", "set", "slice", "str", "tuple")),
    "collections.OrderedDict",
    "functools.partial",
    "pathlib.Path",
}
# Outside it, what runs files or text that it is given.
_RUNNING_CODE = (
    "IPython",
    "cloudpickle",
    "detectron2.config.instantiate",
    "detectron2.config.lazy",
    "detectron2.utils.env",
    "detectron2.utils.registry",
    "dill",
    "hydra",
    "iopath",
    "joblib",
    "numpy.distutils",
    "numpy.f2py",
    "numpy.lib._npyio_impl.load",
    "numpy.load",
    "numpy.testing",
    "omegaconf",
    "pandas.eval",
    "pandas.read_pickle",
    "pip",
    "pkg_resources",
    "setuptools",
    "torch.distributed",
    "torch.hub",
    "torch.package",
    "torch.serialization",
    "torch.utils.collect_env",
    "torch.utils.cpp_extension",
    "yaml",
)


_MAX_VALUES = 100_000


def read_config_file(config_file: str) -> DictConfig:
    """``LazyConfig.load`` that runs no code of a YAML file.

    Args:
        config_file: a Python file, or a YAML file saved from a LazyConfig.

    Raises:
        ConfigError: the YAML holds objects that might run code, or is no YAML.
    """
    if not config_file.endswith((".yaml", ".yml")):
        return LazyConfig.load(config_file)
    with open(config_file, "rb") as file:
        try:
            content = yaml.load(file, _ConfigLoader)
            _check_amount(content)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f", line {mark.line + 1}" if mark else ""
            reason = getattr(error, "problem", None) or " ".join(str(error).split())
            raise ConfigError(f"{config_file}{place}: {reason}") from error
        # Of values that YAML knows and Python does not, as the 31st of February.
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{config_file}: {error}") from error
    if not isinstance(content, dict):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"{config_file} holds {kind} instead of keys and values")
    try:
        return OmegaConf.create(content, flags={"allow_objects": True})
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"{config_file}: {' '.join(str(error).split())}") from error


def _check_amount(content: Any) -> None:
    """Refuse a few lines that refer to each other until they are more than memory holds.

    Raises:
        ValueError: there are more values than any config has.
    """
    to_do, number = [content], 0
    while to_do:
        value = to_do.pop()
        number += 1
        if number > _MAX_VALUES:
            raise ValueError(f"its references make more than {_MAX_VALUES} values of it")
        if isinstance(value, dict):
            to_do += value.values()
        elif isinstance(value, (list, tuple)):
            to_do += value


class _ConfigLoader(yaml.SafeLoader):
    """Plain values, and names of what models are built from, as ``LazyConfig.save`` writes them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:  # of which the first would be lost
            problem = f"the key {twice!r:.80} stands there twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)

    def tuple(self, node: yaml.Node) -> tuple:
        return tuple(self.construct_sequence(node, deep=True))

    def named(self, name: str, node: yaml.Node) -> Any:
        problem = _problem(name)
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        try:
            return locate(name)
        except Exception as error:
            problem = f"{name} cannot be imported: {error}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


_ConfigLoader.add_constructor("tag:yaml.org,2002:python/tuple", _ConfigLoader.tuple)
_ConfigLoader.add_multi_constructor("tag:yaml.org,2002:python/name:", _ConfigLoader.named)


def check_targets(config: DictConfig) -> None:
    """Refuse a config that would build objects from what no model is built from.

    Args:
        config: of which nothing has been instantiated.

    Raises:
        ConfigError: a ``_target_`` is of Python's standard library, as ``os.system`` or
            ``builtins.eval``, or runs code that it is given, as ``torch.hub.load``. The message
            names its key.
    """
    for key, target in _targets(config, ""):
        problem = _problem(target)
        if problem:
            raise ConfigError(f"{key}: {problem}")


def _targets(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Return the keys and values of all ``_target_`` below a node."""
    if isinstance(node, (DictConfig, dict)):
        names = list(node.keys())
    elif isinstance(node, (ListConfig, list, tuple)):
        names = list(range(len(node)))
    else:
        return
    for name in names:
        if OmegaConf.is_config(node) and OmegaConf.is_missing(node, name):
            continue
        try:
            child = node[name]
        except OmegaConfBaseException:  # a reference to what is not set: it builds nothing either
            continue
        path = f"{key}.{name}" if key else str(name)
        if name == "_target_" and not isinstance(child, (DictConfig, dict)):
            yield path, child
        yield from _targets(child, path)


def _problem(target: Any) -> str | None:
    """Return why a name or an object is nothing to build from; None for a name of nothing."""
    if not isinstance(target, str):
        names = [_true_name(target)]
    elif target in _HARMLESS:
        return None
    else:
        # Modules import others: torch.os.system is os.system.
        names = [target]
        parts = target.split(".")
        for length in range(1, len(parts) + 1):
            if any(map(_is_refused, names)):
                break
            try:
                names.append(_true_name(locate(".".join(parts[:length]))))
            except Exception:  # whatever an import raises; instantiating will tell
                break
    if any(map(_is_refused, names)):
        return f"{names[0]} is nothing that a model is built from"
    return None


def _true_name(found: Any) -> str:
    if isinstance(found, ModuleType):
        return found.__name__
    owner = found
    if getattr(found, "__module__", None) is None:  # a builtin function, or a method of one
        owner = type(getattr(found, "__self__", found))
    return f"{owner.__module__}.{getattr(owner, '__qualname__', type(owner).__qualname__)}"


def _is_refused(name: str) -> bool:
    if name in _HARMLESS:
        return False
    root = name.partition(".")[0]
    return root in sys.stdlib_module_names or any(
        f"{name}.".startswith(f"{prefix}.") for prefix in _RUNNING_CODE
    )


@contextmanager
def saving_whole_configs() -> Iterator[None]:
    """Let ``LazyConfig.save``, as Detectron2 calls it, write files that are never half written."""
    save = LazyConfig.save

    def save_aside(cfg: DictConfig, filename: str) -> None:
        path = Path(filename)
        with TemporaryDirectory() as folder:
            save(cfg, str(Path(folder, path.name)))
            # What is no YAML is pickled beside it.
            for written in Path(folder).iterdir():
                with whole_file(path.with_name(written.name), "wb", durable=True) as file:
                    file.write(written.read_bytes())

    with mock.patch.object(LazyConfig, "save", staticmethod(save_aside)):
        yield

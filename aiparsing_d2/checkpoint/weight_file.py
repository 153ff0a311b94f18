"""Reading other projects' weights and writing files for Detectron2's checkpointer."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aiparsing_d2.whole_files import whole_file

from .unpickling import load_arrays, load_tensors

# Where a checkpoint that holds more than weights has them.
_WEIGHT_ENTRIES = ("model", "state_dict")


class WeightFileError(ValueError):
    """A file cannot be read, or holds no weights."""


@dataclass(frozen=True)
class WeightFile:
    """The content of a checkpoint.

    Attributes:
        path: of the file.
        tensors: by name, without the ``module.`` that data-parallel training puts before names.
        other_entries: names of what is no tensor, such as an optimiser's state or an iteration.
    """

    path: Path
    tensors: dict[str, Tensor]
    other_entries: tuple[str, ...] = ()


def read_weights(path: Path) -> WeightFile:
    """Read a file of torch.save or safetensors.

    One of torch.save may hold a dict of tensors, or one under ``"model"`` or ``"state_dict"`` and
    other entries. Only tensors and plain Python objects are unpickled, so a file cannot run code;
    NumPy's numbers and arrays, as in the state of a scheduler, are passed over.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is none.
        WeightFileError: it is no checkpoint, or holds other objects.
    """
    with telling_what_is_wrong(path):
        content = _read_safetensors(path) if path.suffix == ".safetensors" else load_tensors(path)
    if not isinstance(content, Mapping):
        raise WeightFileError(f"{path} holds a {type(content).__name__}, not a dict of tensors")

    other_entries = []
    for entry in _WEIGHT_ENTRIES:
        nested = content.get(entry)
        if isinstance(nested, Mapping):
            other_entries = [str(name) for name in content if name != entry]
            content = nested
            break
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(value, Tensor):
            other_entries.append(str(name))
            continue
        name = name.removeprefix("module.")
        if name in tensors:
            raise WeightFileError(f"{path} holds {name} both with and without a leading 'module.'")
        tensors[name] = value
    if not tensors:
        raise WeightFileError(
            f"{path} holds no tensors, neither at its top nor under 'model' or 'state_dict'; its "
            f"entries are {', '.join(other_entries) or '(none)'}"
        )
    return WeightFile(Path(path), tensors, tuple(other_entries))


@contextmanager
def telling_what_is_wrong(path: Path) -> Iterator[None]:
    """Raise what reading a file raises as a :class:`WeightFileError` that names the file."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise WeightFileError(
            f"{path} is no checkpoint, or holds more than tensors and plain Python objects, "
            "which might run code when loaded. If you trust the file, load it with "
            "torch.load(path, weights_only=False), and save its dict of tensors by itself "
            "(docs/WEIGHTS.md has the command).\n"
            f"{error}"
        ) from error
    # Broken zip archives and files that end early.
    except (EOFError, RuntimeError, ValueError) as error:
        raise WeightFileError(f"{path} cannot be read; is it complete? {error}") from error


def read_detectron_pickle(path: Path) -> dict[str, Any]:
    """Read a ``.pkl`` of Detectron2's or Detectron's model zoo, as Detectron2's checkpointer does.

    Only NumPy's arrays of numbers and plain Python objects are unpickled.

    Args:
        path: the file.

    Returns:
        "model", weights by name; "__author__"; and "matching_heuristics", whether the names are to
        be matched by heuristics.

    Raises:
        WeightFileError: it holds other objects, or is no such file.
    """
    # What bytes that are no pickle raise is of many types.
    try:
        content = load_arrays(path)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise WeightFileError(
            f"{path} is no file of Detectron's model zoo, whole and with NumPy's arrays alone, or "
            f"might run code when loaded: {error}"
        ) from error
    if not isinstance(content, dict):
        raise WeightFileError(f"{path} holds a {type(content).__name__}, not a dict of arrays")
    if "model" in content and "__author__" in content:
        return content
    # Detection models of Caffe2 have blobs, ImageNet's do not.
    blobs = content.get("blobs", content)
    weights = {name: value for name, value in blobs.items() if not name.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors import torch as safetensors_torch

    try:
        return safetensors_torch.load_file(path)
    except SafetensorError as error:
        raise ValueError(error) from error


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write ``{"model": weights}``, which Detectron2's checkpointer loads by exact names.

    Args:
        path: the file, which appears when it is complete and takes the place of an earlier one.
        weights: by the model's names.
    """
    with whole_file(path, "wb", durable=True) as file:
        torch.save({"model": dict(weights)}, file)

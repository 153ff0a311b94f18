"""Reading other projects' weights and writing files for Detectron2's checkpointer."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aiparsing_d2.whole_files import whole_file

from .unpickling import finished, load_arrays, load_tensors

# Where a checkpoint that holds more than weights has them.
_WEIGHT_ENTRIES = ("model", "state_dict")

_NUM_NAMED = 10


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
        check_weight(path, name, value)
        name = name.removeprefix("module.")
        if name in tensors:
            raise WeightFileError(f"{path} holds {name} both with and without a leading 'module.'")
        tensors[name] = value
    if not tensors:
        raise WeightFileError(
            f"{path} holds no tensors, neither at its top nor under 'model' or 'state_dict'; its "
            f"entries are {_some(other_entries)}"
        )
    return WeightFile(Path(path), tensors, tuple(other_entries))


@contextmanager
def telling_what_is_wrong(path: Path) -> Iterator[None]:
    """Raise what reading a file raises as a :class:`WeightFileError` that names the file."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError, ImportError):
        raise
    except pickle.UnpicklingError as error:
        raise WeightFileError(
            f"{path} is no checkpoint, or holds more than tensors and plain Python objects, "
            "which might run code when loaded. If you trust the file, load it with "
            "torch.load(path, weights_only=False), and save its dict of tensors by itself "
            "(docs/WEIGHTS.md has the command).\n"
            f"{error}"
        ) from error
    # Damaged archives and pickles make their readers stumble over anything: KeyError, struct.error,
    # AssertionError, MemoryError, ...
    except Exception as error:
        raise WeightFileError(
            f"{path} cannot be read; is it complete? {type(error).__name__}: {error}"
        ) from error


def check_weights(path: Path, weights: Any) -> None:
    """Check what a file holds as the weights of a model.

    Raises:
        WeightFileError: it is no dict of tensors or arrays of numbers by name.
    """
    if not isinstance(weights, Mapping):
        raise WeightFileError(f"{path} holds a {type(weights).__name__}, not a dict of tensors")
    for name, value in weights.items():
        check_weight(path, name, value)


def check_weight(path: Path, name: Any, value: Any) -> None:
    """Check one of the weights that a file holds.

    Raises:
        WeightFileError: its name is no text, or it is no tensor or array whose numbers, real ones,
            all stand in the file.
    """
    if not isinstance(name, str):
        raise WeightFileError(f"{path} holds {name!r:.40} where the name of a tensor should be")
    if isinstance(value, np.ndarray):
        is_plain = value.dtype.kind in "fiub"
    elif isinstance(value, Tensor):
        is_plain = value.layout is torch.strided and not (
            value.is_complex() or value.is_quantized or value.is_meta
        )
        # A few numbers may be said to repeat until no memory holds them.
        is_plain = is_plain and value.nbytes <= value.untyped_storage().nbytes()
    else:
        is_plain = False
    if not is_plain:
        raise WeightFileError(
            f"{path} holds under {name!r:.80} a {type(value).__name__} that is no plain tensor of "
            "real numbers"
        )


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
    except OSError:
        raise
    except Exception as error:
        raise WeightFileError(
            f"{path} is no file of Detectron's model zoo, whole and with NumPy's arrays alone, or "
            f"might run code when loaded: {error or type(error).__name__}"
        ) from error
    if not isinstance(content, dict):
        raise WeightFileError(f"{path} holds a {type(content).__name__}, not a dict of arrays")
    is_caffe2 = not ("model" in content and "__author__" in content)
    # Detection models of Caffe2 have blobs, ImageNet's do not.
    weights = content.get("blobs", content) if is_caffe2 else content["model"]
    if not isinstance(weights, dict):
        raise WeightFileError(f"{path} holds a {type(weights).__name__} as its weights, not a dict")
    if is_caffe2:
        weights = {n: value for n, value in weights.items() if not str(n).endswith("_momentum")}
    return {
        "model": {name: finished(value) for name, value in weights.items()},
        "__author__": "Caffe2" if is_caffe2 else finished(content["__author__"]),
        "matching_heuristics": is_caffe2 or bool(content.get("matching_heuristics", False)),
    }


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import torch as safetensors_torch

    return safetensors_torch.load_file(path)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name:.40}" for name in names[:_NUM_NAMED])
    return f"{shown}, ..." if len(names) > _NUM_NAMED else shown or "(none)"


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write ``{"model": weights}``, which Detectron2's checkpointer loads by exact names.

    Args:
        path: the file, which appears when it is complete and takes the place of an earlier one.
        weights: by the model's names.
    """
    with whole_file(path, "wb", durable=True) as file:
        torch.save({"model": dict(weights)}, file)

"""Unpickling no more of a checkpoint than its tensors need."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import serialization

# What training leaves in checkpoints besides tensors and plain Python objects, such as a learning
# rate that NumPy computed.
_BY_PRODUCTS = (
    "numpy.dtype",
    "numpy.ndarray",
    # of NumPy 1 and 2
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    # bytes: what makes them, which torch itself knows from 2.5 on, and empty ones
    "_codecs.encode",
    "builtins.bytes",
    # what a defaultdict makes
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.set",
)


class _Unread:
    """Takes the place of a by-product, and forgets what that is made of."""

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _plain_dict(*default_factory: Any) -> dict:
    """Take the place of ``defaultdict``: torch fills plain dicts only."""
    return {}


def _named(stand_in: Callable, full_name: str) -> Callable:
    """Give a class or function the name that a file looks it up by."""
    stand_in.__module__, _, stand_in.__qualname__ = full_name.rpartition(".")
    stand_in.__name__ = stand_in.__qualname__  # which older versions of torch look at
    return stand_in


# NumPy's own functions are not safe to call: a file can give them a dtype of objects with flags
# that make them take numbers of the file for addresses of objects.
_STAND_INS = [
    _named(_plain_dict, "collections.defaultdict"),
    *(_named(type("", (_Unread,), {}), full_name) for full_name in _BY_PRODUCTS),
]


def load_tensors(path: Path) -> Any:
    """``torch.load`` with ``weights_only``, which lets by-products of training pass.

    Args:
        path: a file of torch.save.

    Returns:
        Its content on the CPU: tensors and plain Python objects as they are, a ``defaultdict`` as a
        dict, and objects without content for NumPy's numbers and arrays.

    Raises:
        pickle.UnpicklingError: it holds other objects, which might run code.
    """
    with _only_safe_globals(_STAND_INS):
        return torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def _only_safe_globals(safe_globals: list[Any]) -> Iterator[None]:
    """Replace what the process allowed torch.load, for as long as it lasts.

    ``torch.serialization.safe_globals`` would add to it, and needs torch 2.5.
    """
    before = list(serialization.get_safe_globals())
    serialization.clear_safe_globals()
    serialization.add_safe_globals(safe_globals)
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


@contextmanager
def loading_weights_only() -> Iterator[None]:
    """Let ``torch.load``, whoever calls it, load no more than tensors and plain Python objects.

    That is its default from torch 2.6 on.
    """
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def load_arrays(path: Path) -> Any:
    """Read a ``.pkl`` of Detectron or Detectron2: NumPy arrays of numbers, and plain objects.

    Args:
        path: a file of Python's pickle, written by Python 2 or 3.

    Returns:
        Its content, with stand-ins for arrays and NumPy's numbers, which :func:`finished` turns
        into what they stand for.

    Raises:
        pickle.UnpicklingError: it holds other objects, which might run code.
    """
    with open(path, "rb") as file:
        return _ArrayUnpickler(file, encoding="latin1").load()


class _DType:
    """Takes the place of ``numpy.dtype``: the name of a kind of number, and its byte order."""

    def __init__(self, name: str, *_: Any):
        if not isinstance(name, str) or not re.fullmatch(r"[<>|=]?(b1|[iuf][1248]|f16)", name):
            raise pickle.UnpicklingError(f"an array of {name!r}, which are no numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder("=" if state[1] == "|" else state[1])


class _Array:
    """Takes the place of a ``numpy.ndarray`` that is yet to get its content."""

    def __init__(self, *_: Any):
        self.array: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        self.array = _from_bytes(content, dtype, shape, "F" if is_fortran else "C").array


def _from_bytes(content: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    """Take the place of NumPy's functions that make arrays."""
    if isinstance(content, str):  # of Python 2
        content = content.encode("latin1")
    if not isinstance(dtype, _DType) or not isinstance(content, (bytes, bytearray)):
        raise pickle.UnpicklingError("an array of objects")
    array = _Array()
    array.array = np.frombuffer(bytes(content), dtype.dtype).reshape(shape, order=order).copy(order)
    return array


def _number(dtype: Any, content: Any) -> _Array:
    """Take the place of the function that makes NumPy's numbers."""
    return _from_bytes(content, dtype, ())


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Take the place of ``_codecs.encode``, which makes bytes in protocols before 3."""
    return text.encode("latin1" if encoding == "latin1" else "utf-8")


def _no_bytes() -> bytes:
    """Take the place of ``bytes``, which older protocols call for empty ones."""
    return b""


_PICKLED = {
    "__builtin__.bytes": _no_bytes,
    "_codecs.encode": _encode,
    "builtins.bytes": _no_bytes,
    "collections.OrderedDict": dict,
    "numpy.dtype": _DType,
    "numpy.ndarray": _Array,
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray._reconstruct", _Array),
            ("multiarray.scalar", _number),
            ("numeric._frombuffer", _from_bytes),
        )
    },
}


class _ArrayUnpickler(pickle._Unpickler):
    """In Python, as the one in C takes gigabytes if a damaged file numbers an object high."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _PICKLED[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}, which might run code") from None


def finished(value: Any) -> Any:
    """Give the array or number that a stand-in is of; other values as they are."""
    if isinstance(value, _Array):
        return value.array if value.array.ndim else value.array[()]
    return value

"""Unpickling no more of a checkpoint than its tensors need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

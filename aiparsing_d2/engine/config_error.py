"""The error of settings that cannot be run."""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from omegaconf.errors import OmegaConfBaseException

__all__ = ["ConfigError", "building", "nearest_known"]

# What constructors raise at arguments that they cannot have, and imports at names of nothing.
# Other subclasses tell of other things, as of files and of memory.
_OF_ARGUMENTS = (
    AssertionError,
    AttributeError,
    ImportError,
    KeyError,
    ModuleNotFoundError,
    RuntimeError,
    TypeError,
    ValueError,
)


class ConfigError(ValueError):
    """A config, an override or the weights of a run do not fit; the message says what to change."""


@contextmanager
def building(key: str) -> Iterator[None]:
    """Tell in one line, and with its key, which node of a config the block cannot build.

    Args:
        key: of the node.

    Raises:
        ConfigError: from what the node's constructors raise.
    """
    try:
        yield
    except Exception as error:
        is_config = isinstance(error, OmegaConfBaseException)
        if type(error) not in _OF_ARGUMENTS and not is_config:
            raise
        # OmegaConf's further lines are of no use.
        text = str(error).partition("\n")[0] if is_config else " ".join(str(error).split())
        if type(error) is not ValueError and not is_config:
            # Others say little, and may be mistakes of the constructor itself.
            place = traceback.extract_tb(error.__traceback__)[-1]
            file = os.path.basename(place.filename)
            text = f"{text or place.line} ({type(error).__name__} in {file}, line {place.lineno})"
        raise ConfigError(f"{key}: {text}") from error


def nearest_known(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return the end of a message about an unknown name: the known ones most like it, or all of
    them.

    Args:
        name: the unknown name.
        known: the known ones.
        prefix: put before the names in the message.
    """
    known = sorted(set(known))
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.9)
    similar = similar or difflib.get_close_matches(name, known, n=1)
    if similar:
        return f"did you mean {' or '.join(prefix + k for k in similar)}?"
    return f"known are {', '.join(prefix + k for k in known)}" if known else "none is known"

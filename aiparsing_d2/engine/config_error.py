"""The error of settings that cannot be run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["ConfigError", "nearest_known"]


class ConfigError(ValueError):
    """A config, an override or the weights of a run do not fit; the message says what to change."""


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

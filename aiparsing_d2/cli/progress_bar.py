"""How far a long command is, how fast it is, and how long the rest will take."""

from __future__ import annotations

import sys

from tqdm import tqdm

__all__ = ["progress_bar"]


def progress_bar(total: int | None, description: str, unit: str, *, is_shown: bool = True) -> tqdm:
    """Make a bar on standard error; in a log it is a line now and then."""
    seconds = 0.5 if sys.stderr.isatty() else 30
    return tqdm(total=total, desc=description, unit=unit, mininterval=seconds, disable=not is_shown)

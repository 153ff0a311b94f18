"""How far a long command is, how fast it is, and how long the rest will take."""

from __future__ import annotations

import sys

from tqdm import tqdm

__all__ = ["ProgressBar", "progress_bar"]


class ProgressBar(tqdm):
    """A bar that also tells how many of what is done have failed."""

    _num_failed = 0

    def advance(self, number: int = 1, *, num_failed: int = 0) -> None:
        """Count what is done.

        Args:
            number: of all that is done since the last call.
            num_failed: how many of them have failed.
        """
        self._num_failed += num_failed
        if self._num_failed:
            self.set_postfix_str(f"{self._num_failed} failed", refresh=False)
        self.update(number)


def progress_bar(
    total: int | None, description: str, unit: str, *, is_shown: bool = True
) -> ProgressBar:
    """Make a bar on standard error; in a log it is a line now and then."""
    seconds = 0.5 if sys.stderr.isatty() else 30
    return ProgressBar(
        total=total, desc=description, unit=unit, mininterval=seconds, disable=not is_shown
    )

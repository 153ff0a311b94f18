"""Ending a long command so that what it has begun is finished."""

from __future__ import annotations

import signal
from typing import Any

__all__ = ["StopSignals"]


class StopSignals:
    """Within a ``with`` block, notes Ctrl-C and SIGTERM instead of ending the process.

    A second Ctrl-C raises KeyboardInterrupt.

    Attributes:
        number: of the first signal, or None.
    """

    number: int | None = None

    def __enter__(self) -> StopSignals:
        self._before = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        if number == self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is None:
            self.number = number

    def __bool__(self) -> bool:
        return self.number is not None

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process that the signal ended: 130 or 143."""
        return 128 + self.number

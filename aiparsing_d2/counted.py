"""Numbers of things, in words."""

from __future__ import annotations

__all__ = ["counted"]

_IRREGULAR = {"person": "people", "batch": "batches"}


def counted(number: int, thing: str) -> str:
    """Give a number of things, as "1 person" or "2,000 people".

    Args:
        number: of things.
        thing: one of them.
    """
    return f"{number:,} {thing if number == 1 else _IRREGULAR.get(thing, f'{thing}s')}"

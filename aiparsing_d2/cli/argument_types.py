"""Kinds of numbers on the command line."""

from __future__ import annotations

import argparse

__all__ = ["not_negative", "positive"]


def not_negative(text: str) -> int:
    """Read 0 or a positive integer.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is neither 0 nor a positive integer")
    return int(text)


def positive(text: str) -> int:
    """Read a positive integer.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return value

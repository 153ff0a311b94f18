"""Reading JSON that anybody may have written, and showing what is wrong in it.

Needs only the standard library.
"""

from __future__ import annotations

import json
import os
import reprlib
from typing import Any

__all__ = ["JsonError", "parse_json", "read_json", "shortened"]

_MAX_SHOWN = 160

_short = reprlib.Repr()
_short.maxlevel = 3
_short.maxlist = _short.maxtuple = 5
_short.maxdict = 8
_short.maxstring = _short.maxother = _short.maxlong = 60


class JsonError(ValueError):
    """A file or a text is no JSON."""


def read_json(file_name: str | os.PathLike) -> Any:
    """Read a JSON file.

    Args:
        file_name: in UTF-8, also with the byte order mark that Windows programs write, or UTF-16.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        JsonError: see :func:`parse_json`. The message names the file.
    """
    with open(file_name, "rb") as file:
        content = file.read()
    try:
        return parse_json(content)
    except JsonError as error:
        raise JsonError(f"{os.fspath(file_name)} is not valid JSON: {error}") from error


def parse_json(content: bytes | str) -> Any:
    """Parse a JSON text.

    Raises:
        JsonError: it is broken, is nested too deeply, or has an object with a key twice, of which
            one would be lost.
    """
    try:
        return json.loads(content, object_pairs_hook=_object)
    # Broken UTF-8 and numbers of thousands of digits are ValueErrors too.
    except ValueError as error:
        raise JsonError(str(error)) from error
    except RecursionError as error:
        raise JsonError("it is nested too deeply") from error


def shortened(value: Any) -> str:
    """Show a value in an error message: in one short line, whatever it holds."""
    text = _short.repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {shortened(twice)} twice")
    return values

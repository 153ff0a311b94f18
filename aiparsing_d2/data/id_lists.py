"""Lists of image ids, one a line, and what a name in a data set's own files may look like.

Needs only the standard library.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

__all__ = ["IdListError", "LineProblem", "path_problem", "read_id_list", "scan_id_list"]

_UNUSABLE_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_MAX_BYTES = 255
_NUM_SHOWN = 80


class IdListError(ValueError):
    """A list of image ids is broken."""


@dataclass(frozen=True)
class LineProblem:
    """What is wrong with a line.

    Attributes:
        line: its number, from 1 on.
        reason: what is wrong.
        is_repetition: whether it is only that an earlier line has the id already.
    """

    line: int
    reason: str
    is_repetition: bool = False

    def __str__(self) -> str:
        return f"line {self.line} {self.reason}"


def read_id_list(file_name: str | os.PathLike) -> list[str]:
    """Read a list of image ids; blank lines do not count.

    Args:
        file_name: UTF-8 text with an id on each line, as :func:`path_problem` wants it.

    Raises:
        FileNotFoundError: there is no such file.
        IdListError: a line is not an id, or repeats one, or there is none.
    """
    if not os.path.isfile(file_name):
        raise FileNotFoundError(
            f"{file_name} does not exist. The expected folders are shown in datasets/README.md."
        )
    lines, problems = scan_id_list(file_name)
    if problems:
        more = f" ({len(problems)} lines are wrong)" if problems[1:] else ""
        raise IdListError(f"{file_name}: {problems[0]}{more}.")
    if not lines:
        raise IdListError(f"{file_name} lists no image.")
    return list(lines)


def scan_id_list(file_name: str | os.PathLike) -> tuple[dict[str, int], list[LineProblem]]:
    """Read what can be read of a list of image ids, and say what cannot.

    Args:
        file_name: see :func:`read_id_list`.

    Returns:
        * the ids in the order of the list, each with the number of its first line;
        * what is wrong with the other lines that are not blank.

    Raises:
        OSError: the file cannot be opened.
    """
    with open(file_name, "rb") as file:
        # A byte order mark, as Windows editors write it, would become part of the first id.
        content = file.read().removeprefix(b"\xef\xbb\xbf")
    first_lines: dict[str, int] = {}
    problems = []
    # Lines of bytes end at line feeds and carriage returns only, those of text at other characters.
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            image_id = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            problems.append(LineProblem(number, f"is not UTF-8 text: {line[:_NUM_SHOWN]!r}"))
            continue
        if not image_id:
            continue
        problem = path_problem(image_id)
        if problem is not None:
            reason = f"is no image id: {image_id[:_NUM_SHOWN]!r} {problem}"
            problems.append(LineProblem(number, reason))
        elif image_id in first_lines:
            reason = f"repeats '{image_id}' of line {first_lines[image_id]}"
            problems.append(LineProblem(number, reason, is_repetition=True))
        else:
            first_lines[image_id] = number
    return first_lines, problems


def path_problem(path: str) -> str | None:
    """Say why a text cannot be the path of a file inside a folder.

    Args:
        path: relative to the folder, with "/" between folders, as in "videos7/000000000026".

    Returns:
        What is wrong with it, None if nothing is.
    """
    if "\\" in path:
        return "has a backslash; folders are separated by '/'"
    if _UNUSABLE_CHARACTERS.search(path):
        return "has control characters"
    names = path.split("/")
    if path.startswith("/") or ".." in names:
        return "leads out of its folder"
    if "" in names or "." in names:
        return "has an empty name between slashes"
    if any(len(name.encode()) > _MAX_BYTES for name in names):
        return f"has a name of more than {_MAX_BYTES} bytes"
    return None

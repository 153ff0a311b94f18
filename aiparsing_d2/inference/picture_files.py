"""Finding pictures in folders, and what their results are called."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from aiparsing_d2.data.layouts import IMAGE_SUFFIXES

from .saving import result_files

__all__ = [
    "PICTURE_SUFFIXES",
    "PictureFile",
    "find_files",
    "find_pictures",
    "missing_kinds",
    "without_clashes",
]

PICTURE_SUFFIXES = IMAGE_SUFFIXES
"""Of pictures in folders, in small letters; a file that is named itself may have any."""


class _Named(Protocol):
    @property
    def path(self) -> str: ...

    @property
    def name(self) -> str: ...


Picture = TypeVar("Picture", bound=_Named)


class PictureFile(NamedTuple):
    """A picture.

    Attributes:
        path: of its file.
        name: of its results, see :func:`~aiparsing_d2.inference.saving.save`: "beach/1" for
            ``beach/1.jpg`` in a folder that was given, "1" for a file.
    """

    path: str
    name: str


def find_pictures(
    inputs: Iterable[str],
    output: str | os.PathLike,
    kinds: Iterable[str],
    note: Callable[[str], object],
) -> list[PictureFile]:
    """Find the pictures that files and folders stand for.

    Folders are searched to any depth, links to folders too, each folder once. The folder of the
    results is left out.

    Args:
        inputs: files and folders.
        output: folder of the results.
        kinds: of results, whose files must not be those of another picture.
        note: called with what is wrong with an input, a folder or a picture, which is left out.

    Returns:
        The pictures, each once, in an order that is the same at every call.
    """
    pictures = (
        PictureFile(path, os.path.splitext(name)[0])
        for given in inputs
        for path, name in find_files(given, output, PICTURE_SUFFIXES, note)
    )
    return list(without_clashes(pictures, kinds, note))


def find_files(
    given: str, output: str | os.PathLike, suffixes: tuple[str, ...], note: Callable[[str], object]
) -> Iterator[tuple[str, str]]:
    """Find the files of some kinds in and below a folder, or give a file of any kind itself.

    Args:
        given: the folder or file.
        output: a folder in which nothing is looked for.
        suffixes: in small letters.
        note: see :func:`find_pictures`.

    Yields:
        Path of a file, and its name below the folder, or its bare name.
    """
    output = os.path.realpath(output)
    if not os.path.isdir(given):
        if _is_file(given, note):
            yield given, os.path.basename(given)
        return
    real = os.path.realpath(given)
    if real == output or real.startswith(os.path.join(output, "")):
        note(f"{given}: what is in the folder of the results is not parsed; give another --output")
        return
    is_empty = True
    for path in _files_below(given, output, note):
        if os.path.splitext(path)[1].lower() in suffixes:
            is_empty = False
            if _is_file(path, note):
                yield path, Path(path).relative_to(given).as_posix()
    if is_empty:
        note(f"{given}: no pictures ({', '.join(suffixes)}) in this folder")


def without_clashes(
    pictures: Iterable[Picture], kinds: Iterable[str], note: Callable[[str], object]
) -> Iterator[Picture]:
    """Leave out pictures that were there before, and those whose results would be another's.

    Args:
        pictures: with ``path`` and ``name`` as :class:`PictureFile` has them.
        kinds: of results.
        note: called with what is wrong with a picture.
    """
    owners: dict[str, str] = {}
    for picture in pictures:
        files = [str(file) for file in result_files("", picture.name, kinds).values()]
        owner = next((owners[file] for file in files if file in owners), None)
        if owner is None:
            owners.update(dict.fromkeys(files, picture.path))
            yield picture
        elif os.path.realpath(owner) != os.path.realpath(picture.path):
            note(
                f"{picture.path}: {owner} has the same name, so its results too: rename one, or "
                "give the folder above both"
            )


def missing_kinds(
    picture: PictureFile, output: str | os.PathLike, kinds: Iterable[str]
) -> list[str]:
    """Name the kinds of results of a picture that are not there yet."""
    files = result_files(output, picture.name, kinds)
    return [kind for kind, file in files.items() if not os.path.exists(file)]


def _is_file(path: str, note: Callable[[str], object]) -> bool:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        note(f"{path}: {getattr(error, 'strerror', None) or error}")
        return False
    if not stat.S_ISREG(mode):  # reading a pipe may wait for ever
        note(f"{path}: not a file, but a pipe, a socket or a device")
    return stat.S_ISREG(mode)


def _files_below(folder: str, output: str, note: Callable[[str], object]) -> Iterator[str]:
    """List the files in and below a folder, those behind links to folders last."""

    def note_error(error: OSError) -> None:
        note(f"{error.filename}: {error.strerror}")

    seen = {output}
    tops = [folder]
    while tops:
        links = []
        for top in tops:
            for place, folders, files in os.walk(top, onerror=note_error):
                real = os.path.realpath(place)
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders.sort()
                yield from (os.path.join(place, file) for file in sorted(files))
                paths = (os.path.join(place, name) for name in folders)
                links += [path for path in paths if os.path.islink(path)]
        tops = links

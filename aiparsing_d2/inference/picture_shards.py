"""Pictures in files and in tar shards (WebDataset's layout), wherever fsspec reaches."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from .picture_files import PICTURE_SUFFIXES, find_files, without_clashes

__all__ = ["StoredPicture", "find_stored_pictures", "read_stored_picture"]

_SHARD_SUFFIX = ".tar"


class StoredPicture(NamedTuple):
    """A picture, as a range of bytes of a file.

    Attributes:
        path: what it is called in messages: of its file, or "shard.tar/1.jpg".
        name: of its results, see :class:`~aiparsing_d2.inference.picture_files.PictureFile`;
            "shard/1" in a shard.
        url: of the file, a path or a URL of fsspec.
        start, end: of the range; None for all.
    """

    path: str
    name: str
    url: str
    start: int | None = None
    end: int | None = None


def find_stored_pictures(
    inputs: Iterable[str], output: str, kinds: Iterable[str], note: Callable[[str], object]
) -> Iterator[StoredPicture]:
    """Find the pictures that files, folders, shards and patterns stand for.

    Of a shard only the headers between the pictures are read.

    Args:
        inputs: paths or URLs. Folders are searched to any depth.
        output: path or URL of the folder of the results, which is left out.
        kinds: of results, whose files must not be those of another picture.
        note: called with what is wrong with an input or a picture, which is left out.
    """
    pictures = (
        picture
        for given in inputs
        for url, name in _find_files(given, output, note)
        for picture in _pictures_in(url, name, note)
        if _is_unicode(picture, note)
    )
    return without_clashes(pictures, kinds, note)


def read_stored_picture(picture: StoredPicture) -> bytes:
    """Read the content of a picture's file.

    Raises:
        OSError: it cannot be read.
    """
    file_system, path = fsspec.core.url_to_fs(picture.url)
    return file_system.cat_file(path, picture.start, picture.end)


def _find_files(
    given: str, output: str, note: Callable[[str], object]
) -> Iterator[tuple[str, str]]:
    """Give the URL of each picture and shard, and its name below what was given."""
    suffixes = (*PICTURE_SUFFIXES, _SHARD_SUFFIX)
    try:
        file_system, path = fsspec.core.url_to_fs(given)
        if isinstance(file_system, LocalFileSystem):
            yield from find_files(given if "://" not in given else path, output, suffixes, note)
            return
        if "*" in path or "[" in path:
            matches = [file_system.unstrip_protocol(match) for match in file_system.glob(path)]
            for match in sorted(matches):
                yield from _find_files(match, output, note)
        elif file_system.isfile(path):
            matches = [given]
            yield given, PurePosixPath(path).name
        else:
            results = fsspec.core.url_to_fs(output)[1]
            matches = [
                file
                for file in sorted(file_system.find(path))
                if PurePosixPath(file).suffix.lower() in suffixes
                and not file.startswith(f"{results}/")
            ]
            for file in matches:
                name = PurePosixPath(file).relative_to(path).as_posix()
                yield file_system.unstrip_protocol(file), name
    except (OSError, ValueError, ImportError) as error:
        note(f"{given}: {error}")
    else:
        if not matches:
            note(f"{given}: no pictures ({', '.join(suffixes)}) there")


def _is_unicode(picture: StoredPicture, note: Callable[[str], object]) -> bool:
    try:
        picture.path.encode()
    except UnicodeEncodeError:
        note(f"{picture.path}: a table holds no name that is not UTF-8")
        return False
    return True


def _pictures_in(url: str, name: str, note: Callable[[str], object]) -> Iterator[StoredPicture]:
    stem, suffix = os.path.splitext(name)
    if suffix.lower() != _SHARD_SUFFIX:
        yield StoredPicture(url, stem, url)
        return
    try:
        with fsspec.open(url, "rb") as file, tarfile.open(fileobj=file, mode="r:") as shard:
            for member in shard:
                inner = PurePosixPath(member.name)
                if not member.isreg() or inner.suffix.lower() not in PICTURE_SUFFIXES:
                    continue
                path = f"{url}/{member.name}"
                if inner.is_absolute() or ".." in inner.parts:
                    note(f"{path}: its name leads out of the shard")
                    continue
                start = member.offset_data
                inner_name = f"{stem}/{inner.with_suffix('')}"
                yield StoredPicture(path, inner_name, url, start, start + member.size)
    except (OSError, tarfile.TarError) as error:
        note(f"{url}: not a whole, uncompressed tar file: {error}")

"""Keeping the index of a data set between runs, so that only the first start takes long.

Indexing a split opens the header of each of its images, which takes minutes on a network drive. The
result is therefore kept as JSON in the folder ``aiparsing_d2`` of iopath's cache,
``$FVCORE_CACHE`` or ``~/.torch/iopath_cache``, and used as long as the names, sizes and times of
last change of all files concerned stay the same. Finding that out takes one look into each folder.

``AIPARSING_INDEX_CACHE=0`` in the environment switches the cache off: nothing is read from it and
nothing written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iopath.common.file_io import get_cache_dir

from aiparsing_d2.whole_files import whole_file

from ..json_files import parse_json
from ..layouts import choose_files, comparable_stem

__all__ = ["FileListing", "cache_folder", "load_cached"]

logger = logging.getLogger(__name__)

_SWITCH = "AIPARSING_INDEX_CACHE"

# What the system says of a path that leads nowhere, is too long, or is a circle of links.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)

# To be raised whenever the same files give other records than before.
_VERSION = 3


@dataclass(frozen=True)
class FileListing:
    """The files directly in some folders, as they were at one time.

    Attributes:
        files: folder -> file name -> (size in bytes, time of last change in nanoseconds). A folder
            that does not exist has no files.
    """

    files: dict[str, dict[str, tuple[int, int]]]
    _chosen: dict[tuple[str, tuple[str, ...]], dict[str, str]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def scan(cls, folders: Iterable[str]) -> FileListing:
        """Look into folders, but not into the folders in them."""
        return cls({folder: _scan_folder(folder) for folder in sorted(set(folders))})

    def __contains__(self, file_name: str) -> bool:
        """Whether a file is there; its folder must be written as it was given to :meth:`scan`."""
        folder, name = os.path.split(file_name)
        return name in self.files.get(folder, ())

    def find(self, path: str, suffixes: tuple[str, ...]) -> str | None:
        """Return the file of a path that lacks its suffix, as :func:`.choose_files` has it; or
        None.
        """
        folder, stem = os.path.split(path)
        key = folder, suffixes
        if key not in self._chosen:
            self._chosen[key] = choose_files(self.files.get(folder, ()), suffixes)
        name = self._chosen[key].get(stem)
        return None if name is None else os.path.join(folder, name)

    def similar(self, path: str) -> list[str]:
        """Names of files that differ from a path, which lacks its suffix, as
        :func:`.comparable_stem` has it.
        """
        folder, stem = os.path.split(path)
        wanted = comparable_stem(f"{stem}.")
        return [name for name in self.files.get(folder, ()) if comparable_stem(name) == wanted]

    def fingerprint(self, more: Iterable[str] = ()) -> str:
        """Hexadecimal digest of the names, sizes and times of all files.

        Args:
            more: further text that the digest is to depend on.
        """
        digest = hashlib.sha256(json.dumps(list(more)).encode())
        for folder, files in self.files.items():
            digest.update(json.dumps([folder, sorted(files.items())]).encode())
        return digest.hexdigest()


def load_cached(
    key: Sequence[str],
    fingerprint: str,
    build: Callable[[], Any],
    holds: Callable[[Any], bool] = lambda value: True,
) -> Any:
    """Return what ``build`` returned when it was last called for the same key and fingerprint.

    If nothing valid is cached, ``build`` is called and its result cached. A cache that is damaged
    or cannot be written costs time, but is no error. Several processes may do this at once.

    Args:
        key: what is cached. A new fingerprint replaces the cached value of the same key.
        fingerprint: changes when the value does.
        build: makes the value, which must survive being written as JSON and read back.
        holds: whether a cached value is still right, where that depends on more than files.
    """
    folder = cache_folder()
    if folder is None:
        return build()
    file_name = _cache_file_name(folder, key)
    header = {"version": _VERSION, "key": list(key), "fingerprint": fingerprint}
    try:
        value = _read(file_name, header)
        if holds(value):
            return value
        logger.info("Indexing again: %s no longer holds", file_name)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as e:
        logger.info("Indexing again: %s cannot be used (%s)", file_name, e)
    value = build()
    try:
        _write(file_name, header, value)
    except OSError as e:
        logger.warning("The index cannot be kept for the next start: %s", e)
    return value


def cache_folder() -> Path | None:
    """Folder of the cache, which may not exist yet; None if the cache is switched off."""
    if os.environ.get(_SWITCH, "").strip().lower() in ("0", "off", "false", "no"):
        return None
    return Path(get_cache_dir(), "aiparsing_d2")


def _scan_folder(folder: str) -> dict[str, tuple[int, int]]:
    files = {}
    try:
        entries = os.scandir(folder or os.curdir)
    except OSError as e:
        if e.errno in _NOT_THERE:
            return files
        raise
    with entries:
        for entry in entries:
            try:
                status = entry.stat()
            except OSError as e:
                if e.errno in _NOT_THERE:  # a link to nowhere, or to itself
                    continue
                raise
            if stat.S_ISREG(status.st_mode):
                files[entry.name] = (status.st_size, status.st_mtime_ns)
    return files


def _cache_file_name(folder: Path, key: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:16]
    return os.path.join(folder, f"index_{digest}.json")


# A cache file is two lines of JSON: what is cached, with a checksum of the second line; the value.


def _read(file_name: str, header: dict[str, Any]) -> Any:
    """Raise ValueError if the file is damaged or holds something else than ``header`` says."""
    with open(file_name, "rb") as file:
        found = parse_json(file.readline())
        payload = file.read()
    if found != {**header, "sha256": hashlib.sha256(payload).hexdigest()}:
        raise ValueError("the files have changed since, or the cache is damaged")
    return parse_json(payload)


def _write(file_name: str, header: dict[str, Any], value: Any) -> None:
    payload = json.dumps(value).encode()
    header = {**header, "sha256": hashlib.sha256(payload).hexdigest()}
    with whole_file(Path(file_name), "wb") as file:
        file.write(json.dumps(header).encode() + b"\n" + payload)

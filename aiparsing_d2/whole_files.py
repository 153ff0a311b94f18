"""Writing files that are never seen half written."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["check_writable", "whole_file", "whole_folder"]


def check_writable(folder: Path) -> None:
    """See whether files can be made in a folder, there or not; none is left, nor the folder made.

    Args:
        folder: for results, before the work for them is begun.

    Raises:
        OSError: they cannot.
    """
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise OSError(f"{folder} cannot be written to: {error.strerror}") from error


@contextlib.contextmanager
def whole_file(
    path: Path, mode: str = "w", *, overwrite: bool = True, durable: bool = False
) -> Iterator[IO]:
    """Open a file that takes its place, and its name, only once it has been written without error.

    Several processes may write the same file; the last one wins.

    Args:
        path: the file; folders above it are made.
        mode: "w" for UTF-8 text with the line ends it has, "wb" for bytes.
        overwrite: whether an earlier file may be replaced.
        durable: whether the file is on the disk, not only in the system's memory, before it takes
            its name, so that it is whole after a loss of power too. That takes time: for what a
            run leaves, not for each of thousands of small files.

    Raises:
        FileExistsError: there is a file already and it is not to be overwritten.
        OSError: it cannot be written, as when the disk is full; the error names the file, which
            those of Python's writing do not.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; write to a new or empty folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with open(part, mode, **text) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)
    if durable and os.name == "posix":  # the new name, too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Make a folder that takes its name only once all in it has been written without error.

    Args:
        path: the folder; what there is under this name is replaced. Folders above it are made.

    Yields:
        The folder to write into.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    old = path.with_name(f"{path.name}.{os.getpid()}.old")
    part.mkdir(parents=True)
    try:
        yield part
        if path.exists():
            path.rename(old)
        part.rename(path)
    finally:
        for folder in (part, old):
            if folder.exists():
                shutil.rmtree(folder)

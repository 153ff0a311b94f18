"""Going through many images so that an interrupted run can be continued."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiparsing_d2.data.json_files import JsonError, parse_json, shortened
from aiparsing_d2.parallel import map_in_processes

from .inventory import ImageFiles
from .verification import ImageReport, ImageVerifier, file_stamps

__all__ = ["Journal", "JournalError", "verify_images"]

_VERSION = 3


class JournalError(Exception):
    """What an earlier run left cannot be continued."""


class Journal:
    """The reports of the images that are done, in a file of JSON lines that grows image by image.

    The first line says what run it belongs to; the others have a checksum, so that a damaged file
    is not believed. A report counts as long as the image's files keep their names, sizes and times
    of last change.

    Args:
        path: the file. If it exists, it is continued.
        run: whatever the reports depend on besides the images, as JSON values.

    Raises:
        JournalError: the file belongs to another run, or is damaged.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self._path = path
        header = {"version": _VERSION, **run}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._entries = self._read(header) if path.exists() else {}
        self._file = open(path, "a", encoding="utf-8")
        if not self._file.tell():
            self._write(header)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def find(self, root: Path, files: ImageFiles) -> ImageReport | None:
        """Give the report of an image, if there is one and its files have not changed since."""
        entry = self._entries.get((files.split, files.image_id))
        if entry is None or entry["stamps"] != file_stamps(root, files):
            return None
        return entry["report"]

    def add(self, report: ImageReport, stamps: list[list[str | int]]) -> None:
        """Add the report of an image.

        Args:
            report: the report.
            stamps: of the image's files, from before they were read.
        """
        entry = {"stamps": stamps, "report": report.to_json()}
        self._write({**entry, "checksum": _checksum(entry)})

    def _write(self, value: Mapping[str, Any]) -> None:
        self._file.write(_line(value).decode("ascii"))
        self._file.flush()

    def _read(self, header: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
        """Read the entries, by split and image id."""
        with open(self._path, "rb+") as file:
            content = file.read()
            # The last line may have been cut off with the process.
            complete = content[: content.rfind(b"\n") + 1]
            if complete:
                entries = self._read_entries(complete, header)
            elif _line(header).startswith(content):
                entries = {}
            else:
                raise self._damaged(1, "it does not say what run it is of")
            file.truncate(len(complete))
        return entries

    def _read_entries(
        self, complete: bytes, header: Mapping[str, Any]
    ) -> dict[tuple[str, str], dict[str, Any]]:
        found, *entries = (
            self._parse(number, line) for number, line in enumerate(complete.splitlines(), start=1)
        )
        if found != header:
            told = ", ".join(
                f"{key if key in header else shortened(key)} {shortened(found.get(key))} "
                f"instead of {shortened(header.get(key))}"
                for key in {**header, **found}
                if found.get(key) != header.get(key)
            )
            raise JournalError(f"{self._path} is of an unfinished run that differs: {told}.")
        by_image = {}
        for number, entry in enumerate(entries, start=2):
            if entry.pop("checksum", None) != _checksum(entry):
                raise self._damaged(number, "its checksum is another")
            try:
                report = ImageReport.from_json(entry["report"])
            except Exception as e:  # whatever other values make it stumble over
                raise self._damaged(number, f"it is no report of an image: {e}") from e
            by_image[report.split, report.image_id] = {**entry, "report": report}
        return by_image

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            values = parse_json(line)
        except JsonError as e:
            raise self._damaged(number, str(e)) from e
        if not isinstance(values, dict):
            raise self._damaged(number, "it is no object")
        return values

    def _damaged(self, number: int, reason: str) -> JournalError:
        return JournalError(f"{self._path} is damaged in line {number} ({reason}).")


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"


def _checksum(entry: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(entry).encode("ascii"))


def verify_images(
    verifier: ImageVerifier, images: Sequence[ImageFiles], journal: Journal, num_workers: int
) -> Generator[ImageReport, None, None]:
    """Look through images, those that the journal knows already without opening them.

    Args:
        verifier: looks through one image.
        images: the images.
        journal: keeps the reports.
        num_workers: number of processes; 1 stays in this one.

    Yields:
        The report of each image: first those that are known, then the others, in their order.

    Raises:
        WorkerDiedError: see :func:`~aiparsing_d2.parallel.map_in_processes`.
    """
    to_do = []
    for files in images:
        report = journal.find(verifier.root, files)
        if report is None or not verifier.has_written(report):
            to_do.append(files)
        else:
            yield report
    verify = functools.partial(_verify, verifier)
    with map_in_processes(verify, to_do, num_workers) as results:
        for report, stamps in results:
            journal.add(report, stamps)
            yield report


def _verify(
    verifier: ImageVerifier, files: ImageFiles
) -> tuple[ImageReport, list[list[str | int]]]:
    stamps = file_stamps(verifier.root, files)
    return verifier(files), stamps

"""The kinds of files that a parsed picture can be saved as."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from aiparsing_d2.whole_files import whole_file, whole_folder

from .parsed_image import ParsedImage

__all__ = ["RESULT_KINDS", "ResultKind", "result_files", "save"]


class ResultKind(NamedTuple):
    """A kind of result.

    Attributes:
        suffix: what is added to the picture's name.
        write: called with the people, the file (or folder) and the picture's name. It leaves the
            whole result or none, and replaces an earlier one.
    """

    suffix: str
    write: Callable[[ParsedImage, Path, str], object]


def result_files(folder: str | os.PathLike, name: str, kinds: Iterable[str]) -> dict[str, Path]:
    """Name the files of a picture's results, by kind.

    Args:
        folder: where results go.
        name: the picture's name below it, without its suffix, e.g. "beach/1".
        kinds: of :data:`RESULT_KINDS`.

    Raises:
        ValueError: there is no such kind.
    """
    files = {}
    for kind in kinds:
        if kind not in RESULT_KINDS:
            raise ValueError(f"{kind!r} is not one of {', '.join(RESULT_KINDS)}")
        files[kind] = Path(folder, name + RESULT_KINDS[kind].suffix)
    return files


def save(
    parsed: ParsedImage, folder: str | os.PathLike, name: str, kinds: Iterable[str]
) -> list[Path]:
    """Write a picture's results; each is there whole or not at all, and replaces an earlier one.

    Args:
        parsed: the people, with their picture for the kinds that show it.
        folder: where results go; it is made, and so are the folders in ``name``.
        name: the picture's name below it, without its suffix, e.g. "beach/1".
        kinds: of :data:`RESULT_KINDS`.

    Returns:
        The files, or folders, in the order of the kinds.

    Raises:
        ValueError: there is no such kind, or the picture is needed and missing.
        OSError: a file cannot be written.
    """
    files = result_files(folder, name, kinds)
    for kind, file in files.items():
        RESULT_KINDS[kind].write(parsed, file, name)
    return list(files.values())


def _write_overlay(parsed: ParsedImage, path: Path, name: str) -> None:
    _write_drawing(parsed.plot(legend=True), path)


def _write_people(parsed: ParsedImage, path: Path, name: str) -> None:
    _write_drawing(parsed.plot(color_by="person"), path)


def _write_drawing(drawing: np.ndarray, path: Path) -> None:
    with whole_file(path, "wb") as file:
        Image.fromarray(drawing).save(file, "JPEG", quality=90, subsampling=0)


def _write_labels(labels: np.ndarray, parsed: ParsedImage, path: Path) -> None:
    image = Image.fromarray(labels).convert("P")
    image.putpalette([channel for color in parsed.part_labels.colors for channel in color])
    with whole_file(path, "wb") as file:
        image.save(file, "PNG")


def _write_parts(parsed: ParsedImage, path: Path, name: str) -> None:
    _write_labels(parsed.semantic_map(), parsed, path)


def _write_instances(parsed: ParsedImage, path: Path, name: str) -> None:
    with whole_file(path, "wb") as file:
        Image.fromarray(parsed.instance_map()).save(file, "PNG")


def _write_json(parsed: ParsedImage, path: Path, name: str) -> None:
    with whole_file(path) as file:
        file.write(parsed.to_json(indent=1))


def _write_coco(parsed: ParsedImage, path: Path, name: str) -> None:
    with whole_file(path) as file:
        json.dump(parsed.to_coco(image_id=name), file, indent=1)


def _write_npz(parsed: ParsedImage, path: Path, name: str) -> None:
    parsed.save(path, overwrite=True)


def _write_cutouts(parsed: ParsedImage, path: Path, name: str) -> None:
    with whole_folder(path) as folder:
        for number, person in enumerate(parsed, start=1):
            cutout = person.crop()
            if cutout.size:
                # A third of the time of Pillow's default, files of which are 4 % smaller.
                Image.fromarray(cutout).save(folder / f"{number}.png", compress_level=3)


def _write_person_maps(parsed: ParsedImage, path: Path, name: str) -> None:
    with whole_folder(path) as folder:
        for number, person in enumerate(parsed, start=1):
            _write_labels(person.part_map(), parsed, folder / f"{number}.png")


RESULT_KINDS = {
    "overlay": ResultKind(".overlay.jpg", _write_overlay),
    "people": ResultKind(".people.jpg", _write_people),
    "parts": ResultKind(".parts.png", _write_parts),
    "instances": ResultKind(".instances.png", _write_instances),
    "json": ResultKind(".json", _write_json),
    "coco": ResultKind(".coco.json", _write_coco),
    "npz": ResultKind(".npz", _write_npz),
    "cutouts": ResultKind(".cutouts", _write_cutouts),
    "person_maps": ResultKind(".person_maps", _write_person_maps),
}
"""What results can be saved as, by name."""

"""From CCP's repository to a data set in CIHP's layout.

CCP, as its authors publish it::

    root/
      photos/0001.jpg                           .. 2098; one labelled person each
      annotations/pixel-level/0001.mat          .. 1004; "groundtruth", a tag at every pixel
      label_list.mat                            the names of the 59 tags

The result is what :func:`~aiparsing_d2.data.datasets.load_cihp` reads, without a test split. Of
the people in the backgrounds, who have no labels, those that a first model found and a look at each
confirmed are in this package's ``ignore_boxes.json``, and go into the data set's.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from aiparsing_d2.data.image_files import read_image_size
from aiparsing_d2.data.json_files import JsonError, read_json, shortened
from aiparsing_d2.parallel import map_in_processes
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS
from aiparsing_d2.whole_files import whole_file

from .body_parts import cihp_parts, has_labelled_head
from .landmarks import NUM_PHOTOGRAPHS, photograph_landmarks
from .tags import BAGS, TAGS

__all__ = ["CCPRequest", "FolderInUseError", "convert_ccp"]

CONVERSION_VERSION = 2
"""Grows whenever the same photographs get other labels than before."""

MANIFEST_NAME = "ccp.json"
_UNFINISHED_NAME = "ccp.unfinished.json"

IGNORE_BOXES_NAME = "ignore_boxes.json"

_COMPRESSED = 15  # the kind of a MATLAB file's element that holds another one
_FIRST_OF_VAL = 805
_FOLDERS = {"train": "Training", "val": "Validation"}


class FolderInUseError(Exception):
    """The output folder holds something else than what is to be written."""


@dataclass(frozen=True)
class CCPRequest:
    """What to convert.

    Attributes:
        root: folder of CCP's repository.
        output: folder for the data set; made if it is missing.
        labels: "cihp" for CIHP's parts, "tags" for CCP's own 59 tags.
        last: number of the last photograph to convert.
        num_workers: number of processes; the files do not depend on it.
    """

    root: Path
    output: Path
    labels: Literal["cihp", "tags"] = "cihp"
    last: int = NUM_PHOTOGRAPHS
    num_workers: int = 1

    def manifest(self) -> dict[str, Any]:
        """All that the files depend on besides the photographs, as JSON values."""
        return {
            "data_set": "CCP",
            "conversion_version": CONVERSION_VERSION,
            "labels": self.labels,
            "last": self.last,
        }


def convert_ccp(request: CCPRequest) -> dict[str, Any]:
    """Convert the labelled photographs of CCP, or finish a conversion that was interrupted.

    Photographs up to 0804 become the training split, later ones the validation split. Photographs
    without any label are left out. For CIHP's parts, bags belong to nobody, and photographs whose
    head has no label are left out too: it was forgotten, or the landmarks are a bystander's.

    Args:
        request: what to convert.

    Returns:
        The manifest, as in ``ccp.json``: with the "left_out" image ids, and for "train" and "val"
        the number of "images" (each of one person), the "pixels" of each label and the "people"
        who have it, by the label's name.

    Raises:
        FileNotFoundError: a file is missing.
        FolderInUseError: the output folder holds anything else. Nothing is changed then.
        ValueError: a file does not hold what it should.
        ModuleNotFoundError: SciPy is not installed.
    """
    manifest_path = request.output / MANIFEST_NAME
    unfinished_path = request.output / _UNFINISHED_NAME
    numbers = _find_photographs(request)
    wanted = {**request.manifest(), "photographs": len(numbers)}
    for path in (manifest_path, unfinished_path):
        if path.exists():
            found = _read_manifest(path, wanted)
            if path is manifest_path:
                return found
    if not unfinished_path.exists():
        _check_is_empty(request.output)
        _write_json(unfinished_path, wanted)

    manifest: dict[str, Any] = {**wanted, "left_out": []}
    lists: dict[str, list[str]] = {split: [] for split in _FOLDERS}
    pixels = {split: Counter() for split in _FOLDERS}
    people = {split: Counter() for split in _FOLDERS}
    for number, counts in zip(numbers, _convert_photographs(request, numbers), strict=True):
        if counts is None:
            manifest["left_out"].append(_image_id(number))
            continue
        split = _split(number)
        lists[split].append(_image_id(number))
        pixels[split].update(counts)
        people[split].update(counts.keys())
    names = CIHP_PART_LABELS.names if request.labels == "cihp" else TAGS
    for split, ids in lists.items():
        if ids:
            with whole_file(request.output / f"{split}_id.txt") as file:
                file.writelines(f"{image_id}\n" for image_id in ids)
            manifest[split] = {
                "images": len(ids),
                "pixels": _by_name(pixels[split], names),
                "people": _by_name(people[split], names),
            }
    converted = set(itertools.chain.from_iterable(lists.values()))
    boxes = read_json(Path(__file__).with_name(IGNORE_BOXES_NAME))
    _write_json(
        request.output / IGNORE_BOXES_NAME,
        {image_id: boxes[image_id] for image_id in boxes if image_id in converted},
    )
    _write_json(manifest_path, manifest)
    unfinished_path.unlink()
    return manifest


def _find_photographs(request: CCPRequest) -> list[int]:
    """Return the numbers of the photographs to convert."""
    _check_tags(request.root)
    numbers = []
    for number in range(1, min(request.last, NUM_PHOTOGRAPHS) + 1):
        files = [_photograph(request.root, number), _tag_file(request.root, number)]
        missing = [file for file in files if not file.is_file()]
        if len(missing) == 1:
            raise FileNotFoundError(
                f"{missing[0]} does not exist, but "
                f"{next(file for file in files if file not in missing)} does."
            )
        if not missing:
            numbers.append(number)
    if not numbers:
        raise FileNotFoundError(
            f"{request.root} has no photograph with labels: neither {files[0]} nor those before. "
            "The folder of the authors' repository is needed, with photos/ and annotations/."
        )
    return numbers


def _check_tags(root: Path) -> None:
    path = root / "label_list.mat"
    names = tuple(str(name) for cell in _read_mat(path, "label_list").ravel() for name in cell)
    if names != TAGS:
        raise ValueError(f"{path} does not hold the 59 tags of CCP, but {', '.join(names)}.")


def _convert_photographs(
    request: CCPRequest, numbers: list[int]
) -> Iterator[dict[int, int] | None]:
    convert = functools.partial(_convert_photograph, request)
    one_thread = functools.partial(cv2.setNumThreads, 1)
    with map_in_processes(convert, numbers, request.num_workers, one_thread) as counts:
        yield from tqdm(counts, "Converting CCP", len(numbers), unit="image")


def _convert_photograph(request: CCPRequest, number: int) -> dict[int, int] | None:
    """Write the files of a photograph, unless they are there.

    Returns:
        The number of pixels of each of the person's labels, or None if it is left out.
    """
    folder = request.output / _FOLDERS[_split(number)]
    image_id = _image_id(number)
    category_file, human_file = (
        folder / kind / f"{image_id}.png" for kind in ("Category_ids", "Human_ids")
    )
    if not human_file.exists():  # the last file of a photograph
        tags = _read_tags(request.root, number)
        categories, is_person = _label(tags, number, request.labels)
        if not is_person.any():
            return None
        with (
            open(_photograph(request.root, number), "rb") as source,
            whole_file(folder / "Images" / f"{image_id}.jpg", "wb") as file,
        ):
            shutil.copyfileobj(source, file)
        _write_png(category_file, categories)
        _write_png(human_file, is_person.astype(np.uint8))
    with Image.open(category_file) as image:
        labels, counts = np.unique(np.array(image), return_counts=True)
    return {label: n for label, n in zip(labels.tolist(), counts.tolist()) if label != 0}


def _label(tags: np.ndarray, number: int, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and the person's mask, which is empty if they are of no use."""
    if labels == "tags":
        return tags, tags != 0
    landmarks = photograph_landmarks(number)
    is_person = (tags != 0) & ~np.isin(tags, BAGS)
    if not has_labelled_head(is_person, landmarks):
        is_person[:] = False
    return cihp_parts(tags, landmarks), is_person


def _read_tags(root: Path, number: int) -> np.ndarray:
    path, photograph = _tag_file(root, number), _photograph(root, number)
    tags = _read_mat(path, "groundtruth")
    size = read_image_size(photograph)
    if tags.shape != size:
        raise ValueError(
            f"{path} has labels of {tags.shape} pixels (height, width), but {photograph} has "
            f"{size}."
        )
    if tags.dtype != np.uint8 or tags.max() >= len(TAGS):
        raise ValueError(
            f"{path} holds {tags.dtype} labels up to {tags.max()}; they are uint8, "
            f"0..{len(TAGS) - 1}."
        )
    return tags


def _read_mat(path: Path, variable: str) -> np.ndarray:
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "CCP's labels are MATLAB files, which SciPy reads: pip install "
            "'aiparsing_d2[photographs]', or pip install scipy."
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; is this the folder of CCP's repository?")
    content = path.read_bytes()
    try:
        _check_is_whole(content)
        return loadmat(io.BytesIO(content))[variable]
    except KeyError as error:
        raise ValueError(f"{path} has no variable '{variable}'.") from error
    # SciPy reports broken files with errors of many kinds.
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a MATLAB file: {error}") from error


def _check_is_whole(content: bytes) -> None:
    """Refuse a damaged MATLAB file, which can make SciPy end the process.

    CCP's files are compressed, so a checksum tells whether one is whole.

    Raises:
        ValueError, struct.error, zlib.error: it is not.
    """
    if not (content.startswith(b"MATLAB 5.0 MAT-file") and content[124:128] == b"\0\1IM"):
        raise ValueError("it does not begin as CCP's files")
    place = 128
    while place < len(content):
        kind, length = struct.unpack_from("<II", content, place)
        if kind != _COMPRESSED:
            raise ValueError("it is not compressed, as CCP's files are")
        zlib.decompress(content[place + 8 : place + 8 + length])
        place += 8 + length


def _image_id(number: int) -> str:
    return f"{number:04d}"


def _split(number: int) -> str:
    return "train" if number < _FIRST_OF_VAL else "val"


def _photograph(root: Path, number: int) -> Path:
    return root / "photos" / f"{_image_id(number)}.jpg"


def _tag_file(root: Path, number: int) -> Path:
    return root / "annotations" / "pixel-level" / f"{_image_id(number)}.mat"


def _by_name(counts: Counter[int], names: tuple[str, ...]) -> dict[str, int]:
    return {
        names[label] if label < len(names) else "ignored": counts[label] for label in sorted(counts)
    }


def _check_is_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderInUseError(
            f"{folder} holds other files; give a new or empty folder to write to."
        )


def _read_manifest(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        found = read_json(path)
    except JsonError as error:
        raise FolderInUseError(f"{error}; remove {path.parent} to convert anew.") from error
    if not isinstance(found, dict):
        raise FolderInUseError(
            f"{path} holds {shortened(found)} instead of an object; remove {path.parent} to "
            "convert anew."
        )
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        told = ", ".join(
            f"{key} {shortened(found.get(key))} instead of {wanted[key]!r}" for key in differing
        )
        raise FolderInUseError(
            f"{path.parent} holds another conversion of CCP ({told}); give another folder, or "
            "remove this one to convert anew."
        )
    return found


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(values, indent=2) + "\n")


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with whole_file(path, "wb") as file:
        Image.fromarray(pixels).save(file, format="PNG")

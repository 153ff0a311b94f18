"""Data sets described by a JSON file in COCO's format, with part labels in PNG files.

The JSON holds what COCO's instance annotations do, and more:

* an annotation is a person. Its "parsing" is the file name of an 8-bit PNG of the size of the image
  with the part label of this person at every pixel, 0 where it is somebody else;
* or an image has "category_file_name" and "human_file_name", the part label and the number of the
  person at every pixel, and its annotations need no "parsing";
* the first category may have "parsing", the class names in the order of the labels.

``python -m aiparsing_d2 prepare`` writes such files. Several other projects use the first kind for
CIHP.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from aiparsing_d2.structures.part_labels import PartLabels

from ..annotations import AnnotationError
from .index_cache import FileListing
from .registration import register_parsing_dataset

__all__ = ["load_coco_parsing", "register_coco_parsing"]

logger = logging.getLogger(__name__)

_FILE_KEYS = ("file_name", "category_file_name", "human_file_name")

# A misspelling that comes with CIHP and has spread with it.
_OTHER_SPELLINGS = {"tosorskin": "torsoskin"}


def load_coco_parsing(
    json_file: str | os.PathLike,
    image_folder: str | os.PathLike,
    label_folder: str | os.PathLike | None = None,
    *,
    category_folder: str | os.PathLike | None = None,
    part_labels: PartLabels | None = None,
) -> list[dict[str, Any]]:
    """Records of the images in a JSON file.

    Nothing but the JSON is opened; that the files it names exist is found out by a look into their
    folders, which is quick enough to be done anew each time.

    Args:
        json_file: has "images" ("id", "file_name", "height", "width") and, unless there is no
            ``label_folder``, "annotations" ("id", "image_id", "parsing"; those with a true
            "iscrowd" are no single person and left out).
        image_folder: what the images' "file_name" is relative to.
        label_folder: what the names of label maps in the JSON are relative to; None if there are
            no annotations, as for a test split.
        category_folder: folder of ``<image>.png``, the part label at every pixel, whoever it
            belongs to. If None, the people's maps are painted over each other.
        part_labels: the label set, to check the class names against if the JSON has some. Case,
            punctuation and a missing "Background" do not matter.

    Returns:
        One record for each image, in the order of the JSON: "file_name", "image_id" (the image's
        "file_name" without its suffix, so that ids are the same as for folders without a JSON),
        "height", "width" and, with a ``label_folder``, "person_file_names" in the order of the
        annotations' ids or, if the image has them, "category_file_name" and "human_file_name".
        With a ``category_folder``, "category_file_name" is the file in it.

    Raises:
        FileNotFoundError: if the JSON or a file that it names is missing.
        AnnotationError: if the JSON is broken or lacks an entry, two images have the same id or
            name, an annotation belongs to no image or repeats another one, or the class names
            are others.
    """
    with open(json_file, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except ValueError as e:
            raise AnnotationError(f"{json_file} is not valid JSON: {e}") from e
    records = _image_records(content, image_folder, label_folder, json_file)
    if part_labels is not None:
        _check_class_names(content, part_labels, json_file)
    if label_folder is not None:
        people = _find_people(content, records, json_file)
        for key, record in records.items():
            if "human_file_name" not in record:
                names = people.get(key, [])
                record["person_file_names"] = [os.path.join(label_folder, name) for name in names]
    if category_folder is not None:
        for record in records.values():
            name = f"{record['image_id']}.png"
            record["category_file_name"] = os.path.join(category_folder, name)
    records = list(records.values())
    _check_files(records, json_file)
    logger.info("Loaded %d records of %s", len(records), json_file)
    return records


def register_coco_parsing(
    name: str,
    json_file: str | os.PathLike,
    image_folder: str | os.PathLike,
    label_folder: str | os.PathLike | None,
    part_labels: PartLabels,
    *,
    category_folder: str | os.PathLike | None = None,
    **metadata: Any,
) -> None:
    """Register a data set described by a JSON file in COCO's format.

    Nothing is read before the data set is used.

    Args:
        name: name to register; it must be free.
        json_file, image_folder, label_folder, category_folder: see :func:`load_coco_parsing`.
        part_labels: the label set; class names in the JSON must agree with it.
        metadata: passed on to :func:`register_parsing_dataset`.

    Raises:
        ValueError: if the name is taken.
    """
    load = partial(
        load_coco_parsing,
        json_file,
        image_folder,
        label_folder,
        category_folder=category_folder,
        part_labels=part_labels,
    )
    register_parsing_dataset(name, load, part_labels, **metadata)


def _image_records(
    content: Any,
    image_folder: str | os.PathLike,
    label_folder: str | os.PathLike | None,
    json_file: str | os.PathLike,
) -> dict[Any, dict[str, Any]]:
    """Records without the annotations' files, by the "id" of the image in the JSON."""
    records, image_ids = {}, set()
    for image in _get(content, "images", json_file):
        key = _get(image, "id", json_file)
        file_name = _get(image, "file_name", json_file)
        image_id = os.path.splitext(file_name)[0]
        if key in records or image_id in image_ids:
            raise AnnotationError(f"{json_file} has image {key} ('{image_id}') twice.")
        image_ids.add(image_id)
        records[key] = {
            "file_name": os.path.join(image_folder, file_name),
            "image_id": image_id,
            "height": _get(image, "height", json_file),
            "width": _get(image, "width", json_file),
        }
        if label_folder is not None and "human_file_name" in image:
            for map_key in ("category_file_name", "human_file_name"):
                map_name = _get(image, map_key, json_file)
                records[key][map_key] = os.path.join(label_folder, map_name)
    if not records:
        raise AnnotationError(f"{json_file} has no images.")
    return records


def _find_people(
    content: Any, records: Mapping[Any, Mapping[str, Any]], json_file: str | os.PathLike
) -> dict[Any, list[str]]:
    """Label maps of each image's people in the order of their ids, by the "id" of the image."""
    people = defaultdict(list)
    for annotation in _get(content, "annotations", json_file):
        image = _get(annotation, "image_id", json_file)
        if annotation.get("iscrowd", 0):
            continue
        if image not in records:
            raise AnnotationError(
                f"{json_file} has an annotation of image {image}, but no such image."
            )
        if "human_file_name" in records[image]:
            continue
        key = _get(annotation, "id", json_file)
        people[image].append((key, _get(annotation, "parsing", json_file)))
    for counted in (
        Counter(key for entries in people.values() for key, _ in entries),
        Counter(name for entries in people.values() for _, name in entries),
    ):
        repeated = next((item for item, count in counted.items() if count > 1), None)
        if repeated is not None:
            raise AnnotationError(f"{json_file} has the annotation {repeated!r} more than once.")
    return {image: [name for _, name in sorted(entries)] for image, entries in people.items()}


def _check_files(records: Sequence[Mapping[str, Any]], json_file: str | os.PathLike) -> None:
    """Raises FileNotFoundError if a file does not exist."""
    files = [
        file_name
        for record in records
        for file_name in (
            *(record[key] for key in _FILE_KEYS if key in record),
            *record.get("person_file_names", ()),
        )
    ]
    listing = FileListing.scan(os.path.dirname(file_name) for file_name in files)
    missing = [file_name for file_name in files if file_name not in listing]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} does not exist, but {json_file} names it"
            + (f" ({len(missing)} of {len(files)} files are missing)." if missing[1:] else ".")
        )


def _check_class_names(content: Any, part_labels: PartLabels, json_file: str | os.PathLike) -> None:
    """Raises AnnotationError if the first category has class names, but not those of the set."""
    categories = content.get("categories") or [{}]
    found = categories[0].get("parsing")
    if found is None:
        return
    expected = list(part_labels.names)
    if len(found) == len(expected) - 1:
        found = [expected[0], *found]
    advice = "Register it with part_labels that have the names in the JSON, in their order."
    if len(found) != len(expected):
        raise AnnotationError(
            f"{json_file} names {len(found)} classes, but the label set has {len(expected)}. "
            f"{advice}"
        )
    for label, (name, expected_name) in enumerate(zip(found, expected)):
        if _bare(name) != _bare(expected_name):
            raise AnnotationError(
                f"{json_file} calls label {label} '{name}', but the label set calls it "
                f"'{expected_name}'. {advice}"
            )


def _bare(name: str) -> str:
    """A class name without what differs between spellings of the same name."""
    bare = re.sub(r"[^a-z0-9]", "", name.lower())
    return _OTHER_SPELLINGS.get(bare, bare)


def _get(entry: Any, key: str, json_file: str | os.PathLike) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise AnnotationError(f'{json_file} lacks "{key}" in {str(entry)[:200]}')
    return entry[key]

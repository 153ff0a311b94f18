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

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from aiparsing_d2.structures.part_labels import PartLabels

from ..annotations import AnnotationError
from ..id_lists import path_problem
from ..image_files import check_image_size
from ..json_files import JsonError, read_json, shortened
from ..layouts import LABEL_MAP_SUFFIXES
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
    """Return the records of the images in a JSON file.

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
        FileNotFoundError: the JSON or a file that it names is missing.
        AnnotationError: the JSON is broken, lacks an entry or has one of another type, a file's
            name leads out of its folder, an image is larger than any that can be opened, two images
            have the same id or name, an annotation belongs to no image or repeats another one, or
            the class names are others.
    """
    content = _read_object(json_file)
    records = _image_records(content, image_folder, label_folder, json_file)
    if part_labels is not None:
        _check_class_names(content, part_labels, json_file)
    if label_folder is not None:
        people = _find_people(content, records, json_file)
        for key, record in records.items():
            if "human_file_name" not in record:
                names = people.get(key, [])
                record["person_file_names"] = [os.path.join(label_folder, name) for name in names]
    records = list(records.values())
    listing = _list_files(records, category_folder)
    if category_folder is not None:
        for record in records:
            path = os.path.join(category_folder, record["image_id"])
            file_name = listing.find(path, LABEL_MAP_SUFFIXES)
            record["category_file_name"] = file_name or f"{path}{LABEL_MAP_SUFFIXES[0]}"
    _check_files(records, listing, json_file)
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
        ValueError: the name is taken.
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


def _read_object(json_file: str | os.PathLike) -> dict[str, Any]:
    try:
        content = read_json(json_file)
    except JsonError as e:
        raise AnnotationError(str(e)) from e
    if not isinstance(content, dict):
        raise AnnotationError(f"{json_file} holds {shortened(content)} instead of an object.")
    return content


def _image_records(
    content: Mapping[str, Any],
    image_folder: str | os.PathLike,
    label_folder: str | os.PathLike | None,
    json_file: str | os.PathLike,
) -> dict[int | str, dict[str, Any]]:
    """Return the records without the annotations' files, by the "id" of the image in the JSON."""
    records, image_ids = {}, set()
    for image in _get_list(content, "images", json_file):
        key = _get_id(image, "id", json_file)
        file_name = _get_path(image, "file_name", json_file)
        image_id = os.path.splitext(file_name)[0]
        if key in records or image_id in image_ids:
            raise AnnotationError(f"{json_file} has image {key} ('{image_id}') twice.")
        image_ids.add(image_id)
        height, width = (_get(image, side, json_file) for side in ("height", "width"))
        try:
            check_image_size(height, width)
        except ValueError as e:
            raise AnnotationError(f"{json_file}: {e}, in {shortened(image)}") from e
        records[key] = {
            "file_name": os.path.join(image_folder, file_name),
            "image_id": image_id,
            "height": height,
            "width": width,
        }
        if label_folder is not None and "human_file_name" in image:
            for map_key in ("category_file_name", "human_file_name"):
                map_name = _get_path(image, map_key, json_file)
                records[key][map_key] = os.path.join(label_folder, map_name)
    if not records:
        raise AnnotationError(f"{json_file} has no images.")
    return records


def _find_people(
    content: Mapping[str, Any],
    records: Mapping[int | str, Mapping[str, Any]],
    json_file: str | os.PathLike,
) -> dict[int | str, list[str]]:
    """Label maps of each image's people in the order of their ids, by the "id" of the image."""
    people = defaultdict(list)
    for annotation in _get_list(content, "annotations", json_file):
        image = _get_id(annotation, "image_id", json_file)
        if _is_crowd(annotation, json_file):
            continue
        if image not in records:
            raise AnnotationError(
                f"{json_file} has an annotation of image {image}, but no such image."
            )
        if "human_file_name" in records[image]:
            continue
        key = _get_id(annotation, "id", json_file)
        people[image].append((key, _get_path(annotation, "parsing", json_file)))
    for counted in (
        Counter(key for entries in people.values() for key, _ in entries),
        Counter(name for entries in people.values() for _, name in entries),
    ):
        repeated = next((item for item, count in counted.items() if count > 1), None)
        if repeated is not None:
            raise AnnotationError(f"{json_file} has the annotation {repeated!r} more than once.")

    def by_id(entry: tuple[int | str, str]) -> tuple[bool, int | str]:
        return isinstance(entry[0], str), entry[0]

    return {
        image: [name for _, name in sorted(entries, key=by_id)] for image, entries in people.items()
    }


def _is_crowd(annotation: Mapping[str, Any], json_file: str | os.PathLike) -> bool:
    value = annotation.get("iscrowd", 0)
    # A text such as "0" would be true, and the person lost.
    if value not in (0, 1) or not isinstance(value, (bool, int)):
        raise AnnotationError(f'{json_file}: "iscrowd" is not 0 or 1 in {shortened(annotation)}')
    return bool(value)


def _list_files(
    records: Sequence[Mapping[str, Any]], category_folder: str | os.PathLike | None
) -> FileListing:
    """Return what is in the folders of the records' files."""
    folders = {os.path.dirname(file_name) for record in records for file_name in _files(record)}
    if category_folder is not None:
        folders |= {
            os.path.dirname(os.path.join(category_folder, record["image_id"])) for record in records
        }
    return FileListing.scan(folders)


def _files(record: Mapping[str, Any]) -> list[str]:
    """All files that a record names."""
    maps = (record[key] for key in _FILE_KEYS if key in record)
    return [*maps, *record.get("person_file_names", ())]


def _check_files(
    records: Sequence[Mapping[str, Any]], listing: FileListing, json_file: str | os.PathLike
) -> None:
    """Raise FileNotFoundError if a file does not exist."""
    files = [file_name for record in records for file_name in _files(record)]
    missing = [file_name for file_name in files if file_name not in listing]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} does not exist, but {json_file} names it"
            + (f" ({len(missing)} of {len(files)} files are missing)." if missing[1:] else ".")
        )


def _check_class_names(
    content: Mapping[str, Any], part_labels: PartLabels, json_file: str | os.PathLike
) -> None:
    """Raise AnnotationError if the first category has class names, but not those of the set."""
    categories = _get_list(content, "categories", json_file) if "categories" in content else []
    if not categories or "parsing" not in categories[0]:
        return
    found = categories[0]["parsing"]
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise AnnotationError(
            f'{json_file}: "parsing" of a category is {shortened(found)}, not a list of names.'
        )
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
    """Return a class name without what differs between spellings of the same name."""
    bare = re.sub(r"[^a-z0-9]", "", name.lower())
    return _OTHER_SPELLINGS.get(bare, bare)


def _get(entry: Mapping[str, Any], key: str, json_file: str | os.PathLike) -> Any:
    if key not in entry:
        raise AnnotationError(f'{json_file} lacks "{key}" in {shortened(entry)}')
    return entry[key]


def _get_list(
    content: Mapping[str, Any], key: str, json_file: str | os.PathLike
) -> list[dict[str, Any]]:
    """Return a list of objects."""
    entries = _get(content, key, json_file)
    if not isinstance(entries, list):
        raise AnnotationError(f'{json_file}: "{key}" is {shortened(entries)}, not a list.')
    for entry in entries:
        if not isinstance(entry, dict):
            raise AnnotationError(f'{json_file} has {shortened(entry)} in "{key}", not an object.')
    return entries


def _get_id(entry: Mapping[str, Any], key: str, json_file: str | os.PathLike) -> int | str:
    value = _get(entry, key, json_file)
    if type(value) not in (int, str):
        raise AnnotationError(
            f'{json_file}: "{key}" is neither a whole number nor a text in {shortened(entry)}'
        )
    return value


def _get_path(entry: Mapping[str, Any], key: str, json_file: str | os.PathLike) -> str:
    """Return the name of a file in its folder."""
    path = _get(entry, key, json_file)
    problem = path_problem(path) if isinstance(path, str) else "is not a text"
    if problem is not None:
        raise AnnotationError(
            f'{json_file}: "{key}" {shortened(path)} {problem}, in {shortened(entry)}'
        )
    return path

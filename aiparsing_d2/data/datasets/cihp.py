"""CIHP, and any data set in the folder layout of CIHP.

As it is downloaded::

    root/
      train_id.txt  val_id.txt  test_id.txt         one image id a line
      ignore_boxes.json                             optional: {"<id>": [[x0, y0, x1, y1], ...]}
      Training/
        Images/<id>.jpg                              or .png, .JPG, .webp and so on
        Category_ids/<id>.png                        part label at every pixel
        Human_ids/<id>.png                           number of the person at every pixel, 0 = none
      Validation/                                    as Training
      Testing/
        Images/<id>.jpg                              no annotations

or converted to COCO's format, see :mod:`~aiparsing_d2.data.datasets.coco_parsing`::

    root/
      annotations/CIHP_{train,val,test}.json
      {train,val,test}_img/<id>.jpg
      {train,val}_parsing/<id>-<k>.png               part labels of person k
      {train,val}_seg/<id>.png                       part label at every pixel
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, PartLabels

from ..json_files import read_json, shortened
from ..layouts import CIHP, CIHP_JSON, JsonSplit
from .coco_parsing import load_coco_parsing
from .listed_images import UnreadableImages, check_split, load_images_with_label_maps
from .registration import BuiltinSplit, register_builtin_split, register_parsing_dataset

__all__ = ["load_cihp", "register_all_cihp", "register_cihp"]

# The published annotation of this image has a stray pixel. It must not end a training run.
_IDS_WITH_STRAY_PIXELS = frozenset({"0035374"})

_MAX_COORDINATE = 1e9

# Name -> split, and the folders that the data set may be in, below the root of all data sets.
_CIHP_FOLDERS = ("instance-level_human_parsing", "CIHP")
_BUILTIN_SPLITS = {
    "cihp_train": ("train", _CIHP_FOLDERS),
    "cihp_val": ("val", _CIHP_FOLDERS),
    "cihp_test": ("test", _CIHP_FOLDERS),
    "ccp_train": ("train", ("ccp",)),
    "ccp_val": ("val", ("ccp",)),
    "ccp_crowd_val": ("val", ("ccp_crowd",)),
    "ccp_crops_val": ("val", ("ccp_crops",)),
    "drawn_cihp_train": ("train", ("drawn_cihp",)),
    "drawn_cihp_val": ("val", ("drawn_cihp",)),
}


def load_cihp(
    root: str | os.PathLike,
    split: str,
    part_labels: PartLabels = CIHP_PART_LABELS,
    *,
    unreadable_images: UnreadableImages = "error",
) -> list[dict[str, Any]]:
    """Return the records of one split, in either layout.

    No pixel of a sound file is decoded: sizes come from the image headers or the JSON.

    Args:
        root: the folder with the id lists, or with ``annotations`` of the converted layout.
        split: "train", "val" or "test".
        part_labels: the label set, which the class names in a JSON are checked against.
        unreadable_images: "error", or "skip" to warn and leave them out. Images of the converted
            layout are not opened.

    Returns:
        One record for each image: "file_name", "image_id" (the name without its suffix), "height",
        "width" and, except for the test split, the annotation files: "category_file_name" and
        "human_file_name", or "person_file_names" and "category_file_name" in the converted layout.
        Images named in ``ignore_boxes.json`` have "ignore_boxes", a list of XYXY boxes in pixels:
        people without labels, whom a detector may find or not.

    Raises:
        FileNotFoundError: neither layout is there, or a file of a listed image is missing.
        ValueError: the split is unknown, or the id list, an image or the JSON is not valid.
    """
    check_split(split, CIHP)
    id_list = os.path.join(root, CIHP[split].id_lists[0])
    json_file = os.path.join(root, CIHP_JSON[split].json_file)
    if os.path.isfile(id_list):
        records = load_images_with_label_maps(
            root, id_list, CIHP[split], unreadable_images=unreadable_images
        )
    elif os.path.isfile(json_file):
        records = _load_converted(os.fspath(root), CIHP_JSON[split], part_labels)
    else:
        raise FileNotFoundError(
            f"The {split} split is not in {os.path.abspath(root)}: there is neither {id_list} nor "
            f"{json_file}. The expected folders are shown in datasets/README.md."
        )
    ignore_boxes = _read_ignore_boxes(os.path.join(root, "ignore_boxes.json"))
    for record in records:
        if record["image_id"] in ignore_boxes:
            record["ignore_boxes"] = ignore_boxes[record["image_id"]]
        if record["image_id"] in _IDS_WITH_STRAY_PIXELS:
            record["ignore_unknown_labels"] = True
    return records


def register_cihp(
    name: str,
    root: str | os.PathLike,
    split: str,
    part_labels: PartLabels = CIHP_PART_LABELS,
    *,
    unreadable_images: UnreadableImages = "error",
    **metadata: Any,
) -> None:
    """Register one split of a data set in CIHP's folder layout.

    Nothing is read before the data set is used.

    Args:
        name: name to register; it must be free.
        root, split, unreadable_images: see :func:`load_cihp`.
        part_labels: the label set, if it is not CIHP's.
        metadata: passed on to :func:`register_parsing_dataset`.

    Raises:
        ValueError: the name is taken.
    """
    load = partial(load_cihp, root, split, part_labels, unreadable_images=unreadable_images)
    register_parsing_dataset(name, load, part_labels, **metadata)


def register_all_cihp(root: str | os.PathLike) -> None:
    """Register the splits of CIHP, and of CCP and the drawn scenes, which look like it on disk.

    The names are ``cihp_{train,val,test}``, ``ccp_{train,val}``,
    ``ccp_{crowd,crops}_val`` and ``drawn_cihp_{train,val}``.
    Calling this again with another root moves them there. A name that other code has registered
    is left to it, with a warning.

    Args:
        root: folder that holds ``instance-level_human_parsing`` or ``CIHP``, ``ccp``, and
            ``drawn_cihp``. Which it is, is found out when a split is first used.
    """
    for name, (split, folders) in _BUILTIN_SPLITS.items():
        places = tuple(os.path.join(root, folder) for folder in folders)
        register_builtin_split(name, BuiltinSplit(load_cihp, places, split), CIHP_PART_LABELS)


def _read_ignore_boxes(file_name: str) -> dict[str, list[list[float]]]:
    """XYXY boxes by image id; none if there is no such file."""
    if not os.path.isfile(file_name):
        return {}
    boxes_of_images = read_json(file_name)
    if not isinstance(boxes_of_images, dict):
        raise ValueError(f"{file_name} must hold a JSON object of boxes by image id.")
    for image_id, boxes in boxes_of_images.items():
        if not isinstance(boxes, list) or not all(map(_is_box, boxes)):
            raise ValueError(
                f"{file_name} has {shortened(boxes)} for image {shortened(image_id)}; it must be a "
                "list of boxes [x0, y0, x1, y1] in pixels with x0 < x1 and y0 < y1."
            )
    return boxes_of_images


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        # The bound keeps out infinity and what no float holds; comparisons with NaN are false.
        and all(type(value) in (int, float) and abs(value) < _MAX_COORDINATE for value in box)
        and box[0] < box[2]
        and box[1] < box[3]
    )


def _load_converted(root: str, files: JsonSplit, part_labels: PartLabels) -> list[dict[str, Any]]:
    json_file = os.path.join(root, files.json_file)
    image_folder = os.path.join(root, files.images)
    if files.person_maps is None:
        return load_coco_parsing(json_file, image_folder)
    return load_coco_parsing(
        json_file,
        image_folder,
        os.path.join(root, files.person_maps),
        category_folder=os.path.join(root, files.category_maps),
        part_labels=part_labels,
    )

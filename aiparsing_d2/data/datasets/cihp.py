"""CIHP, and any data set in the folder layout of CIHP.

::

    root/
      train_id.txt  val_id.txt  test_id.txt         one image id a line
      Training/
        Images/<id>.jpg                              or .jpeg, .png
        Category_ids/<id>.png                        part label at every pixel
        Human_ids/<id>.png                           number of the person at every pixel, 0 = none
      Validation/                                    as Training
      Testing/
        Images/<id>.jpg                              no annotations
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from functools import partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ..part_labels import CIHP_PART_LABELS, PartLabels
from .registration import register_parsing_dataset

__all__ = ["load_cihp", "register_all_cihp", "register_cihp"]

logger = logging.getLogger(__name__)

_SPLIT_FOLDERS = {"train": "Training", "val": "Validation", "test": "Testing"}
_LABEL_FOLDERS = {"category_file_name": "Category_ids", "human_file_name": "Human_ids"}
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

# The published annotation of this image has a stray pixel. It must not end a training run.
_IDS_WITH_STRAY_PIXELS = frozenset({"0035374"})

_EXIF_ORIENTATION = 0x0112
_EXIF_ORIENTATIONS_ON_THE_SIDE = (5, 6, 7, 8)

# Folder below the root of all data sets, and the splits to register under it.
_BUILTIN_SPLITS = {
    "cihp_train": ("instance-level_human_parsing", "train"),
    "cihp_val": ("instance-level_human_parsing", "val"),
    "cihp_test": ("instance-level_human_parsing", "test"),
    "drawn_cihp_train": ("drawn_cihp", "train"),
    "drawn_cihp_val": ("drawn_cihp", "val"),
}


def load_cihp(root: str | os.PathLike, split: str) -> list[dict[str, Any]]:
    """Records of one split. No pixel is decoded: sizes come from the image headers.

    Args:
        root: the folder with the id lists.
        split: "train", "val" or "test".

    Returns:
        One record for each line of the id list, in its order: "file_name", "image_id" (the line),
        "height" and "width" (after the image's EXIF orientation, as the image will be read) and,
        except for the test split, "category_file_name" and "human_file_name".

    Raises:
        FileNotFoundError: if the root, the id list, or a file of a listed id is missing.
        ValueError: if the split is unknown, the id list is empty or repeats an id, or an image
            has no readable header.
    """
    if split not in _SPLIT_FOLDERS:
        raise ValueError(f"Unknown split '{split}': use one of {', '.join(_SPLIT_FOLDERS)}.")
    root = os.fspath(root)
    folder = os.path.join(root, _SPLIT_FOLDERS[split])
    records = []
    for image_id in _read_id_list(root, split):
        file_name = _find_image(os.path.join(folder, "Images"), image_id)
        height, width = _image_size_from_header(file_name)
        record = {
            "file_name": file_name,
            "image_id": image_id,
            "height": height,
            "width": width,
        }
        if split != "test":
            for key, subfolder in _LABEL_FOLDERS.items():
                record[key] = os.path.join(folder, subfolder, f"{image_id}.png")
                if not os.path.isfile(record[key]):
                    raise FileNotFoundError(
                        f"{record[key]} does not exist, but {split}_id.txt lists '{image_id}'."
                    )
        if image_id in _IDS_WITH_STRAY_PIXELS:
            record["ignore_unknown_labels"] = True
        records.append(record)
    logger.info("Loaded %d records of the %s split of %s", len(records), split, root)
    return records


def register_cihp(
    name: str,
    root: str | os.PathLike,
    split: str,
    part_labels: PartLabels = CIHP_PART_LABELS,
    **metadata: Any,
) -> None:
    """Register one split of a data set in CIHP's folder layout.

    Nothing is read before the data set is used.

    Args:
        name: name to register; it must be free.
        root: the folder with the id lists.
        split: "train", "val" or "test".
        part_labels: the label set, if it is not CIHP's.
        metadata: passed on to :func:`register_parsing_dataset`.

    Raises:
        ValueError: if the name is taken.
    """
    register_parsing_dataset(
        name,
        partial(load_cihp, root, split),
        part_labels,
        image_root=os.path.join(root, _SPLIT_FOLDERS[split], "Images"),
        **metadata,
    )


def register_all_cihp(root: str | os.PathLike) -> None:
    """Register the splits of CIHP and of the drawn scenes, made to look like it on disk.

    The names are ``cihp_{train,val,test}`` and ``drawn_cihp_{train,val}``. Calling this again
    with another root moves them there. A name that other code has registered is left to it, with
    a warning.

    Args:
        root: folder that holds ``instance-level_human_parsing`` and ``drawn_cihp``.
    """
    for name, (folder, split) in _BUILTIN_SPLITS.items():
        if name in DatasetCatalog:
            if getattr(DatasetCatalog[name], "func", None) is not load_cihp:
                logger.warning(
                    "Other code has registered a data set named '%s'; aiparsing_d2 leaves it as "
                    "it is. Use register_cihp to register CIHP under another name.",
                    name,
                )
                continue
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        register_cihp(name, os.path.join(root, folder), split)


def _read_id_list(root: str, split: str) -> list[str]:
    list_file = os.path.join(root, f"{split}_id.txt")
    if not os.path.isfile(list_file):
        missing = list_file if os.path.isdir(root) else root
        raise FileNotFoundError(
            f"{missing} does not exist. The {split} split is expected in {os.path.abspath(root)}. "
            "The built-in data sets are looked for under the folder that the environment variable "
            "DETECTRON2_DATASETS names (default: ./datasets); set it before Python starts. How to "
            "get the data there is described in datasets/README.md."
        )
    with open(list_file, encoding="utf-8") as file:
        ids = [line.strip() for line in file if line.strip()]
    if not ids:
        raise ValueError(f"{list_file} lists no image.")
    repeated = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(f"{list_file} lists {len(repeated)} id(s) twice, '{repeated[0]}' first.")
    return ids


def _find_image(folder: str, image_id: str) -> str:
    for suffix in _IMAGE_SUFFIXES:
        file_name = os.path.join(folder, image_id + suffix)
        if os.path.isfile(file_name):
            return file_name
    raise FileNotFoundError(
        f"{os.path.join(folder, image_id)}{{{','.join(_IMAGE_SUFFIXES)}}} does not exist, but the "
        f"id list has '{image_id}'."
    )


def _image_size_from_header(file_name: str) -> tuple[int, int]:
    """Height and width of an image as Detectron2 reads it, that is with its EXIF orientation."""
    try:
        with Image.open(file_name) as image:
            width, height = image.size
            # Without the first test, getexif would decode a PNG to look for EXIF behind the pixels.
            on_the_side = (
                "exif" in image.info
                and image.getexif().get(_EXIF_ORIENTATION) in _EXIF_ORIENTATIONS_ON_THE_SIDE
            )
    except (OSError, SyntaxError) as e:
        raise ValueError(f"{file_name} is not a readable image: {e}") from e
    return (width, height) if on_the_side else (height, width)

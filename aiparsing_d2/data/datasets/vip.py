"""VIP, and any data set of video frames in the folder layout of VIP.

::

    root/
      lists/{train,val,test}_id.txt                  one videos<K>/<frame> a line
      Images/videos<K>/<frame>.jpg
      Annotations/
        Category_ids/videos<K>/<frame>.png           part label at every pixel
        Human_ids/videos<K>/<frame>.png              number of the person at every pixel, 0 = none

``Category_ids`` and ``Human_ids`` may also be directly below the root, and so may the lists. Labels
are those of CIHP. A frame's id is its line of the list, because frame names repeat across videos,
and person numbers mean nothing from one frame to the next.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, PartLabels

from ..layouts import VIP, vip_layout
from .listed_images import UnreadableImages, check_split, load_images_with_label_maps
from .registration import BuiltinSplit, register_builtin_split, register_parsing_dataset

__all__ = ["load_vip", "register_all_vip", "register_vip"]

# Name -> split, and the folders that the data set may be in, below the root of all data sets.
_VIP_FOLDERS = ("VIP_Fine", "VIP")
_BUILTIN_SPLITS = {
    "vip_train": ("train", _VIP_FOLDERS),
    "vip_val": ("val", _VIP_FOLDERS),
    "vip_test": ("test", _VIP_FOLDERS),
    "drawn_vip_train": ("train", ("drawn_vip",)),
    "drawn_vip_val": ("val", ("drawn_vip",)),
}


def load_vip(
    root: str | os.PathLike, split: str, *, unreadable_images: UnreadableImages = "error"
) -> list[dict[str, Any]]:
    """Return the records of the annotated frames of one split.

    No pixel of a sound file is decoded: sizes come from the image headers.

    Args:
        root: the folder with ``Images``.
        split: "train", "val" or "test".
        unreadable_images: "error", or "skip" to warn and leave them out.

    Returns:
        One record for each line of the id list, in its order: "file_name", "image_id" (the line,
        as in "videos7/000000000026"), "height", "width" and, except for the test split,
        "category_file_name" and "human_file_name".

    Raises:
        FileNotFoundError: the id list, or a file of a listed frame, is missing.
        ValueError: the split is unknown, or the id list or an image is not valid.
    """
    check_split(split, VIP)
    layout = vip_layout(root)[split]
    id_list = layout.find_id_list(root)
    if id_list is None:
        places = " nor ".join(os.path.join(root, file) for file in layout.id_lists)
        raise FileNotFoundError(
            f"The {split} split is not in {os.path.abspath(root)}: there is neither {places}. The "
            "expected folders are shown in datasets/README.md."
        )
    return load_images_with_label_maps(
        root, os.path.join(root, id_list), layout, unreadable_images=unreadable_images
    )


def register_vip(
    name: str,
    root: str | os.PathLike,
    split: str,
    part_labels: PartLabels = CIHP_PART_LABELS,
    *,
    unreadable_images: UnreadableImages = "error",
    **metadata: Any,
) -> None:
    """Register one split of a data set in VIP's folder layout.

    Nothing is read before the data set is used.

    Args:
        name: name to register; it must be free.
        root, split, unreadable_images: see :func:`load_vip`.
        part_labels: the label set, if it is not CIHP's.
        metadata: passed on to :func:`register_parsing_dataset`.

    Raises:
        ValueError: the name is taken.
    """
    load = partial(load_vip, root, split, unreadable_images=unreadable_images)
    register_parsing_dataset(name, load, part_labels, **metadata)


def register_all_vip(root: str | os.PathLike) -> None:
    """Register the splits of VIP and of the drawn videos, made to look like it on disk.

    The names are ``vip_{train,val,test}`` and ``drawn_vip_{train,val}``. Works as
    :func:`register_all_cihp`.

    Args:
        root: folder that holds ``VIP_Fine`` or ``VIP``, and ``drawn_vip``.
    """
    for name, (split, folders) in _BUILTIN_SPLITS.items():
        places = tuple(os.path.join(root, folder) for folder in folders)
        register_builtin_split(name, BuiltinSplit(load_vip, places, split), CIHP_PART_LABELS)

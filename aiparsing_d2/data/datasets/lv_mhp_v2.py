"""LV-MHP-v2, and any data set in its folder layout.

::

    root/
      list/train.txt  val.txt  test_all.txt  test_inter_top10.txt  test_inter_top20.txt
      train/
        images/<id>.jpg
        parsing_annos/<id>_<NN>_<KK>.png             part labels of person KK = 01 .. NN
      val/                                           as train
      test/
        images/<id>.jpg                              no annotations

A person's label map is an 8-bit RGB PNG with the labels in its red channel and nothing in the
others; grey and palette PNGs are read as well. People may overlap.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from aiparsing_d2.structures.part_labels import LV_MHP_V2_PART_LABELS, PartLabels

from ..annotations import AnnotationError
from ..layouts import LABEL_MAP_SUFFIXES, LV_MHP_V2, PersonFileName, choose_files
from .index_cache import FileListing
from .listed_images import UnreadableImages, check_split, load_listed_images
from .registration import BuiltinSplit, register_builtin_split, register_parsing_dataset

__all__ = ["load_lv_mhp_v2", "register_all_lv_mhp_v2", "register_lv_mhp_v2"]

# Name -> split, and the folder of the data set below the root of all data sets.
_BUILTIN_SPLITS = {
    "lv_mhp_v2_train": ("train", "LV-MHP-v2"),
    "lv_mhp_v2_val": ("val", "LV-MHP-v2"),
    "lv_mhp_v2_test": ("test", "LV-MHP-v2"),
    "drawn_lv_mhp_v2_train": ("train", "drawn_lv_mhp_v2"),
    "drawn_lv_mhp_v2_val": ("val", "drawn_lv_mhp_v2"),
}

# The setting of the published results.
_SEMSEG_THRESH = 0.005


def load_lv_mhp_v2(
    root: str | os.PathLike, split: str, *, unreadable_images: UnreadableImages = "skip"
) -> list[dict[str, Any]]:
    """Return the records of one split.

    No pixel of a sound file is decoded: sizes come from the image headers.

    Args:
        root: the folder with ``list``.
        split: "train", "val", "test" (all images of it), "test_inter_top10" or
            "test_inter_top20".
        unreadable_images: "skip" to warn and leave them out, because a few of the published images
            are damaged, or "error".

    Returns:
        One record for each readable image, in the order of the id list: "file_name", "image_id"
        (the line), "height", "width" and, except for the test splits, "person_file_names", one
        label map a person in the order of their numbers.

    Raises:
        FileNotFoundError: the id list, or a file of a listed image, is missing.
        AnnotationError: an image does not have the people that its file names speak of.
        ValueError: the split is unknown, or the id list or an image is not valid.
    """
    check_split(split, LV_MHP_V2)
    layout = LV_MHP_V2[split]
    id_list = os.path.join(root, layout.id_lists[0])
    image_folder = os.path.join(root, layout.images)
    if layout.person_maps is None:
        return load_listed_images(id_list, image_folder, unreadable_images=unreadable_images)
    person_folder = os.path.join(root, layout.person_maps)
    return load_listed_images(
        id_list,
        image_folder,
        [person_folder],
        partial(_find_people, person_folder),
        unreadable_images=unreadable_images,
    )


def register_lv_mhp_v2(
    name: str,
    root: str | os.PathLike,
    split: str,
    part_labels: PartLabels = LV_MHP_V2_PART_LABELS,
    *,
    unreadable_images: UnreadableImages = "skip",
    semseg_thresh: float = _SEMSEG_THRESH,
    **metadata: Any,
) -> None:
    """Register one split of a data set in LV-MHP-v2's folder layout.

    Nothing is read before the data set is used.

    Args:
        name: name to register; it must be free.
        root, split, unreadable_images: see :func:`load_lv_mhp_v2`.
        part_labels: the label set, if it is not LV-MHP-v2's.
        semseg_thresh, metadata: passed on to :func:`register_parsing_dataset`.

    Raises:
        ValueError: the name is taken.
    """
    load = partial(load_lv_mhp_v2, root, split, unreadable_images=unreadable_images)
    register_parsing_dataset(name, load, part_labels, semseg_thresh=semseg_thresh, **metadata)


def register_all_lv_mhp_v2(root: str | os.PathLike) -> None:
    """Register the splits of LV-MHP-v2 and of the drawn scenes, made to look like it on disk.

    The names are ``lv_mhp_v2_{train,val,test}`` and ``drawn_lv_mhp_v2_{train,val}``. Works as
    :func:`register_all_cihp`.

    Args:
        root: folder that holds ``LV-MHP-v2`` and ``drawn_lv_mhp_v2``.
    """
    for name, (split, folder) in _BUILTIN_SPLITS.items():
        builtin = BuiltinSplit(load_lv_mhp_v2, (os.path.join(root, folder),), split)
        register_builtin_split(name, builtin, LV_MHP_V2_PART_LABELS, semseg_thresh=_SEMSEG_THRESH)


def _find_people(
    folder: str, ids: Sequence[str], listing: FileListing
) -> Iterator[dict[str, list[str]]]:
    """Return the label maps of each image's people."""
    # Image id -> (name, file name) of each person.
    files: dict[str, list[tuple[PersonFileName, str]]] = defaultdict(list)
    for stem, name in choose_files(listing.files.get(folder, ()), LABEL_MAP_SUFFIXES).items():
        person = PersonFileName.parse(stem)
        if person is not None:
            files[person.image_id].append((person, os.path.join(folder, name)))
    for image_id in ids:
        if image_id not in files:
            raise FileNotFoundError(
                f"{os.path.join(folder, image_id)}_NN_KK.png does not exist for any person KK, but "
                f"the id list has '{image_id}'."
            )
        people = sorted(files[image_id], key=lambda entry: (entry[0].number, entry[1]))
        found = [(person.num_people, person.number) for person, _ in people]
        if found != [(len(people), number) for number in range(1, len(people) + 1)]:
            names = ", ".join(os.path.basename(file_name) for _, file_name in people)
            raise AnnotationError(
                f"{folder} should have one file {image_id}_NN_KK.png for each KK = 01..NN, but has "
                f"{len(people)}: {names}."
            )
        yield {"person_file_names": [file_name for _, file_name in people]}

"""How CIHP, LV-MHP-v2 and VIP lie on disk: the names of their folders, lists and files.

The loaders read, ``prepare`` checks and the drawn scenes write by what is said here. All paths are
relative to the data set's folder and have "/" between folders. Needs only the standard library.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "CIHP",
    "CIHP_JSON",
    "IMAGE_SUFFIXES",
    "LABEL_MAP_SUFFIXES",
    "LV_MHP_V2",
    "VIP",
    "VIP_FLAT",
    "VIP_FRAME_STEP",
    "VIP_VAL_VIDEOS",
    "JsonSplit",
    "PersonFileName",
    "SplitLayout",
    "choose_files",
    "cihp_image_id",
    "comparable_stem",
    "top_level_names",
    "vip_frame_id",
    "vip_layout",
]

IMAGE_SUFFIXES = tuple(".jpg .jpeg .png .jpe .jfif .webp .avif .bmp .tif .tiff".split())
"""What the names of images may end in, in upper or lower case. What such a file holds counts, not
what its name says."""

LABEL_MAP_SUFFIXES = (".png",)
"""What the names of label maps may end in, in upper or lower case."""


@dataclass(frozen=True)
class SplitLayout:
    """Where the files of one split lie; None: it has no such files.

    Attributes:
        id_lists: where the list of the split's images may be; the first that exists counts.
        images: folder of ``<id>.jpg``.
        category_maps, human_maps: folders of ``<id>.png``, part label and number of the person at
            every pixel.
        instances: folder of ``<id>.png`` and ``<id>.txt``, part instances and a table of them.
        person_maps: folder of one label map a person, see :class:`PersonFileName`.
    """

    id_lists: tuple[str, ...]
    images: str
    category_maps: str | None = None
    human_maps: str | None = None
    instances: str | None = None
    person_maps: str | None = None

    def find_id_list(self, root: str | os.PathLike) -> str | None:
        """Return the list in the data set's folder ``root``, None if there is none."""
        is_there = (file for file in self.id_lists if os.path.isfile(os.path.join(root, file)))
        return next(is_there, None)


@dataclass(frozen=True)
class JsonSplit:
    """Where the files of a split with a JSON file in COCO's format lie; None: it has none.

    Attributes:
        json_file: the annotations.
        images, person_maps: folders that the JSON's names of images and of people's label maps are
            relative to.
        category_maps: folder of ``<image>.png``, the part label at every pixel.
    """

    json_file: str
    images: str
    person_maps: str | None = None
    category_maps: str | None = None


def _with_label_maps(id_lists: tuple[str, ...], images: str, parent: str) -> SplitLayout:
    """Return the folders of labels that CIHP and VIP have, below ``parent``."""
    return SplitLayout(
        id_lists,
        images,
        category_maps=f"{parent}Category_ids",
        human_maps=f"{parent}Human_ids",
        instances=f"{parent}Instance_ids",
    )


CIHP: Mapping[str, SplitLayout] = {
    "train": _with_label_maps(("train_id.txt",), "Training/Images", "Training/"),
    "val": _with_label_maps(("val_id.txt",), "Validation/Images", "Validation/"),
    "test": SplitLayout(("test_id.txt",), "Testing/Images"),
}
"""CIHP as it is downloaded, by split."""

CIHP_JSON: Mapping[str, JsonSplit] = {
    "train": JsonSplit("annotations/CIHP_train.json", "train_img", "train_parsing", "train_seg"),
    "val": JsonSplit("annotations/CIHP_val.json", "val_img", "val_parsing", "val_seg"),
    "test": JsonSplit("annotations/CIHP_test.json", "test_img"),
}
"""CIHP as converted to COCO's format, by split."""

LV_MHP_V2: Mapping[str, SplitLayout] = {
    "train": SplitLayout(("list/train.txt",), "train/images", person_maps="train/parsing_annos"),
    "val": SplitLayout(("list/val.txt",), "val/images", person_maps="val/parsing_annos"),
    "test": SplitLayout(("list/test_all.txt",), "test/images"),
    "test_inter_top10": SplitLayout(("list/test_inter_top10.txt",), "test/images"),
    "test_inter_top20": SplitLayout(("list/test_inter_top20.txt",), "test/images"),
}
"""LV-MHP-v2, by split."""


def _vip(parent: str) -> dict[str, SplitLayout]:
    lists = {s: (f"lists/{s}_id.txt", f"{s}_id.txt") for s in ("train", "val", "test")}
    return {
        "train": _with_label_maps(lists["train"], "Images", parent),
        "val": _with_label_maps(lists["val"], "Images", parent),
        "test": SplitLayout(lists["test"], "Images"),
    }


VIP: Mapping[str, SplitLayout] = _vip("Annotations/")
"""VIP, by split."""

VIP_FLAT: Mapping[str, SplitLayout] = _vip("")
"""VIP with the folders of labels directly in the data set's folder, by split."""

VIP_VAL_VIDEOS = "lists/val_videos.txt"
"""The list of VIP's validation videos."""

VIP_FRAME_STEP = 25
"""VIP's annotated frames are 1, 26, 51 and so on."""


def vip_layout(root: str | os.PathLike) -> Mapping[str, SplitLayout]:
    """Return the layout, of VIP's two, that a folder has."""
    annotations = os.path.join(root, VIP["train"].category_maps.partition("/")[0])
    return VIP if os.path.isdir(annotations) else VIP_FLAT


def cihp_image_id(number: int) -> str:
    """Id of a CIHP image."""
    return f"{number:07d}"


def vip_frame_id(video: str, frame: int) -> str:
    """Id of a frame of VIP, counted from 1."""
    return f"{video}/{frame:012d}"


@dataclass(frozen=True)
class PersonFileName:
    """The name of a person's label map in LV-MHP-v2, ``<image id>_<NN>_<KK>.png``.

    Attributes:
        image_id: the person's image.
        num_people: NN, how many people the image has.
        number: KK, the person's number, from 1 on.
    """

    image_id: str
    num_people: int
    number: int

    def __str__(self) -> str:
        return f"{self.image_id}_{self.num_people:02d}_{self.number:02d}.png"

    @classmethod
    def parse(cls, stem: str) -> PersonFileName | None:
        """Read a name, given without its suffix; None if it is none."""
        match = re.fullmatch(r"(.+)_([0-9]{1,9})_([0-9]{1,9})", stem)
        return cls(match[1], int(match[2]), int(match[3])) if match else None


def top_level_names(layout: Mapping[str, SplitLayout]) -> list[str]:
    """Return what a data set's folder itself holds: the names of folders, ending in "/", and of
    lists.
    """
    paths = []
    for split in layout.values():
        folders = (split.images, split.category_maps, split.human_maps, split.person_maps)
        paths += [f"{folder}/" for folder in folders if folder is not None]
    paths += [split.id_lists[0] for split in layout.values()]
    return list(dict.fromkeys("".join(path.partition("/")[:2]) for path in paths))


def choose_files(names: Iterable[str], suffixes: Sequence[str]) -> dict[str, str]:
    """Find files by their names without suffixes, which may be in upper or lower case.

    Args:
        names: names of files in one folder. Those that start with a dot are leftovers of file
            managers, such as ``._0000006.jpg``, and not used.
        suffixes: in lower case. Of files that differ in their suffix only, the one whose suffix
            comes first counts, and lower case before upper.

    Returns:
        Name without suffix -> name.
    """
    chosen: dict[str, tuple[tuple[int, str], str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in suffixes or name.startswith("."):
            continue
        # Upper case comes first in the alphabet, hence swapped.
        rank = suffixes.index(suffix.lower()), suffix.swapcase()
        if stem not in chosen or rank < chosen[stem][0]:
            chosen[stem] = rank, name
    return {stem: name for stem, (_, name) in chosen.items()}


def comparable_stem(name: str) -> str:
    """Return what names have in common that differ in suffix, case, or Unicode form only.

    Systems do not agree on the latter two; and a file may be of a kind that is not read.
    """
    return unicodedata.normalize("NFC", os.path.splitext(name)[0]).casefold()

"""The published data sets: how their archives unpack, and how much is in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, LV_MHP_V2_PART_LABELS, PartLabels

__all__ = ["DATA_SETS", "DataSet", "SplitFolders"]


@dataclass(frozen=True)
class SplitFolders:
    """Where the files of a split lie, relative to the data set's folder; None: it has none.

    Attributes:
        images: the images.
        category_maps, human_maps: part label and number of the person at every pixel.
        instances: PNGs and tables of part instances.
        person_maps: one label map a person.
    """

    images: str
    category_maps: str | None = None
    human_maps: str | None = None
    instances: str | None = None
    person_maps: str | None = None


@dataclass(frozen=True)
class DataSet:
    """A published data set.

    Attributes:
        title: its name.
        key: its name in file names.
        part_labels: its labels.
        lists: for each split where its list of images may be, relative to the data set's folder.
        counts: for each split how many "images", "videos" and "people" were published, as far as
            known.
        image_id: what a line of a list looks like.
        folders: gives the folders of a split; called with the data set's folder and the split.
        frame_step: for videos, the distance of annotated frames, the first of which is frame 1.
    """

    title: str
    key: str
    part_labels: PartLabels
    lists: Mapping[str, Sequence[str]]
    counts: Mapping[str, Mapping[str, int]]
    image_id: re.Pattern[str]
    folders: Callable[[Path, str], SplitFolders]
    frame_step: int | None = None

    def find_list(self, root: Path, split: str) -> str | None:
        """The list of a split, relative to the data set's folder ``root``; None if it has none."""
        return next((file for file in self.lists[split] if (root / file).is_file()), None)


def _cihp_folders(root: Path, split: str) -> SplitFolders:
    folder = {"train": "Training", "val": "Validation", "test": "Testing"}[split]
    if split == "test":
        return SplitFolders(f"{folder}/Images")
    return SplitFolders(
        images=f"{folder}/Images",
        category_maps=f"{folder}/Category_ids",
        human_maps=f"{folder}/Human_ids",
        instances=f"{folder}/Instance_ids",
    )


def _lv_mhp_v2_folders(root: Path, split: str) -> SplitFolders:
    if split == "test":
        return SplitFolders("test/images")
    return SplitFolders(f"{split}/images", person_maps=f"{split}/parsing_annos")


def _vip_folders(root: Path, split: str) -> SplitFolders:
    if split == "test":
        return SplitFolders("Images")
    # Some copies have the folders of the annotations beside that of the images.
    parent = "Annotations/" if (root / "Annotations").is_dir() else ""
    return SplitFolders(
        images="Images",
        category_maps=f"{parent}Category_ids",
        human_maps=f"{parent}Human_ids",
        instances=f"{parent}Instance_ids",
    )


_SPLITS = ("train", "val", "test")
_PLAIN_ID = re.compile(r"(?!\.)[^\s/\\]+")
_FRAME_ID = re.compile(r"(?!\.)[^\s/\\]+/\d+")

DATA_SETS: dict[str, DataSet] = {
    "cihp": DataSet(
        title="CIHP",
        key="CIHP",
        part_labels=CIHP_PART_LABELS,
        lists={split: (f"{split}_id.txt",) for split in _SPLITS},
        counts={
            "train": {"images": 28280},
            "val": {"images": 5000, "people": 17520},
            "test": {"images": 5000},
        },
        image_id=_PLAIN_ID,
        folders=_cihp_folders,
    ),
    "lv_mhp_v2": DataSet(
        title="LV-MHP-v2",
        key="LV_MHP_v2",
        part_labels=LV_MHP_V2_PART_LABELS,
        lists={
            "train": ("list/train.txt",),
            "val": ("list/val.txt",),
            "test": ("list/test_all.txt",),
        },
        counts={"train": {"images": 15403}, "val": {"images": 5000}, "test": {"images": 5000}},
        image_id=_PLAIN_ID,
        folders=_lv_mhp_v2_folders,
    ),
    "vip": DataSet(
        title="VIP",
        key="VIP",
        part_labels=CIHP_PART_LABELS,
        lists={split: (f"lists/{split}_id.txt", f"{split}_id.txt") for split in _SPLITS},
        counts={
            "train": {"images": 16024, "videos": 304},
            "val": {"images": 2445, "videos": 50},
            "test": {"videos": 50},
        },
        image_id=_FRAME_ID,
        folders=_vip_folders,
        frame_step=25,
    ),
}
"""The data sets by their names on the command line."""

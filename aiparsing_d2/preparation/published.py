"""The published data sets: their layouts and labels, and how much is in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiparsing_d2.data import layouts
from aiparsing_d2.data.layouts import SplitLayout
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, LV_MHP_V2_PART_LABELS, PartLabels

__all__ = ["DATA_SETS", "ONE_OF", "SPLITS", "DataSet"]

SPLITS = ("train", "val", "test")
"""The splits that can be prepared."""


@dataclass(frozen=True)
class DataSet:
    """A published data set, or one of somebody's own that lies on disk like it.

    Attributes:
        title: its name.
        key: its name in file names.
        part_labels: its labels.
        layout: gives where the files of each split lie; called with the data set's folder.
        counts: for each split how many "images", "videos" and "people" were published, as far as
            known.
        frame_step: for videos, the distance of annotated frames, the first of which is frame 1.
        is_published: whether it is the published one, which has its counts, Instance_ids and frame
            numbers. None of these is expected of a data set of one's own.
    """

    title: str
    key: str
    part_labels: PartLabels
    layout: Callable[[Path], Mapping[str, SplitLayout]]
    counts: Mapping[str, Mapping[str, int]]
    frame_step: int | None = None
    is_published: bool = True

    def as_own_data(self) -> DataSet:
        """Return a data set of one's own in this one's layout, with its labels."""
        return dataclasses.replace(
            self,
            title=f"Own data in {self.title}'s layout",
            counts={split: {} for split in SPLITS},
            is_published=False,
        )

    def find_list(self, root: Path, split: str) -> str | None:
        """Return the list of a split, relative to the data set's folder ``root``; None if it has
        none.
        """
        return self.layout(root)[split].find_id_list(root)


ONE_OF = {"images": "image", "videos": "video", "people": "person"}
"""Names of what is counted: of many and of one."""

DATA_SETS: dict[str, DataSet] = {
    "cihp": DataSet(
        title="CIHP",
        key="CIHP",
        part_labels=CIHP_PART_LABELS,
        counts={
            "train": {"images": 28280},
            "val": {"images": 5000, "people": 17520},
            "test": {"images": 5000},
        },
        layout=lambda root: layouts.CIHP,
    ),
    "lv_mhp_v2": DataSet(
        title="LV-MHP-v2",
        key="LV_MHP_v2",
        part_labels=LV_MHP_V2_PART_LABELS,
        counts={"train": {"images": 15403}, "val": {"images": 5000}, "test": {"images": 5000}},
        layout=lambda root: layouts.LV_MHP_V2,
    ),
    "vip": DataSet(
        title="VIP",
        key="VIP",
        part_labels=CIHP_PART_LABELS,
        counts={
            "train": {"images": 16024, "videos": 304},
            "val": {"images": 2445, "videos": 50},
            "test": {"videos": 50},
        },
        layout=layouts.vip_layout,
        frame_step=layouts.VIP_FRAME_STEP,
    ),
}
"""The data sets by their names on the command line."""

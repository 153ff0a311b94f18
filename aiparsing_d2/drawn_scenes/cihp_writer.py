"""Drawn scenes as a data set in CIHP's layout on disk, Instance_ids among its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aiparsing_d2.data import layouts
from aiparsing_d2.data.layouts import SplitLayout

from .data_set_writer import DataSetRequest, write_jpeg, write_lines, write_png
from .scene import DrawnScene, draw_scene

_CLASSES = 20  # labels per person in Instance_ids: instance = class + 20 * (human - 1)


@dataclass(frozen=True)
class CIHPRequest(DataSetRequest):
    """What a drawn data set in CIHP's layout is to hold; see ``DataSetRequest``."""

    num_train: int = 1200
    num_val: int = 200

    layout: ClassVar[str] = "cihp"

    def prepare(self, root: Path) -> list[tuple[str, int, str]]:
        tasks = []
        for split, numbers in self.numbers().items():
            names = [layouts.cihp_image_id(number) for number in numbers]
            write_lines(root / layouts.CIHP[split].id_lists[0], names)
            tasks += [(split, index, name) for index, name in enumerate(names)]
        return tasks

    def write_image(self, root: Path, split: str, index: int, name: str) -> tuple[str, int]:
        layout = layouts.CIHP[split]
        num_people = count_annotated_people(root, layout, name)
        if num_people is None:
            rng = self.rng(split, index)
            scene = draw_scene(rng, *self.choose_size(rng))
            quality = int(rng.integers(72, 96))
            write_jpeg(root / layout.images / f"{name}.jpg", scene.image, quality)
            write_annotations(root, layout, name, scene)
            num_people = scene.num_people
        return split, num_people


def instance_map(category_map: np.ndarray, human_map: np.ndarray) -> np.ndarray:
    """CIHP's instance ids: uint8 (H, W), class + 20 * (human - 1), 0 for the background.

    Args:
        category_map, human_map: uint8 (H, W) each.
    """
    instances = category_map + _CLASSES * (human_map.astype(np.int32) - 1)
    return np.where(human_map > 0, instances, 0).astype(np.uint8)


def write_annotations(root: Path, layout: SplitLayout, name: str, scene: DrawnScene) -> None:
    """Write the maps of parts, people and instances, then the table of instances.

    Args:
        root: the data set's folder.
        layout: where the files of the split lie.
        name: path of the files in their folders, without suffix.
        scene: what they show.
    """
    instances = instance_map(scene.category_map, scene.human_map)
    for folder, ids in (
        (layout.category_maps, scene.category_map),
        (layout.human_maps, scene.human_map),
        (layout.instances, instances),
    ):
        write_png(root / folder / f"{name}.png", ids)
    rows = []
    for instance in np.unique(instances[instances > 0]).tolist():
        human, category = divmod(instance, _CLASSES)
        rows.append(f"{instance} {category} {human + 1}")
    write_lines(root / layout.instances / f"{name}.txt", rows)


def count_annotated_people(root: Path, layout: SplitLayout, name: str) -> int | None:
    """How many people ``write_annotations`` has written, None if it has not finished."""
    table_path = root / layout.instances / f"{name}.txt"
    if not table_path.exists():  # the last file of an image: with it all the others are there
        return None
    rows = table_path.read_text(encoding="utf-8").split("\n")
    return max((int(row.split()[2]) for row in rows if row), default=0)

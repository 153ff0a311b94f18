"""Drawn scenes as a data set in LV-MHP-v2's layout on disk.

People are numbered from 01, the farthest, to NN, the nearest. The red channel of each PNG holds one
person's labels, the others are 0.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from aiparsing_d2.data.layouts import LV_MHP_V2, PersonFileName

from .data_set_writer import DataSetRequest, write_jpeg, write_lines, write_png
from .lv_mhp_v2_labels import person_label_maps
from .person import sample_equipped_person
from .scene import MAX_PEOPLE, draw_scene

# LV-MHP-v2 has no image of a single person.
_NUM_PEOPLE_FREQUENCIES = {2: 0.45, 3: 0.27, 4: 0.15, 5: 0.08, 6: 0.05}


@dataclass(frozen=True)
class LVMHPv2Request(DataSetRequest):
    """What a drawn data set in LV-MHP-v2's layout is to hold; see ``DataSetRequest``."""

    num_train: int = 200
    num_val: int = 50

    layout: ClassVar[str] = "lv_mhp_v2"

    def prepare(self, root: Path) -> list[tuple[str, int, str]]:
        tasks = []
        for split, numbers in self.numbers().items():
            write_lines(root / LV_MHP_V2[split].id_lists[0], [str(number) for number in numbers])
            tasks += [(split, index, str(number)) for index, number in enumerate(numbers)]
        return tasks

    def write_image(self, root: Path, split: str, index: int, name: str) -> tuple[str, int]:
        layout = LV_MHP_V2[split]
        image_path = root / layout.images / f"{name}.jpg"
        folder = root / layout.person_maps

        def map_name(num_people: int, number: int) -> str:
            return str(PersonFileName(name, num_people, number))

        if image_path.exists():  # the last file of an image: with it all the others are there
            numbers = range(1, MAX_PEOPLE + 1)
            return split, next(n for n in numbers if (folder / map_name(n, 1)).exists())
        rng = self.rng(split, index)
        height, width = self.choose_size(rng)
        frequencies = _NUM_PEOPLE_FREQUENCIES
        num_people = int(rng.choice(list(frequencies), p=list(frequencies.values())))
        scene = draw_scene(rng, height, width, num_people, sample_equipped_person)
        maps = person_label_maps(scene)
        for number, label_map in enumerate(maps, start=1):
            pixels = np.zeros((height, width, 3), dtype=np.uint8)
            pixels[..., 0] = label_map
            write_png(folder / map_name(len(maps), number), pixels)
        write_jpeg(image_path, scene.image, quality=int(rng.integers(72, 96)))
        return split, len(maps)

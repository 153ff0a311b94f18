"""Validation sets of what a data set of single, whole people lacks: crowds, and people cut short.

Made of the photographs of a registered data set, real pixel for real pixel, in CIHP's layout.
What is made depends on the data set, the number of images and the seed, and on nothing else.

Shape shorthand:
    H, W: height and width of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from aiparsing_d2.data.annotations import PersonAnnotations, read_person_annotations
from aiparsing_d2.data.copy_paste import CopyPaste, paste_people
from aiparsing_d2.data.image_files import read_image
from aiparsing_d2.data.json_files import read_json
from aiparsing_d2.structures.part_labels import PartLabels
from aiparsing_d2.whole_files import whole_file

from .output_files import write_json, write_png, write_text

__all__ = ["COMPOSITIONS", "Composition", "compose_data_set", "crop_person", "crowd_scene"]

_MANIFEST = "composition.json"
_MIN_PERSON_PIXELS = 64
_MIN_SIDE = 64
# So many in a row come to nothing only where next to no photograph is fit.
_MAX_TRIES = 1000

Scene = tuple[np.ndarray, PersonAnnotations]


@dataclass(frozen=True)
class Composition:
    """A kind of validation set.

    Attributes:
        make: called with the records, the label set and a random generator; gives an image, uint8
            RGB (H, W, 3), and its people.
        meaning: what the images show.
    """

    make: Callable[[Sequence[Mapping[str, Any]], PartLabels, np.random.Generator], Scene]
    meaning: str


def crowd_scene(
    records: Sequence[Mapping[str, Any]], part_labels: PartLabels, rng: np.random.Generator
) -> Scene:
    """Compose a scene of two to six people.

    A photograph, or a landscape part of it, into which one to five other people are pasted, before
    and behind each other, at a sixth of the picture's height to beyond its edges.

    Args:
        records: of the data set.
        part_labels: its label set.
        rng: source of all randomness.

    Raises:
        ValueError: the photographs do not allow it.
    """
    for _ in range(_MAX_TRIES):
        image, annotations = _read(records[int(rng.integers(len(records)))], part_labels)
        if rng.random() < 0.5:
            image, annotations = _crop(image, annotations, _landscape_window(rng, image.shape[:2]))
        paster = CopyPaste(records, part_labels, num_people=(1, 5), height_range=(1 / 6, 1.3))
        placements = paster.sample_placements(
            rng, image.shape[:2], len(annotations.boxes), image_format="RGB"
        )
        image, annotations = paste_people(image, annotations, placements)
        if 2 <= len(annotations.boxes) <= 6:
            return image, annotations
    raise _unfit("scene of two to six people", "people with labels, and six at most in a picture")


def crop_person(
    records: Sequence[Mapping[str, Any]], part_labels: PartLabels, rng: np.random.Generator
) -> Scene:
    """Cut a photograph so that a person is cut: a portrait, a half body, or at any side.

    Args:
        records: of the data set.
        part_labels: its label set.
        rng: source of all randomness.

    Raises:
        ValueError: the photographs do not allow it.
    """
    for _ in range(_MAX_TRIES):
        image, annotations = _read(records[int(rng.integers(len(records)))], part_labels)
        if not len(annotations.boxes):
            continue
        box = annotations.boxes[rng.integers(len(annotations.boxes))]
        window = _cutting_window(rng, box, image.shape[:2])
        image, annotations = _crop(image, annotations, window)
        if len(annotations.boxes) and min(image.shape[:2]) >= _MIN_SIDE:
            return image, annotations
    needed = f"people with labels, in pictures well over {_MIN_SIDE} pixels high and wide"
    raise _unfit("picture of a cut person", needed)


def _unfit(wanted: str, needed: str) -> ValueError:
    return ValueError(
        f"no {wanted} came about in {_MAX_TRIES} tries: that takes {needed}. Is this the right "
        "data set?"
    )


COMPOSITIONS = {
    "crowds": Composition(crowd_scene, "two to six people, before and behind each other"),
    "crops": Composition(crop_person, "portraits, half bodies and people cut at any side"),
}
"""The kinds of validation sets by name."""


def compose_data_set(
    composition: Composition,
    records: Sequence[Mapping[str, Any]],
    part_labels: PartLabels,
    root: Path,
    *,
    num_images: int,
    seed: int,
) -> None:
    """Write a validation set in CIHP's layout; an interrupted call goes on where it was.

    Args:
        composition: what to make.
        records: of the data set whose photographs it is made of.
        part_labels: its label set.
        root: folder to write into.
        num_images: number of images.
        seed: image k depends on the seed and k.

    Raises:
        FileExistsError: the folder holds something else.
        ValueError: there are no photographs, or they do not allow it, or the seed is negative.
            A folder that is new is not made then.
    """
    if not records:
        raise ValueError("the data set has no images")
    manifest = {
        "composition": composition.meaning,
        "images": [str(record["image_id"]) for record in records],
        "num_images": num_images,
        "seed": seed,
    }
    is_begun = _is_begun(root, manifest)
    names = [f"{number:07d}" for number in range(1, num_images + 1)]
    for index, name in enumerate(tqdm(names, desc=str(root), unit="image")):
        if not _human_file(root, name).exists():
            rng = np.random.default_rng([seed, index])
            image, annotations = composition.make(records, part_labels, rng)
            if not is_begun:
                write_json(root / _MANIFEST, manifest, indent=1)
                is_begun = True
            _write(root, name, image, annotations)
    write_text(root / "val_id.txt", "".join(f"{name}\n" for name in names))


def _is_begun(root: Path, manifest: dict[str, Any]) -> bool:
    """Whether a folder holds scenes of the same settings already.

    Raises:
        FileExistsError: it holds something else.
    """
    path = root / _MANIFEST
    if path.exists():
        if read_json(path) != manifest:
            raise FileExistsError(
                f"{root} holds scenes composed with other settings; give a new folder."
            )
        return True
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty; give a new folder.")
    return False


def _human_file(root: Path, name: str) -> Path:
    return root / "Validation" / "Human_ids" / f"{name}.png"


def _write(root: Path, name: str, image: np.ndarray, annotations: PersonAnnotations) -> None:
    folder = root / "Validation"
    with whole_file(folder / "Images" / f"{name}.jpg", "wb") as file:
        Image.fromarray(image).save(file, format="JPEG", quality=95)
    human_map = np.zeros(image.shape[:2], dtype=np.uint8)
    for number, person_map in enumerate(annotations.person_maps, start=1):
        human_map[person_map != 0] = number
    write_png(folder / "Category_ids" / f"{name}.png", annotations.category_map)
    write_png(_human_file(root, name), human_map)  # last: with it all of the image is there


def _read(record: Mapping[str, Any], part_labels: PartLabels) -> Scene:
    annotations = read_person_annotations(record, part_labels.num_classes)
    return read_image(record["file_name"], "RGB"), annotations


def _crop(image: np.ndarray, annotations: PersonAnnotations, window: Sequence[int]) -> Scene:
    """Return the part of an image in a window (x0, y0, x1, y1), with the people of whom enough is
    left.
    """
    x0, y0, x1, y1 = window
    area = np.s_[y0:y1, x0:x1]
    cropped = PersonAnnotations(
        person_maps=annotations.person_maps[:, y0:y1, x0:x1],
        boxes=annotations.boxes,
        category_map=annotations.category_map[area],
    )
    return paste_people(image[area], cropped, [], min_visible=0, min_pixels=_MIN_PERSON_PIXELS)


def _landscape_window(rng: np.random.Generator, image_size: tuple[int, int]) -> tuple[int, ...]:
    """Return the whole width, at a height of 60 to 90 % of it, anywhere."""
    height, width = image_size
    window_height = min(round(width * rng.uniform(0.6, 0.9)), height)
    top = int(rng.integers(height - window_height, endpoint=True))
    return 0, top, width, top + window_height


def _cutting_window(
    rng: np.random.Generator, box: np.ndarray, image_size: tuple[int, int]
) -> tuple[int, ...]:
    """Return a window (x0, y0, x1, y1) that cuts through a person's box, with a margin
    elsewhere.
    """
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    left, right = x0 - rng.uniform(0.05, 1) * width, x1 + rng.uniform(0.05, 1) * width
    top, bottom = y0 - rng.uniform(0.02, 0.2) * height, y1 + rng.uniform(0.02, 0.2) * height
    kind = rng.choice(["portrait", "half body", "legs", "left", "right"])
    if kind == "portrait":
        bottom = y0 + rng.uniform(0.18, 0.35) * height
    elif kind == "half body":
        bottom = y0 + rng.uniform(0.4, 0.7) * height
    elif kind == "legs":
        top = y0 + rng.uniform(0.3, 0.6) * height
    elif kind == "left":
        left = x0 + rng.uniform(0.25, 0.6) * width
    else:
        right = x0 + rng.uniform(0.4, 0.75) * width
    limits = (image_size[1], image_size[0]) * 2
    return tuple(int(np.clip(round(v), 0, m)) for v, m in zip((left, top, right, bottom), limits))

"""Drawn scenes as a data set in CIHP's layout on disk.

``<root>/{Training,Validation}/{Images/%07d.jpg, Category_ids/%07d.png, Human_ids/%07d.png,
Instance_ids/%07d.png, Instance_ids/%07d.txt}`` with ``train_id.txt`` and ``val_id.txt`` beside.
"""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from .scene import check_image_size, draw_scene

GENERATOR_VERSION = 1
"""Grows whenever the same request gives other files than before."""

MANIFEST_NAME = "drawn_scenes.json"
_UNFINISHED_NAME = "drawn_scenes.unfinished.json"
_SPLITS = {"train": ("Training", "train_id.txt"), "val": ("Validation", "val_id.txt")}
_CLASSES = 20  # labels per person in Instance_ids: instance = class + 20 * (human - 1)
_DEFAULT_SIZES = ((240, 320), (320, 240), (256, 320), (256, 256), (300, 240), (240, 360))


class FolderInUseError(Exception):
    """The output folder holds something else than the requested data set."""


@dataclass(frozen=True)
class DataSetRequest:
    """What a drawn data set is to hold.

    Attributes:
        num_train, num_val: images per split.
        seed: image i of a split depends on the seed, the split and i alone.
        image_size: (height, width) of all images; None varies it around 240 x 320.
    """

    num_train: int = 1200
    num_val: int = 200
    seed: int = 0
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.num_train < 0 or self.num_val < 0 or self.num_train + self.num_val == 0:
            raise ValueError(
                f"Nothing to draw: {self.num_train} training and {self.num_val} validation images."
            )
        if self.seed < 0:
            raise ValueError(f"The seed must not be negative, got {self.seed}.")
        if self.image_size is not None:
            check_image_size(*self.image_size)

    def to_json(self) -> dict:
        """The request and the generator's version as JSON values."""
        size = None if self.image_size is None else list(self.image_size)
        return {
            "generator_version": GENERATOR_VERSION,
            **dataclasses.asdict(self),
            "image_size": size,
        }


def write_data_set(root: Path, request: DataSetRequest, num_workers: int = 1) -> dict | None:
    """Draw a data set, or finish one that was interrupted.

    Args:
        root: folder for ``Training``, ``Validation`` and the id lists; made if it is missing.
        request: what to draw.
        num_workers: processes to draw with; the files do not depend on it.

    Returns:
        The manifest, or None if the folder holds this very data set already.

    Raises:
        FolderInUseError: if the folder holds anything else. Nothing is changed then.
        OSError: if the folder cannot be written to.
    """
    manifest_path, unfinished_path = root / MANIFEST_NAME, root / _UNFINISHED_NAME
    wanted = request.to_json()
    if manifest_path.exists():
        _check_same_request(manifest_path, wanted)
        return None
    if unfinished_path.exists():
        _check_same_request(unfinished_path, wanted)
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FolderInUseError(
            f"{root} holds files that are no drawn data set; "
            f"give a new or empty folder to write to."
        )
    root.mkdir(parents=True, exist_ok=True)
    _write_text(unfinished_path, json.dumps(wanted, indent=2) + "\n")

    tasks = []
    counts = {"train": request.num_train, "val": request.num_val}
    first_id = 1
    for split, (folder, list_name) in _SPLITS.items():
        for name in ("Images", "Category_ids", "Human_ids", "Instance_ids"):
            (root / folder / name).mkdir(parents=True, exist_ok=True)
        names = [f"{first_id + i:07d}" for i in range(counts[split])]
        first_id += counts[split]
        tasks += [(split, i, name) for i, name in enumerate(names)]
        _write_text(root / list_name, "".join(f"{name}\n" for name in names))

    people = dict.fromkeys(_SPLITS, 0)
    write = functools.partial(_write_image, root, request)
    with contextlib.ExitStack() as stack:
        results = map(write, tasks)
        if num_workers > 1:
            # Workers start afresh: forking a process that holds OpenCV's threads can hang.
            pool = multiprocessing.get_context("spawn").Pool(num_workers, cv2.setNumThreads, (1,))
            results = stack.enter_context(pool).imap_unordered(write, tasks, chunksize=8)
        for split, num_people in tqdm(results, "Drawing scenes", len(tasks), unit="image"):
            people[split] += num_people

    manifest = {**wanted, "num_people": people}
    _write_text(manifest_path, json.dumps(manifest, indent=2) + "\n")
    unfinished_path.unlink()
    return manifest


def _check_same_request(path: Path, wanted: dict) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FolderInUseError(
            f"{path} is not readable as JSON ({error}); remove {path.parent} to draw it anew."
        ) from error
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        told = ", ".join(f"{key} {found.get(key)} instead of {wanted[key]}" for key in differing)
        raise FolderInUseError(
            f"{path.parent} holds another drawn data set ({told}); "
            f"give another folder, or remove this one to draw it anew."
        )


def _write_text(path: Path, text: str) -> None:
    _write_whole(path, lambda file: file.write(text.encode()))


def _write_whole(path: Path, write: Callable) -> None:
    """Write a file that is never seen half written."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        write(file)
    os.replace(part, path)


def instance_map(category_map: np.ndarray, human_map: np.ndarray) -> np.ndarray:
    """CIHP's instance ids: uint8 (H, W), class + 20 * (human - 1), 0 for the background.

    Args:
        category_map, human_map: uint8 (H, W) each.
    """
    instances = category_map + _CLASSES * (human_map.astype(np.int32) - 1)
    return np.where(human_map > 0, instances, 0).astype(np.uint8)


def scene_rng(seed: int, split: str, index: int) -> np.random.Generator:
    """The source of every choice for image ``index`` of a split."""
    return np.random.default_rng([seed, list(_SPLITS).index(split), index])


def _write_image(
    root: Path, request: DataSetRequest, task: tuple[str, int, str]
) -> tuple[str, int]:
    """Draw one image and write its files, the txt last.

    Returns:
        split, num_people: the image's split and how many people it shows.
    """
    split, index, name = task
    folder = root / _SPLITS[split][0]
    table_path = folder / "Instance_ids" / f"{name}.txt"
    if table_path.exists():  # the last file of an image: all the others are there
        rows = table_path.read_text(encoding="utf-8").split("\n")
        return split, max((int(row.split()[2]) for row in rows if row), default=0)

    rng = scene_rng(request.seed, split, index)
    size = request.image_size or _DEFAULT_SIZES[rng.integers(len(_DEFAULT_SIZES))]
    scene = draw_scene(rng, *size)
    quality = int(rng.integers(72, 96))
    instances = instance_map(scene.category_map, scene.human_map)

    jpeg = Image.fromarray(scene.image)
    _write_whole(
        folder / "Images" / f"{name}.jpg",
        lambda file: jpeg.save(file, format="JPEG", quality=quality),
    )
    for kind, ids in (
        ("Category_ids", scene.category_map),
        ("Human_ids", scene.human_map),
        ("Instance_ids", instances),
    ):
        png = Image.fromarray(ids)
        _write_whole(
            folder / kind / f"{name}.png", lambda file, png=png: png.save(file, format="PNG")
        )
    lines = []
    for instance in np.unique(instances[instances > 0]).tolist():
        human, category = divmod(instance, _CLASSES)
        lines.append(f"{instance} {category} {human + 1}\n")
    _write_text(table_path, "".join(lines))
    return split, scene.num_people

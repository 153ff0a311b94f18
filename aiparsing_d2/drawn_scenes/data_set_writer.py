"""What all layouts of drawn data sets share: the request, the manifest and the files' writing.

A folder says what it holds in a manifest, which is there under another name until the last file is
written. So drawing that was interrupted goes on where it stopped, and a folder that holds anything
else is left alone.
"""

import dataclasses
import functools
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from aiparsing_d2.parallel import map_in_processes
from aiparsing_d2.whole_files import whole_file

from .scene import check_image_size, check_seed

GENERATOR_VERSION = 3
"""Grows whenever the same request gives other files than before."""

MANIFEST_NAME = "drawn_scenes.json"
_UNFINISHED_NAME = "drawn_scenes.unfinished.json"

SPLITS = ("train", "val")

# Manifests of CIHP's layout do not name it: at first there was no other.
_UNNAMED_LAYOUT = "cihp"
_DEFAULT_SIZES = ((320, 240), (300, 240), (320, 256), (256, 256), (256, 288), (240, 320))


class FolderInUseError(Exception):
    """The output folder holds something else than the requested data set."""


@dataclass(frozen=True)
class DataSetRequest(ABC):
    """What a drawn data set is to hold; a subclass knows how it lies on disk.

    Attributes:
        num_train, num_val: units (see below) per split.
        seed: unit i of a split depends on the seed, the split and i alone.
        image_size: (height, width) of all images; None varies it around 240 x 320.
        layout: name of the layout.
        unit: what the data set is counted in, in the plural.
    """

    num_train: int
    num_val: int
    seed: int = 0
    image_size: tuple[int, int] | None = None

    layout: ClassVar[str]
    unit: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        if self.num_train < 0 or self.num_val < 0 or self.num_train + self.num_val == 0:
            raise ValueError(f"Nothing to draw: {self.describe()}.")
        check_seed(self.seed)
        if self.image_size is not None:
            check_image_size(*self.image_size)

    def describe(self) -> str:
        """Return the size of the data set in words."""
        return f"{self.num_train} training and {self.num_val} validation {self.unit}"

    def manifest(self) -> dict[str, Any]:
        """Return the layout, the request and the generator's version as JSON values."""
        entries = {
            "generator_version": GENERATOR_VERSION,
            **dataclasses.asdict(self),
            "image_size": None if self.image_size is None else list(self.image_size),
        }
        return entries if self.layout == _UNNAMED_LAYOUT else {"layout": self.layout, **entries}

    def rng(self, split: str, index: int) -> np.random.Generator:
        """Return the source of every choice for unit ``index`` of a split."""
        return np.random.default_rng([self.seed, SPLITS.index(split), index])

    def choose_size(self, rng: np.random.Generator) -> tuple[int, int]:
        """Height and width of an image."""
        return self.image_size or _DEFAULT_SIZES[rng.integers(len(_DEFAULT_SIZES))]

    def numbers(self) -> dict[str, range]:
        """Return the units' numbers by split. They start from 1 and run on over the splits."""
        stop = 1 + self.num_train
        return {"train": range(1, stop), "val": range(stop, stop + self.num_val)}

    @abstractmethod
    def prepare(self, root: Path) -> list[tuple]:
        """Write the lists of the data set.

        Returns:
            One task for each image: what ``write_image`` is to be called with.
        """

    @abstractmethod
    def write_image(self, root: Path, *task: Any) -> tuple[str, int]:
        """Draw one image and write its files, unless they are there already.

        Returns:
            split, num_people: the image's split and how many people are annotated in it.
        """


def write_data_set(root: Path, request: DataSetRequest, num_workers: int = 1) -> dict | None:
    """Draw a data set, or finish one that was interrupted.

    Args:
        root: folder for the data set; made if it is missing.
        request: what to draw.
        num_workers: processes to draw with; the files do not depend on it.

    Returns:
        The manifest, or None if the folder holds this very data set already.

    Raises:
        FolderInUseError: the folder holds anything else. Nothing is changed then.
        OSError: the folder cannot be written to.
        WorkerDiedError: see :func:`~aiparsing_d2.parallel.map_in_processes`.
    """
    manifest_path, unfinished_path = root / MANIFEST_NAME, root / _UNFINISHED_NAME
    wanted = request.manifest()
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
    write_text(unfinished_path, json.dumps(wanted, indent=2) + "\n")

    tasks = request.prepare(root)
    people = dict.fromkeys(SPLITS, 0)
    write = functools.partial(_write_image, request, root)
    one_thread = functools.partial(cv2.setNumThreads, 1)  # the workers share the cores
    with map_in_processes(write, tasks, num_workers, one_thread) as results:
        for split, num_people in tqdm(results, "Drawing scenes", len(tasks), unit="image"):
            people[split] += num_people

    manifest = {**wanted, "num_people": people}
    write_text(manifest_path, json.dumps(manifest, indent=2) + "\n")
    unfinished_path.unlink()
    return manifest


def _write_image(request: DataSetRequest, root: Path, task: tuple) -> tuple[str, int]:
    return request.write_image(root, *task)


def _check_same_request(path: Path, wanted: dict) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FolderInUseError(
            f"{path} is not readable as JSON ({error}); remove {path.parent} to draw it anew."
        ) from error
    if not isinstance(found, dict):
        raise FolderInUseError(f"{path} is no manifest of drawn scenes; remove {path.parent}.")
    found, wanted = {"layout": _UNNAMED_LAYOUT, **found}, {"layout": _UNNAMED_LAYOUT, **wanted}
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        told = ", ".join(f"{key} {found.get(key)} instead of {wanted[key]}" for key in differing)
        raise FolderInUseError(
            f"{path.parent} holds another drawn data set ({told}); "
            f"give another folder, or remove this one to draw it anew."
        )


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with whole_file(path) as file:
        file.write(text)


def write_lines(path: Path, lines: list[str]) -> None:
    """Write a list, one entry a line."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_jpeg(path: Path, image: np.ndarray, quality: int) -> None:
    """Write an image, uint8 RGB (H, W, 3)."""
    jpeg = Image.fromarray(image)
    with whole_file(path, "wb") as file:
        jpeg.save(file, format="JPEG", quality=quality)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 ids (H, W) or RGB (H, W, 3)."""
    png = Image.fromarray(pixels)
    with whole_file(path, "wb") as file:
        png.save(file, format="PNG")

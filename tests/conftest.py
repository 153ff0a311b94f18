"""What many tests share: a CIHP folder small enough to check by hand, and caches out of the way."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# The last bits of a convolution depend on the number of threads. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass
class CihpFolder:
    """Writes images and label maps into a folder in CIHP's layout."""

    root: Path
    split: str = "train"

    @property
    def folder(self) -> Path:
        return self.root / {"train": "Training", "val": "Validation", "test": "Testing"}[self.split]

    def add(
        self,
        image_id: str,
        category_map: np.ndarray,
        human_map: np.ndarray,
        image: np.ndarray | None = None,
        listed: bool = True,
    ) -> None:
        if image is None:
            image = np.zeros((*category_map.shape, 3), dtype=np.uint8)
        self.write("Images", f"{image_id}.png", image)
        self.write("Category_ids", f"{image_id}.png", category_map)
        self.write("Human_ids", f"{image_id}.png", human_map)
        if listed:
            with open(self.root / f"{self.split}_id.txt", "a", encoding="utf-8") as file:
                file.write(f"{image_id}\n")

    def write(self, subfolder: str, file_name: str, pixels: np.ndarray | Image.Image) -> Path:
        path = self.folder / subfolder / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(path)
        return path


# Two people side by side in a 4x6 image, numbered 1 and 4. The left one has a face (13), a left
# arm (14) and a right arm (15), the right one a left leg (16) and an ignored pixel.
CATEGORY_MAP = np.array(
    [
        [0, 13, 13, 0, 0, 0],
        [14, 13, 15, 0, 16, 16],
        [14, 13, 0, 0, 255, 16],
        [0, 0, 0, 0, 0, 0],
    ],
    dtype=np.uint8,
)
HUMAN_MAP = np.array(
    [
        [0, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 4, 4],
        [1, 1, 0, 0, 4, 4],
        [0, 0, 0, 0, 0, 0],
    ],
    dtype=np.uint8,
)


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """The user's cache of data set indices stays as it is, also in subprocesses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FVCORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def loggers_as_they_were():
    """A handler that a test has added would write to a stream that is closed after it."""
    before = {logger: list(logger.handlers) for logger in _loggers()}
    yield
    for logger in _loggers():
        for handler in list(logger.handlers):
            if handler not in before.get(logger, ()):
                logger.removeHandler(handler)


def _loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]


@pytest.fixture
def cihp_folder(tmp_path) -> CihpFolder:
    """An empty data set."""
    return CihpFolder(tmp_path / "cihp")


@pytest.fixture
def two_people(cihp_folder) -> CihpFolder:
    """A training split of the one image "0000001", whose pixels are all different."""
    height, width = CATEGORY_MAP.shape
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    cihp_folder.add("0000001", CATEGORY_MAP, HUMAN_MAP, image)
    return cihp_folder


@pytest.fixture
def category_map() -> np.ndarray:
    return CATEGORY_MAP.copy()


@pytest.fixture
def human_map() -> np.ndarray:
    return HUMAN_MAP.copy()

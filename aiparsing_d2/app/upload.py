"""A picture that somebody gave to the page, and what the page asks about it."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from aiparsing_d2.data.image_files import read_image, read_image_size
from aiparsing_d2.inference import ParsedImage, ParsingPredictor
from aiparsing_d2.inference.saving import save
from aiparsing_d2.whole_files import whole_file

if TYPE_CHECKING:
    from .clip import Clip

__all__ = ["Upload", "UploadParser", "UploadRefusedError"]

# The longest side of a drawing, in pixels: small pictures are drawn larger, with sharp lines, and
# large ones are not larger than a screen.
_DRAWING_SIDES = (1000, 2000)


class UploadRefusedError(ValueError):
    """Tells the person who gave a file what is wrong with it."""


@dataclass(frozen=True)
class Upload:
    """A parsed picture.

    Attributes:
        name: the file's name, without folders and suffix.
        found: everybody with at least the score ``threshold``, by descending score.
        threshold: what the picture was parsed with.
    """

    name: str
    found: ParsedImage
    threshold: float

    def people(self, threshold: float) -> ParsedImage:
        """Give the people with at least this score; who is ``people[i]`` does not depend on it."""
        number = int((self.found.instances.scores >= threshold).sum())
        return self._select(slice(number))

    def person(self, index: int) -> ParsedImage:
        """Give one person alone."""
        return self._select(slice(index, index + 1))

    def _select(self, people: slice) -> ParsedImage:
        return dataclasses.replace(self.found, instances=self.found.instances[people])

    @property
    def drawing_scale(self) -> float:
        """Size of the drawing relative to the picture."""
        side = max(self.found.image_size)
        smallest, largest = _DRAWING_SIDES
        return min(max(side, smallest), largest) / side

    def part_at(self, x: float, y: float, people: Sequence[int]) -> tuple[int, str] | None:
        """Find what is seen at a place of the drawing: of people who overlap, the higher score.

        Args:
            x, y: in pixels of the drawing.
            people: indices of those who are drawn, ascending.

        Returns:
            Index of the person and name of the part, or None for nobody.
        """
        column, row = (int(value / self.drawing_scale) for value in (x, y))
        for index in people:
            person = self.found[index]
            x0, y0, x1, y1 = person.window
            if x0 <= column < x1 and y0 <= row < y1:
                label = int(person.window_map[row - y0, column - x0])
                if label:
                    return index, self.found.part_labels.names[label]
        return None

    def save_drawing(self, shown: ParsedImage, folder: Path, *, labels: bool) -> Path:
        """Draw people over the picture, 1000 to 2000 pixels wide or high, as a PNG.

        Args:
            shown: who is drawn.
            folder: where to write.
            labels: whether to draw boxes and scores.
        """
        drawing = shown.plot(boxes=labels, scale=self.drawing_scale)
        return self._save_png(drawing, folder, "drawing")

    def save_data(self, shown: ParsedImage, folder: Path) -> list[Path]:
        """Write the JSON and the PNG of labels that ``aiparsing parse`` writes."""
        return save(shown, folder, self.name, ("json", "parts"))

    def save_part(self, index: int, part: str | None, folder: Path) -> list[Path]:
        """Write a part's mask (white on black, of the picture's size) and its cut-out, as PNGs.

        Args:
            index: of the person.
            part: its name; None is the whole person.
            folder: where to write.
        """
        person = self.found[index]
        name = f"person{index + 1}.{part or 'whole'}"
        mask = person.mask(part) * np.uint8(255)
        return [
            self._save_png(mask, folder, f"{name}.mask"),
            self._save_png(person.crop(part), folder, f"{name}.cutout"),
        ]

    def _save_png(self, pixels: np.ndarray, folder: Path, kind: str) -> Path:
        path = folder / f"{self.name}.{kind}.png"
        with whole_file(path, "wb") as file:
            Image.fromarray(pixels).save(file, "PNG", compress_level=3)
        return path


class UploadParser:
    """Parses what is uploaded: one picture at a time, and one clip beside it.

    Attributes:
        clips: the one that is parsed, and after it those that wait, in their order.
        max_megapixels: larger pictures and frames are refused.
        max_frames: at most so many of a clip are parsed.
    """

    def __init__(
        self, predictor: ParsingPredictor, max_megapixels: float = 50, max_frames: int = 300
    ):
        """
        Args:
            predictor: what parses; its threshold does not matter.
            max_megapixels: larger pictures and frames are refused.
            max_frames: at most so many of a clip are parsed.
        """
        self._predictor = predictor
        self._lock = Lock()
        self._clip_pool = ThreadPoolExecutor(1)
        self.clips: list[Clip] = []
        self.max_megapixels = max_megapixels
        self.max_frames = max_frames

    def parse(self, path: str | os.PathLike, threshold: float) -> Upload:
        """Parse a picture.

        Args:
            path: the file.
            threshold: lowest score of a person, in 0..1.

        Raises:
            UploadRefusedError: it is no picture, or a larger one than may be.
        """
        path = Path(path)
        try:
            self.check_size(path.name, *read_image_size(path))
            parsed = self._parse(read_image(path, "RGB"), threshold)
        except UploadRefusedError:
            raise
        except (OSError, ValueError) as error:  # a picture too thin to be resized, too
            raise UploadRefusedError(str(error).replace(str(path), path.name)) from error
        return Upload(path.stem, parsed, threshold)

    def check_size(self, name: str, height: int, width: int) -> None:
        """Refuse a picture or frame that is larger than may be.

        Raises:
            UploadRefusedError: it is.
        """
        if height * width > self.max_megapixels * 1e6:
            raise UploadRefusedError(
                f"{name} has {height * width / 1e6:.3g} megapixels; at most "
                f"{self.max_megapixels:g} are taken here: make it smaller"
            )

    def with_threshold(self, upload: Upload, threshold: float) -> Upload:
        """Give an upload that holds everybody down to a threshold; parses again where it must."""
        if threshold >= upload.threshold:
            return upload
        found = self._parse(upload.found.image, threshold)
        return Upload(upload.name, found, threshold)

    def in_line(self, clip: Clip, save: Callable[[Path], None], folder: Path) -> Future[None]:
        """Save the results of a clip in a folder, after those of the clips before it."""
        self.clips.append(clip)
        saving = self._clip_pool.submit(save, folder)
        saving.add_done_callback(lambda _: self.clips.remove(clip))
        return saving

    def predictor(self, threshold: float) -> ParsingPredictor:
        """Give a predictor with a threshold of its own, and the model that all share."""
        predictor = copy.copy(self._predictor)
        predictor.score_threshold = threshold
        return predictor

    def _parse(self, image: np.ndarray, threshold: float) -> ParsedImage:
        with self._lock:  # pictures may be large
            return self.predictor(threshold)(image, channel_order="RGB")

"""One person of a parsed picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch

from aiparsing_d2.data.coco_format import encode_rle
from aiparsing_d2.engine.config_error import nearest_known
from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import PartLabels

__all__ = ["ParsedPerson"]


@dataclass(frozen=True, eq=False)
class ParsedPerson:
    """A person and their parts, in pixels (H, W) of the picture.

    Methods that take a ``part`` are about that part, given by name or label, or, without one, about
    the whole person, which is the union of the parts.

    Attributes:
        box: float32 (4,), XYXY, ends exclusive.
        score: how sure the model is of the person and the parts, in 0..1.
        detection_score: how sure it is of the box, if it says so.
        parsing_score: the mIoU that it expects of the part map, if it predicts one.
        part_scores: float32 (C,), mean probability of each label over its pixels, if it gives them.
        part_maps: the map of this person alone, stored over its window.
        part_labels: the label set.
        image: uint8 (H, W, 3), RGB; None in a loaded result.
        track_id: who it is among the people of a video, from 1; None in a picture.
    """

    box: np.ndarray
    score: float
    detection_score: float | None
    parsing_score: float | None
    part_scores: np.ndarray | None = field(repr=False)
    part_maps: PartMaps = field(repr=False)
    part_labels: PartLabels = field(repr=False)
    image: np.ndarray | None = field(repr=False)
    track_id: int | None = None

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Where :attr:`window_map` lies: ``(x0, y0, x1, y1)``, ends exclusive."""
        return tuple(self.part_maps.windows[0].tolist())

    @property
    def window_map(self) -> np.ndarray:
        """Labels over the window only: uint8 (y1 - y0, x1 - x0). Not to be written to."""
        return self.part_maps.maps[0].numpy()

    @property
    def parts(self) -> list[str]:
        """Names of the parts that have a pixel, in the order of the labels."""
        return [self.part_labels.names[label] for label in np.unique(self.window_map) if label]

    def part_map(self) -> np.ndarray:
        """Label of every pixel of the picture: uint8 (H, W), 0 = not this person."""
        return self.part_maps.to_full()[0].numpy()

    def mask(self, part: str | int | None = None) -> np.ndarray:
        """Pixels of the picture that are the person's, or the part's: bool (H, W)."""
        return self._only(part).to_full()[0].numpy() != 0

    def area(self, part: str | int | None = None) -> int:
        """Count the pixels."""
        return int(self._only(part).maps[0].sum())

    def rle(self, part: str | int | None = None) -> dict[str, Any]:
        """COCO's compressed run lengths at the size of the picture; costs what the window does.

        Returns:
            "size" [H, W] and "counts", a string; JSON values.
        """
        codes = self._only(part).to_rle()[0]
        return codes[1] if codes else encode_rle(self.mask(part))

    def part_rles(self) -> dict[str, dict[str, Any]]:
        """:meth:`rle` of each of :attr:`parts`, by name."""
        return {
            self.part_labels.names[label]: code
            for label, code in self.part_maps.to_rle()[0].items()
        }

    def polygons(self, part: str | int | None = None) -> list[np.ndarray]:
        """Outlines of the connected regions, holes filled; costs what the window does.

        Returns:
            int32 (K, 2) each, the x and y of the outermost pixels, as OpenCV's functions take them:
            a line as wide as a pixel has K = 2, a single pixel K = 1.
        """
        mask = self._only(part).maps[0].numpy()
        if mask.size == 0:
            return []
        contours, _ = cv2.findContours(
            mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=self.window[:2]
        )
        return [contour[:, 0] for contour in contours]

    def crop(self, part: str | int | None = None) -> np.ndarray:
        """Cut the person, or a part, out of the picture.

        Returns:
            uint8 (h, w, 4), RGBA, the tight box of the pixels; others are transparent. (0, 0, 4) if
            there are none.

        Raises:
            ValueError: the result was loaded and has no image.
        """
        if self.image is None:
            raise ValueError("a loaded result has no image to cut from: set .image to its RGB")
        maps = self._only(part).to_cropped_maps().tightened()
        x0, y0, x1, y1 = maps.windows[0]
        return np.dstack([self.image[y0:y1, x0:x1], maps.maps[0] * np.uint8(255)])

    def _only(self, part: str | int | None) -> PartMaps:
        """Give the chosen pixels: label 1 over the person's window.

        Raises:
            ValueError: there is no such part.
        """
        part_map = self.part_maps.maps[0]
        chosen = part_map != 0 if part is None else part_map == self._label(part)
        return PartMaps([chosen.to(torch.uint8)], self.part_maps.windows, self.part_maps.image_size)

    def _label(self, part: str | int) -> int:
        names = self.part_labels.names
        label = names.index(part) if part in names else part
        if isinstance(label, (int, np.integer)) and 1 <= label < len(names):
            return int(label)
        hint = nearest_known(part, names[1:]) if isinstance(part, str) else f"1 to {len(names) - 1}"
        raise ValueError(f"there is no part {part!r}: {hint}")

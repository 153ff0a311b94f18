"""Label maps stored over windows of their image, as numpy arrays.

Needs neither torch nor Detectron2, so that the evaluation does not either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CroppedMaps", "check_cropped_maps"]


@dataclass(frozen=True)
class CroppedMaps:
    """Person maps stored over their windows only; outside its window a map is 0.

    What :class:`~aiparsing_d2.structures.PartMaps` are to torch. Whoever takes one together with
    an image calls :func:`check_cropped_maps`.

    Attributes:
        maps: N uint8 arrays, ``maps[i]`` of shape ``(y1 - y0, x1 - x0)`` of ``windows[i]``.
        windows: integer array (N, 4), ``(x0, y0, x1, y1)``, ends exclusive, inside the image.
    """

    maps: Sequence[np.ndarray]
    windows: np.ndarray

    def tightened(self) -> CroppedMaps:
        """Shrink every window to the non-zero pixels; without any it is empty, at the origin."""
        crops, windows = [], np.zeros((len(self.maps), 4), dtype=np.int64)
        for i, (crop, (x0, y0, _, _)) in enumerate(zip(self.maps, self.windows)):
            rows = np.flatnonzero(crop.any(axis=1))
            if len(rows) == 0:
                crops.append(crop[:0, :0])
                continue
            top, bottom = rows[0], rows[-1] + 1
            columns = np.flatnonzero(crop[top:bottom].any(axis=0))
            left, right = columns[0], columns[-1] + 1
            crops.append(crop[top:bottom, left:right])
            windows[i] = x0 + left, y0 + top, x0 + right, y0 + bottom
        return CroppedMaps(crops, windows)

    def to_full(self, image_size: tuple[int, int]) -> np.ndarray:
        """Paste every map into an image of zeros, ``(H, W)``; gives uint8 (N, H, W)."""
        full = np.zeros((len(self.maps), *image_size), dtype=np.uint8)
        for canvas, crop, (x0, y0, x1, y1) in zip(full, self.maps, self.windows):
            canvas[y0:y1, x0:x1] = crop
        return full


def check_cropped_maps(
    maps: Sequence[Any],
    windows: Sequence[Sequence[int]],
    image_size: tuple[int, int],
    name: str,
    dtype: Any = np.uint8,
) -> None:
    """Check that maps fit their windows, and the windows the image.

    Args:
        maps: N arrays or tensors.
        windows: N times ``(x0, y0, x1, y1)``, ends exclusive.
        image_size: ``(H, W)``.
        name: what messages call the maps.
        dtype: what uint8 is called where the maps come from.

    Raises:
        ValueError: there is not one window for each map, a map's dtype or shape is another, or a
            window leaves the image.
    """
    height, width = image_size
    if len(maps) != len(windows):
        raise ValueError(f"{name}: {len(maps)} maps but {len(windows)} windows")
    for i, (part_map, (x0, y0, x1, y1)) in enumerate(zip(maps, windows)):
        window = (int(x0), int(y0), int(x1), int(y1))
        shape = (y1 - y0, x1 - x0)
        if part_map.dtype != dtype or tuple(part_map.shape) != shape:
            raise ValueError(
                f"{name}: map {i} must be uint8 with shape ({shape[0]}, {shape[1]}) of its window "
                f"{window}, got {part_map.dtype} {tuple(part_map.shape)}"
            )
        if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
            raise ValueError(
                f"{name}: window {i} {window} leaves the {height} x {width} (height x width) image"
            )

"""From the camera frame of a figure to pixels."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Projection:
    """Orthographic projection of a figure.

    Attributes:
        origin: pixel position (x, y) of the camera frame's origin (the pelvis).
        scale: pixels per body unit.
    """

    origin: tuple[float, float]
    scale: float

    def to_canvas(self, points: np.ndarray) -> np.ndarray:
        """Pixel positions (..., 2) of points (..., 3) of the camera frame."""
        return self.origin + points[..., :2] * np.array((self.scale, -self.scale))

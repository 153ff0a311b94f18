"""Body landmarks of the photographs of CCP that have pixel labels.

``landmarks.npz`` was computed from the photographs with MediaPipe Pose (Apache-2.0) and holds, for
the photographs 0001 to 1004 in this order, 33 landmarks each in MediaPipe's order:

* ``quarter_pixels``: uint16 (1004, 33, 2), x and y in quarters of a pixel of the photograph;
* ``visibility``: uint8 (1004, 33), 0 .. 255 for 0 .. 1. Hidden landmarks are MediaPipe's guess.

Left and right are the person's. No file of CCP is in it.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

__all__ = ["NUM_PHOTOGRAPHS", "Landmark", "photograph_landmarks"]

NUM_PHOTOGRAPHS = 1004
"""How many photographs of CCP have pixel labels, and so landmarks; their numbers start from 1."""


class Landmark:
    """Indices of landmarks; (left, right) where there are two."""

    EYES = (2, 5)
    EARS = (7, 8)
    MOUTH = (9, 10)
    SHOULDERS = (11, 12)
    ELBOWS = (13, 14)
    WRISTS = (15, 16)
    LITTLE_FINGERS = (17, 18)
    INDEX_FINGERS = (19, 20)
    HIPS = (23, 24)
    KNEES = (25, 26)
    ANKLES = (27, 28)
    HEELS = (29, 30)
    TOES = (31, 32)


def photograph_landmarks(number: int) -> np.ndarray:
    """Landmarks of a photograph.

    Args:
        number: 1 .. 1004, as in its file name.

    Returns:
        float64 (33, 2), x and y in pixels of the photograph.
    """
    if not 1 <= number <= NUM_PHOTOGRAPHS:
        raise ValueError(f"There are landmarks of photographs 1..{NUM_PHOTOGRAPHS}, not {number}.")
    return _quarter_pixels()[number - 1] / 4


@functools.cache
def _quarter_pixels() -> np.ndarray:
    with np.load(Path(__file__).with_name("landmarks.npz")) as arrays:
        return arrays["quarter_pixels"]

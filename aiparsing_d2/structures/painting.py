"""People painted over each other into one picture, from which their visible parts are read.

Needs only numpy.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .cropped_maps import CroppedMaps

__all__ = ["PERSON", "paint_by_score", "paint_people", "visible_labels", "visible_people"]

PERSON = 256
"""A pixel of a picture is ``PERSON * person + label``, 0 where there is nobody."""


def paint_people(
    maps: CroppedMaps,
    people: Iterable[int],
    image_size: tuple[int, int],
    above: np.ndarray | None = None,
) -> np.ndarray:
    """Paint person maps wherever they are not 0, each below those before it.

    Args:
        people: indices of the people to paint, the uppermost first.
        above: a picture of other people of ``maps``, which hide these.

    Returns:
        Unsigned (H, W), the picture.
    """
    if above is None:
        picture = np.zeros(image_size, dtype=np.min_scalar_type(PERSON * (len(maps.maps) + 1)))
    else:
        picture = above.copy()
    number = picture.dtype.type
    for n in people:
        crop, (x0, y0, x1, y1) = maps.maps[n], maps.windows[n]
        canvas = picture[y0:y1, x0:x1]
        pixels = (crop > 0) * number(PERSON * n)
        pixels += crop
        pixels *= canvas == 0
        canvas += pixels
    return picture


def paint_by_score(
    maps: CroppedMaps,
    scores: np.ndarray,
    thresholds: Iterable[float],
    image_size: tuple[int, int],
) -> dict[float, np.ndarray]:
    """Paint the people whose scores reach a threshold, the highest score on top.

    Returns:
        The picture for every threshold.
    """
    descending = np.argsort(scores, kind="stable")[::-1]  # of equal scores the last is on top
    pictures, picture, num_painted = {}, None, 0
    for threshold in sorted(thresholds, reverse=True):
        # Those below a threshold are hidden by those above it: they are added to their picture.
        num_reaching = np.count_nonzero(scores >= threshold)
        picture = paint_people(maps, descending[num_painted:num_reaching], image_size, picture)
        pictures[threshold], num_painted = picture, num_reaching
    return pictures


def visible_labels(picture: np.ndarray) -> np.ndarray:
    """Read the label of every pixel of a picture: uint8 (H, W)."""
    return picture.astype(np.uint8)  # keeps the low byte


def visible_people(picture: np.ndarray) -> np.ndarray:
    """Read who is seen at every pixel of a picture: uint16 (H, W), 0 = nobody, n + 1 = person n."""
    return (picture // PERSON + (picture > 0)).astype(np.uint16, copy=False)

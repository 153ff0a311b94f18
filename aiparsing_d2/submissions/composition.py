"""Pictures of all people at once, which is what the challenges' formats hold.

People are painted over each other by ascending score (on a tie the later one ends on top), wherever
their maps are not 0; so much of each as is visible then remains.

They are painted once, and one look at the picture's runs (of equal pixels along a row) gives the
rest: there are far fewer runs than pixels, so the maps are looked up by run.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from aiparsing_d2.evaluation.image_inputs import PartRegions, Prediction
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.structures.cropped_maps import CroppedMaps
from aiparsing_d2.structures.painting import PERSON

from .submission import checked_person_maps

__all__ = ["Composition", "compose"]


@dataclass(frozen=True)
class Composition:
    """What the challenges' formats hold of one image.

    Attributes:
        category_map: uint8 (H, W), class of every pixel.
        part_regions: the visible part regions.
        person_map: unsigned (H, W), 0 = nobody, k = person ``visible[k - 1]``.
        visible: int64 (K,) indices of the people with at least one visible pixel, ascending.
    """

    category_map: np.ndarray
    part_regions: PartRegions
    person_map: np.ndarray
    visible: np.ndarray


def compose(
    prediction: Prediction,
    image_size: tuple[int, int],
    num_classes: int,
    thresholds: ScoreThresholds,
    person_threshold: float,
) -> Composition:
    """Compose the pictures of one image.

    Args:
        prediction: its category map and part regions, where given, are taken as they are.
        image_size: ``(H, W)``.
        num_classes: C.
        thresholds: people with lower scores are not painted into the category map or left out of
            the part regions.
        person_threshold: people with lower scores are left out of the person map.

    Raises:
        ValueError: see :func:`~.submission.checked_person_maps`.
    """
    maps = checked_person_maps(prediction, image_size, num_classes)
    scores = np.asarray(prediction.scores, dtype=np.float64)
    window, picture = _paint(
        maps, scores, min(thresholds.semantic, thresholds.part_regions, person_threshold)
    )
    runs = _Runs(picture)
    present = runs.present(PERSON * len(scores))  # of every value of the picture, if it is there
    values = np.flatnonzero(present)
    people, labels = values // PERSON, values % PERSON

    def spread(table: np.ndarray) -> np.ndarray:
        """Look up, over the whole image, what a table says of ``values``."""
        of_value = np.zeros(len(present), dtype=table.dtype)
        of_value[values] = table
        filled = runs.filled(of_value)
        if filled.shape == tuple(image_size):
            return filled
        image = np.zeros(image_size, dtype=table.dtype)
        image[window] = filled
        return image

    # Whoever hides others has at least their score: of the people above a threshold, those are
    # visible that are so among all.
    category_map = prediction.category_map
    if category_map is None:
        category_map = spread(_where(scores[people] >= thresholds.semantic, labels, 255))
    if prediction.part_regions is None:
        shown = scores[people] >= thresholds.part_regions
        part_regions = PartRegions(
            spread(_numbers(shown)),
            labels[shown],
            _part_scores(prediction, people[shown], labels[shown]),
        )
    else:
        part_regions = _without_empty(prediction.part_regions)
    visible = np.unique(people[scores[people] >= person_threshold])
    numbers = np.zeros(len(scores), dtype=np.int64)
    numbers[visible] = np.arange(1, len(visible) + 1)
    person_map = spread(_where(True, numbers[people], len(visible)))
    return Composition(category_map, part_regions, person_map, visible)


class _Runs:
    """Runs of equal pixels in the row-major order of a map."""

    def __init__(self, values: np.ndarray):
        """
        Args:
            values: integer (H, W), not negative.
        """
        pixels = values.ravel()
        changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
        starts = np.concatenate([[0], changes])[: pixels.size]  # none in an empty map
        self._shape = values.shape
        self._lengths = np.diff(starts, append=pixels.size)
        self._values = pixels[starts]

    def present(self, count: int) -> np.ndarray:
        """Whether each of the values 0..count-1 occurs, but for 0: bool (count,)."""
        present = np.zeros(max(count, 1), dtype=bool)
        present[self._values] = True
        present[0] = False
        return present

    def filled(self, table: np.ndarray) -> np.ndarray:
        """Give the map (H, W) of what a table says of every value."""
        return np.repeat(table[self._values], self._lengths).reshape(self._shape)


def _paint(
    maps: CroppedMaps, scores: np.ndarray, threshold: float
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Paint the people from a score on, over the window that holds them all.

    Returns:
        The window, as an index into the image, and the picture: ``PERSON * person + label``, 0
        where there is nobody.
    """
    people = [n for n in np.argsort(scores, kind="stable") if scores[n] >= threshold]
    people = [n for n in people if maps.maps[n].size]
    if not people:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), dtype=np.uint8)
    windows = maps.windows[people].tolist()
    left, top = (min(window[side] for window in windows) for side in (0, 1))
    right, bottom = (max(window[side] for window in windows) for side in (2, 3))
    # OpenCV knows no uint32.
    dtype = np.uint16 if PERSON * len(scores) <= 1 << 16 else np.int32
    picture = np.zeros((bottom - top, right - left), dtype=dtype)
    for n, (x0, y0, x1, y1) in zip(people, windows):
        crop = maps.maps[n]
        pixels = np.add(crop, dtype(PERSON * n), dtype=dtype)
        canvas = picture[y0 - top : y1 - top, x0 - left : x1 - left]
        cv2.copyTo(pixels, crop, canvas)
    return (slice(top, bottom), slice(left, right)), picture


def _where(condition: np.ndarray | bool, values: np.ndarray, highest: int) -> np.ndarray:
    """Give the values, 0 where the condition is not met, in the smallest unsigned type."""
    return np.where(condition, values, 0).astype(np.min_scalar_type(highest))


def _numbers(chosen: np.ndarray) -> np.ndarray:
    """Give the chosen ones the numbers 1, 2, ..., the others 0."""
    return _where(chosen, np.cumsum(chosen), int(np.count_nonzero(chosen)))


def _part_scores(prediction: Prediction, people: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Scores of the part regions of these people and classes."""
    if prediction.part_scores is None:
        return np.asarray(prediction.scores)[people]
    return np.asarray(prediction.part_scores)[people, classes - 1]


def _without_empty(regions: PartRegions) -> PartRegions:
    """Return the regions that have pixels."""
    runs = _Runs(np.asarray(regions.region_map))
    present = runs.present(len(regions.classes) + 1)
    return PartRegions(
        runs.filled(_numbers(present)),
        np.asarray(regions.classes)[present[1:]],
        np.asarray(regions.scores)[present[1:]],
    )

"""Pictures of all people at once, which is what the challenges' formats hold.

People are painted over each other by ascending score (on a tie the later one ends on top), wherever
their maps are not 0; so much of each as is visible then remains.

A masked copy of a crop is so fast that every map is painted on its own. Which part regions there
are, one look at a picture's runs (of equal pixels along a row) tells: there are far fewer runs than
pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import cv2
import numpy as np

from aiparsing_d2.evaluation.image_inputs import PartRegions, Prediction
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.structures.painting import PERSON

from .submission import checked_person_maps

__all__ = ["Composition"]


class Composition:
    """What the challenges' formats hold of one image; each map is made when it is first asked for.

    People of whom a map has no pixel are not counted in it.
    """

    def __init__(
        self,
        prediction: Prediction,
        image_size: tuple[int, int],
        num_classes: int,
        thresholds: ScoreThresholds,
        person_threshold: float,
    ):
        """
        Args:
            prediction: its category map and part regions, where given, are taken as they are.
            image_size: ``(H, W)``.
            num_classes: C.
            thresholds: people with lower scores are not painted into the category map or left out
                of the part regions.
            person_threshold: people with lower scores are left out of the person map.

        Raises:
            ValueError: see :func:`~.submission.checked_person_maps`.
        """
        maps = checked_person_maps(prediction, image_size, num_classes)
        self._prediction = prediction
        self._image_size = tuple(image_size)
        self._thresholds = thresholds
        self._person_threshold = person_threshold
        self._visible_from: dict[float, tuple[np.ndarray, np.ndarray]] = {}
        self._crops = maps.maps
        self._windows = maps.windows.tolist()
        self._scores = np.asarray(prediction.scores, dtype=np.float64)
        order = self._scores.argsort(kind="stable").tolist()
        self._order = [n for n in order if self._crops[n].size]

    @cached_property
    def category_map(self) -> np.ndarray:
        """uint8 (H, W), class of every pixel."""
        if self._prediction.category_map is not None:
            return self._prediction.category_map
        return self._paint_labels(self._thresholds.semantic)

    @cached_property
    def part_regions(self) -> PartRegions:
        """The visible part regions."""
        if self._prediction.part_regions is not None:
            return _without_empty(self._prediction.part_regions)
        threshold = self._thresholds.part_regions
        visible, person_map = self._visible_people(threshold)
        window = self._common_window(visible)
        numbers, pairs = _number_pairs(person_map[window], self._paint_labels(threshold)[window])
        region_map = np.zeros(self._image_size, dtype=numbers.dtype)
        region_map[window] = numbers
        people, labels = visible[pairs // PERSON - 1], pairs % PERSON
        return PartRegions(region_map, labels, _part_scores(self._prediction, people, labels))

    @property
    def visible(self) -> np.ndarray:
        """int64 (K,) indices of the people with at least one visible pixel, ascending."""
        return self._visible_people(self._person_threshold)[0]

    @property
    def person_map(self) -> np.ndarray:
        """Unsigned (H, W), 0 = nobody, k = person ``visible[k - 1]``."""
        return self._visible_people(self._person_threshold)[1]

    def _visible_people(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Who of the people from a score on is visible, ascending, and a map of their numbers."""
        if threshold not in self._visible_from:
            people = sorted(self._above(threshold))
            numbers = self._paint_numbers(people)
            visible = [n for k, n in enumerate(people, 1) if _occurs(k, self._cut(numbers, n))]
            if len(visible) < len(people):
                numbers = self._paint_numbers(visible)
            self._visible_from[threshold] = np.array(visible, dtype=np.int64), numbers
        return self._visible_from[threshold]

    def _above(self, threshold: float) -> list[int]:
        """People from a score on, the uppermost last."""
        return [n for n in self._order if self._scores[n] >= threshold]

    def _paint_labels(self, threshold: float) -> np.ndarray:
        return self._paint(self._above(threshold), np.dtype(np.uint8), lambda n: self._crops[n])

    def _paint_numbers(self, people: list[int]) -> np.ndarray:
        """Paint people with their places in this list, from 1."""
        dtype = np.min_scalar_type(len(people))
        numbers = {n: dtype.type(k) for k, n in enumerate(people, start=1)}
        order = [n for n in self._order if n in numbers]
        return self._paint(order, dtype, lambda n: np.full(self._crops[n].shape, numbers[n]))

    def _paint(
        self, people: list[int], dtype: np.dtype, pixels: Callable[[int], np.ndarray]
    ) -> np.ndarray:
        """Paint people over each other.

        Args:
            people: whom, the uppermost last.
            pixels: gives what to paint of a person, over their window.

        Returns:
            (H, W), 0 where there is nobody.
        """
        picture = np.zeros(self._image_size, dtype)
        for n in people:
            cv2.copyTo(pixels(n), self._crops[n], self._cut(picture, n))
        return picture

    def _common_window(self, people: Sequence[int]) -> tuple[slice, slice]:
        """Window that holds these people, as an index into the image."""
        windows = [self._windows[n] for n in people] or [(0, 0, 0, 0)]
        x0, y0, x1, y1 = zip(*windows)
        return slice(min(y0), max(y1)), slice(min(x0), max(x1))

    def _cut(self, picture: np.ndarray, person: int) -> np.ndarray:
        """View of a person's window."""
        x0, y0, x1, y1 = self._windows[person]
        return picture[y0:y1, x0:x1]


def _part_scores(prediction: Prediction, people: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Scores of the part regions of these people and classes."""
    if prediction.part_scores is None:
        return np.asarray(prediction.scores)[people]
    return np.asarray(prediction.part_scores)[people, classes - 1]


def _without_empty(regions: PartRegions) -> PartRegions:
    """Return the regions that have pixels."""
    region_map = np.asarray(regions.region_map)
    pixels = region_map.ravel()
    bounds = _run_bounds(pixels)
    numbers, values = _numbered(pixels[bounds[:-1]])
    return PartRegions(
        numbers.repeat(np.diff(bounds)).reshape(region_map.shape),
        np.asarray(regions.classes)[values - 1],
        np.asarray(regions.scores)[values - 1],
    )


def _occurs(value: int, pixels: np.ndarray) -> bool:
    """Whether a map has a value; mostly a look at some rows tells."""
    return bool((pixels[::16] == value).any() or (pixels == value).any())


def _number_pairs(person_map: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give numbers to the part regions of a picture.

    Args:
        person_map: unsigned (H, W), number of the person at every pixel, 0 = nobody.
        labels: uint8 (H, W), label there, 0 where there is nobody.

    Returns:
        Unsigned (H, W), number of the region at every pixel from 1, 0 = none, and int64 (R,),
        ascending: ``PERSON * person + label`` of the regions.
    """
    people, parts = person_map.ravel(), labels.ravel()
    bounds = _run_bounds(people, parts)
    starts = bounds[:-1]
    numbers, values = _numbered(people[starts] * np.int64(PERSON) + parts[starts])
    return numbers.repeat(np.diff(bounds)).reshape(labels.shape), values


def _run_bounds(*rows: np.ndarray) -> np.ndarray:
    """int64 (runs + 1,), where the runs of pixels begin in which no row changes, and the end."""
    length = len(rows[0])
    if length == 0:
        return np.zeros(1, dtype=np.int64)
    changes = rows[0][1:] != rows[0][:-1]
    for pixels in rows[1:]:
        changes |= pixels[1:] != pixels[:-1]
    return np.concatenate([[0], np.flatnonzero(changes) + 1, [length]])


def _numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give numbers to the different values but 0, ascending, from 1.

    Args:
        values: integer (K,), not negative.

    Returns:
        Unsigned (K,), number of each, 0 for 0, and int64 (R,), the value of each number.
    """
    values = values.astype(np.int64)
    present = np.bincount(values, minlength=1)
    present[0] = 0
    different = np.flatnonzero(present)
    numbers = np.zeros(len(present), dtype=np.min_scalar_type(len(different)))
    numbers[different] = np.arange(1, len(different) + 1)
    return numbers[values], different

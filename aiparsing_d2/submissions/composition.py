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
from numpy.typing import DTypeLike

from aiparsing_d2.evaluation.image_inputs import PartRegions, Prediction
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.structures.painting import PERSON

from .submission import checked_person_maps

__all__ = ["Composition"]

# Temporary maps of a 12-megapixel picture would cost more time than what is done with them.
_PIXELS_AT_A_TIME = 1 << 18


class Composition:
    """What the challenges' formats hold of one image, each map made when it is first asked for."""

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
        # By the people who are painted: mostly all thresholds leave the same.
        self._labels_of: dict[tuple[int, ...], np.ndarray] = {}
        self._visible_among: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
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
        return self._labels(self._thresholds.semantic)

    @cached_property
    def part_regions(self) -> PartRegions:
        """The visible part regions."""
        if self._prediction.part_regions is not None:
            return _without_empty(self._prediction.part_regions)
        threshold = self._thresholds.part_regions
        visible, person_map = self._visible_people(threshold)
        region_map, pairs = _number_pairs(
            person_map, self._labels(threshold), self._common_window(visible.tolist())
        )
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
        painted = self._above(threshold)
        if painted not in self._visible_among:
            people = sorted(painted)
            numbers = self._paint_numbers(people)
            visible = [n for k, n in enumerate(people, 1) if _occurs(k, self._cut(numbers, n))]
            if len(visible) < len(people):
                numbers = self._paint_numbers(visible)
            self._visible_among[painted] = np.array(visible, dtype=np.int64), numbers
        return self._visible_among[painted]

    def _labels(self, threshold: float) -> np.ndarray:
        """Labels of the people from a score on."""
        people = self._above(threshold)
        if people not in self._labels_of:
            self._labels_of[people] = self._paint(people, np.uint8, self._crops.__getitem__)
        return self._labels_of[people]

    def _above(self, threshold: float) -> tuple[int, ...]:
        """People from a score on, the uppermost last."""
        return tuple(n for n in self._order if self._scores[n] >= threshold)

    def _paint_numbers(self, people: list[int]) -> np.ndarray:
        """Paint people with their places in this list, from 1."""
        dtype = np.min_scalar_type(len(people))
        numbers = {n: dtype.type(k) for k, n in enumerate(people, start=1)}
        order = [n for n in self._order if n in numbers]
        return self._paint(order, dtype, lambda n: np.full(self._crops[n].shape, numbers[n]))

    def _paint(
        self, people: Sequence[int], dtype: DTypeLike, pixels: Callable[[int], np.ndarray]
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


def _occurs(value: int, pixels: np.ndarray) -> bool:
    """Whether a map has a value; mostly a look at some rows tells."""
    return bool((pixels[::16] == value).any() or (pixels == value).any())


def _without_empty(regions: PartRegions) -> PartRegions:
    """Return the regions that have pixels."""
    region_map = np.asarray(regions.region_map)
    height, width = region_map.shape
    nobody = np.zeros(region_map.shape, dtype=np.uint8)
    everywhere = (slice(0, height), slice(0, width))
    numbers, present = _number_pairs(nobody, region_map, everywhere)
    return PartRegions(
        numbers,
        np.asarray(regions.classes)[present - 1],
        np.asarray(regions.scores)[present - 1],
    )


def _number_pairs(
    people: np.ndarray, labels: np.ndarray, window: tuple[slice, slice]
) -> tuple[np.ndarray, np.ndarray]:
    """Give numbers to the pairs of person and label that a picture has.

    Args:
        people: integer (H, W), number of the person at every pixel, 0 = nobody.
        labels: integer (H, W), label there, 0 where there is nobody.
        window: outside of it there is nobody.

    Returns:
        Unsigned (H, W), number of the pair at every pixel from 1, 0 = none, and int64 (R,),
        ascending: ``PERSON * person + label`` of the pairs.
    """
    rows, columns = window
    width = columns.stop - columns.start
    height = max(1, _PIXELS_AT_A_TIME // max(1, width))
    blocks = [
        (slice(y, min(y + height, rows.stop)), columns)
        for y in range(rows.start, rows.stop, height)
    ]
    runs = [_runs(people[block], labels[block]) for block in blocks]
    present = np.bincount(np.concatenate([[0], *(values for values, _ in runs)]))
    present[0] = 0
    pairs = np.flatnonzero(present)
    numbers = np.zeros(len(present), dtype=np.min_scalar_type(len(pairs)))
    numbers[pairs] = np.arange(1, len(pairs) + 1)
    picture = np.zeros(people.shape, dtype=numbers.dtype)
    for block, (values, lengths) in zip(blocks, runs):
        picture[block] = numbers[values].repeat(lengths).reshape(-1, width)
    return picture, pairs


def _runs(people: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the runs of equal pairs in row-major order.

    Returns:
        int64, of every run ``PERSON * person + label`` and its length.
    """
    people, labels = people.ravel(), labels.ravel()
    changes = people[1:] != people[:-1]
    changes |= labels[1:] != labels[:-1]
    bounds = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(people)]])
    starts = bounds[:-1]
    return people[starts] * np.int64(PERSON) + labels[starts], np.diff(bounds)

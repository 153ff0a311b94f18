"""Pictures of all people at once, which is what the challenges' formats hold.

People are painted over each other by ascending score (on a tie the later one ends on top), wherever
their maps are not 0; so much of each as is visible then remains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiparsing_d2.evaluation.image_inputs import PartRegions, Prediction
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds

from .submission import full_person_maps

__all__ = ["Composition", "compose"]


@dataclass(frozen=True)
class Composition:
    """What the challenges' formats hold of one image.

    Attributes:
        category_map: uint8 (H, W), class of every pixel.
        part_regions: the visible part regions.
        person_map: int64 (H, W), 0 = nobody, k = person ``visible[k - 1]``.
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
        ValueError: see :func:`~.submission.full_person_maps`.
    """
    maps = full_person_maps(prediction, image_size, num_classes)
    scores = np.asarray(prediction.scores)
    category_map, part_regions = prediction.category_map, prediction.part_regions
    if category_map is None:
        category_map = _visible_labels(maps, _owners(maps, scores, thresholds.semantic))
    if part_regions is None:
        owners = _owners(maps, scores, thresholds.part_regions)
        part_regions = _part_regions(owners, _visible_labels(maps, owners), prediction, num_classes)
    else:
        part_regions = _without_empty(part_regions)
    person_map, people = _renumber(_owners(maps, scores, person_threshold))
    return Composition(category_map, part_regions, person_map, people - 1)


def _owners(maps: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Who is visible at every pixel: int64 (H, W), 0 = nobody, n + 1 = person n."""
    owners = np.zeros(maps.shape[1:], dtype=np.int64)
    for n in np.argsort(scores, kind="stable"):
        if scores[n] >= threshold:
            owners[maps[n] > 0] = n + 1
    return owners


def _visible_labels(maps: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Label of the visible person at every pixel: uint8 (H, W)."""
    nobody = np.zeros((1, *owners.shape), dtype=np.uint8)
    return np.take_along_axis(np.concatenate([nobody, maps]), owners[None], axis=0)[0]


def _part_regions(
    owners: np.ndarray, labels: np.ndarray, prediction: Prediction, num_classes: int
) -> PartRegions:
    """One region for every visible part of every person, by person, then by part."""
    region_map, regions = _renumber(np.where(owners > 0, owners * num_classes + labels, 0))
    people, classes = regions // num_classes - 1, regions % num_classes
    if prediction.part_scores is None:
        scores = np.asarray(prediction.scores)[people]
    else:
        scores = np.asarray(prediction.part_scores)[people, classes - 1]
    return PartRegions(region_map, classes, scores)


def _without_empty(regions: PartRegions) -> PartRegions:
    """Return the regions that have pixels."""
    region_map, numbers = _renumber(np.asarray(regions.region_map))
    return PartRegions(
        region_map,
        np.asarray(regions.classes)[numbers - 1],
        np.asarray(regions.scores)[numbers - 1],
    )


def _renumber(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace the positive values of a map by 1, 2, ..., in ascending order.

    Returns:
        The new map, and the old value of 1, 2, ... (K,).
    """
    old = np.unique(values)
    old = old[old > 0]
    return np.where(values > 0, np.searchsorted(old, values) + 1, 0), old

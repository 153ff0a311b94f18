"""Counting one image: what the metrics of human parsing need of it, and nothing of its size.

:mod:`~aiparsing_d2.evaluation.image_inputs` fixes the terms used here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from aiparsing_d2.structures.cropped_maps import CroppedMaps
from aiparsing_d2.structures.painting import paint_by_score, paint_people, visible_labels

from .image_inputs import (
    GroundTruth,
    PartRegions,
    Prediction,
    check_ground_truth,
    check_prediction,
)
from .part_region_matching import match_part_regions, regions_of_people
from .person_matching import label_areas, match_people
from .pixel_counts import count_pixels


@dataclass(frozen=True)
class ScoreThresholds:
    """Lowest person score with which a prediction takes part in a metric.

    Attributes:
        matching: AP^p and PCP.
        semantic: mIoU, pixel and mean accuracy; without effect on a predicted category map.
        part_regions: AP^r; without effect on predicted :class:`PartRegions`.
    """

    matching: float = 0.001
    semantic: float = 0.3
    part_regions: float = 0.01


@dataclass(frozen=True)
class ImageStatistics:
    """Everything the metrics need of one image besides its confusion matrix.

    The size of this record does not depend on the number of pixels.

    K is the number of predictions whose score reaches ``ScoreThresholds.matching``, R the number of
    predicted part regions.

    Attributes:
        gt_part_counts: int64 (P,), number of different parts of each ground-truth person.
        scores: float64 (K,) person scores, in the order of the predictions.
        best_gt: int64 (K,) ground-truth person with the highest mIoU (the first of several), -1
            without ground truth.
        best_miou: float64 (K,) that mIoU.
        parts_above: int64 (K, T) parts whose IoU with ``best_gt`` is above each threshold.
        gt_region_counts: int64 (C,) ground-truth part regions of each class.
        region_classes: int64 (R,), in the order in which the people are painted, or of the given
            regions.
        region_scores: float64 (R,).
        region_best_gt: int64 (R,) ground-truth person whose region of that class overlaps best
            (the first of several); of no meaning where the IoU is 0.
        region_best_iou: float64 (R,) that IoU.
        gt_boxes: float64 (P, 4) XYXY.
        boxes: float64 (N, 4) XYXY, or None.
        box_scores: float64 (N,).
    """

    gt_part_counts: np.ndarray
    scores: np.ndarray
    best_gt: np.ndarray
    best_miou: np.ndarray
    parts_above: np.ndarray
    gt_region_counts: np.ndarray
    region_classes: np.ndarray
    region_scores: np.ndarray
    region_best_gt: np.ndarray
    region_best_iou: np.ndarray
    gt_boxes: np.ndarray
    boxes: np.ndarray | None
    box_scores: np.ndarray


def measure_image(
    ground_truth: GroundTruth,
    prediction: Prediction,
    num_classes: int,
    thresholds: ScoreThresholds,
    part_regions_skip_ignored: bool = False,
) -> tuple[ImageStatistics, np.ndarray]:
    """Count one image.

    Args:
        ground_truth: the image's ground truth.
        prediction: the system's output for it.
        num_classes: C.
        thresholds: lowest person scores of the metrics.
        part_regions_skip_ignored: see :class:`~aiparsing_d2.evaluation.ParsingMetrics`.

    Returns:
        The image's record, and its confusion matrix: int64 (C, C), pixels by ground-truth (row) and
        predicted (column) class.

    Raises:
        ValueError: an array's dtype, shape or values cannot be scored; the message names the
            array, not the image.
    """
    ground_truth = check_ground_truth(ground_truth)
    gt_maps = cast(CroppedMaps, ground_truth.person_maps)
    category_map = ground_truth.category_map
    image_size, num_gt = category_map.shape, len(gt_maps.maps)
    prediction = check_prediction(prediction, image_size, num_classes)
    maps, scores = cast(CroppedMaps, prediction.person_maps), prediction.scores
    shown, part_regions, region_labels = _pictures_to_score(prediction, thresholds, image_size)

    gt_areas = label_areas(gt_maps, num_classes, image_size)
    candidates = np.flatnonzero(scores >= thresholds.matching)
    matches = match_people(
        gt_maps,
        gt_areas,
        CroppedMaps([maps.maps[n] for n in candidates.tolist()], maps.windows[candidates]),
        num_classes,
        image_size,
    )
    regions = match_part_regions(
        paint_people(gt_maps, range(num_gt - 1, -1, -1), image_size),
        num_gt,
        part_regions,
        region_labels,
        category_map,
        num_classes,
        part_regions_skip_ignored,
        painting_order=None if prediction.part_regions else np.argsort(scores, kind="stable"),
    )
    statistics = ImageStatistics(
        gt_part_counts=np.count_nonzero(gt_areas[:, 1:num_classes], axis=1),
        scores=scores[candidates],
        **matches,
        **regions,
        gt_boxes=ground_truth.boxes,
        boxes=prediction.boxes,
        box_scores=prediction.box_scores,
    )
    return statistics, _confusion_matrix(category_map, shown, num_classes)


def _pictures_to_score(
    prediction: Prediction, thresholds: ScoreThresholds, image_size: tuple[int, int]
) -> tuple[np.ndarray, PartRegions, np.ndarray]:
    """Return what mIoU and AP^r are computed on: given by the prediction, or painted from its
    people.

    Args:
        prediction: a checked one.

    Returns:
        Category map, uint8 (H, W), part regions and their classes at every pixel, uint8 (H, W).
    """
    shown, regions = prediction.category_map, prediction.part_regions
    if regions is not None:
        region_labels = np.insert(regions.classes, 0, 0).astype(np.uint8)[regions.region_map]
    if shown is not None and regions is not None:
        return shown, regions, region_labels

    pictures = paint_by_score(
        cast(CroppedMaps, prediction.person_maps),
        prediction.scores,
        (thresholds.semantic, thresholds.part_regions),
        image_size,
    )
    if shown is None:
        shown = visible_labels(pictures[thresholds.semantic])
    if regions is None:
        regions = regions_of_people(pictures[thresholds.part_regions], prediction.part_scores)
        region_labels = visible_labels(pictures[thresholds.part_regions])
    return shown, regions, region_labels


def _confusion_matrix(category_map: np.ndarray, shown: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels by ground-truth (row) and predicted (column) class: int64 (C, C)."""
    codes = np.minimum(category_map, num_classes).astype(np.uint16)
    codes *= num_classes  # at most 255 * 255
    codes += shown
    counts = count_pixels(codes, (num_classes + 1) * num_classes)
    return counts.reshape(num_classes + 1, num_classes)[:num_classes]

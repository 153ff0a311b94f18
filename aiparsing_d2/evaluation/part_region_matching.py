"""Counting for AP^r: which part region of the ground truth each predicted one fits best."""

from __future__ import annotations

import numpy as np

from aiparsing_d2.structures.painting import PERSON, visible_labels

from .image_inputs import PartRegions
from .pixel_counts import count_pixels


def regions_of_people(picture: np.ndarray, part_scores: np.ndarray) -> PartRegions:
    """Read the part regions off a picture, numbered by its values: by person, then by part.

    Args:
        picture: of people, see :data:`~.painting.PERSON`.
        part_scores: float64 (N, C-1).
    """
    num_people, num_parts = part_scores.shape
    scores = np.zeros((num_people, PERSON))
    scores[:, 1 : num_parts + 1] = part_scores
    classes = np.arange(num_people * PERSON) % PERSON
    return PartRegions(picture, classes[1:], scores.ravel()[1:])


def match_part_regions(
    gt_picture: np.ndarray,
    num_gt: int,
    regions: PartRegions,
    labels: np.ndarray,
    category_map: np.ndarray,
    num_classes: int,
    skip_ignored: bool = False,
    painting_order: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Find the best ground-truth region for every predicted part region.

    Args:
        gt_picture: the painted ground truth, from :func:`~.painting.paint_people`.
        num_gt: P.
        regions: predicted regions; those without a pixel that counts are left out.
        labels: uint8 (H, W), class of the region at every pixel, 0 where there is none.
        category_map: uint8 (H, W), >= C where the pixel is ignored.
        num_classes: C.
        skip_ignored: leave ignored pixels out of predicted regions. Otherwise they are background:
            in no ground-truth region, but in the union.
        painting_order: int (N,), the people of whom ``regions`` were read, the lowermost first: as
            the published evaluators list them, which decides between equal scores. None: the
            regions keep their order.

    Returns:
        The fields ``gt_region_counts`` and ``region_*`` of
        :class:`~.image_statistics.ImageStatistics`.
    """
    gt_labels, region_map = visible_labels(gt_picture), regions.region_map
    ignored = np.maximum(category_map, gt_labels) >= num_classes
    if ignored.any():
        gt_picture = np.where(ignored, 0, gt_picture)
        gt_labels = np.where(ignored, 0, gt_labels)
        if skip_ignored:
            region_map = np.where(ignored, 0, region_map)

    gt_areas = count_pixels(gt_picture, max(num_gt, 1) * PERSON)
    gt_areas = gt_areas.reshape(-1, PERSON)[:num_gt, :num_classes]
    gt_areas[:, 0] = 0
    # Class and area of every value of the region map.
    classes = np.insert(regions.classes, 0, 0)
    areas = count_pixels(region_map, len(classes))
    same = (labels == gt_labels) & (gt_labels > 0)
    pairs = region_map[same].astype(np.int64) * num_gt + gt_picture[same] // PERSON
    common = np.bincount(pairs, minlength=len(classes) * num_gt).reshape(len(classes), num_gt)

    visible = 1 + np.flatnonzero(areas[1:])
    if painting_order is not None:
        height = np.argsort(painting_order)  # of each person
        visible = visible[np.argsort(height[visible // PERSON], kind="stable")]
    common = common[visible]
    union = areas[visible, None] + gt_areas[:, classes[visible]].T - common
    ious = common / union
    return {
        "gt_region_counts": np.count_nonzero(gt_areas, axis=0),
        "region_classes": classes[visible],
        "region_scores": regions.scores[visible - 1],
        "region_best_gt": ious.argmax(axis=1) if num_gt else np.full(len(visible), -1),
        "region_best_iou": ious.max(axis=1, initial=0.0),
    }

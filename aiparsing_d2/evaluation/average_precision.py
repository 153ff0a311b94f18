"""Average precision of ranked predictions, and COCO's for boxes; thresholds and exact means."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable

import numpy as np

IOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds of AP^p, PCP and AP^r. A match needs an IoU strictly above the threshold."""


def exact_mean(values: np.ndarray) -> float:
    """Take the mean of the values that are not NaN, NaN if there are none.

    The sum is rounded once, so that the order of the values (of classes, say) cannot push a mean
    that equals a threshold to either side of it.
    """
    values = values[~np.isnan(values)]
    return math.fsum(values) / len(values) if len(values) else math.nan


def average_precision(hits: np.ndarray, num_positives: int) -> float:
    """Compute the all-point area under the precision-recall curve, with precision made monotone.

    Args:
        hits: bool (N,), whether each prediction is a true positive, best score first.
        num_positives: number of ground-truth objects.

    Returns:
        The area as a fraction; 0 without predictions, NaN without ground truth. Above 1 if several
        hits share one ground-truth object.
    """
    if num_positives == 0:
        return math.nan
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # Recall rises by 1 / num_positives at every hit and nowhere else.
    return math.fsum(envelope[hits]) / num_positives


def first_claims(targets: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """Let every target be claimed once, by the first eligible claimant.

    Args:
        targets: int (N,), the target each claimant names, in the order of claiming.
        eligible: bool (N,).

    Returns:
        bool (N,), True for the claimants that got their target.
    """
    claimants = np.flatnonzero(eligible)
    _, first = np.unique(targets[claimants], return_index=True)
    claims = np.zeros(len(targets), dtype=bool)
    claims[claimants[first]] = True
    return claims


def box_average_precision(
    images: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> dict[str, float]:
    """Compute COCO's box AP for a single class, by pycocotools.

    Args:
        images: per image the ground-truth boxes (P, 4), the predicted boxes (N, 4), both XYXY in
            pixels with exclusive ends, and the scores (N,).

    Returns:
        ``AP`` (mean over IoU .5:.05:.95), ``AP50`` and ``AP75`` as fractions; NaN without ground
        truth.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ground_truth, detections = [], []
    num_images = 0
    for image_id, (gt_boxes, boxes, scores) in enumerate(images):
        num_images += 1
        for box in gt_boxes:
            ground_truth.append(_coco_box(image_id, len(ground_truth) + 1, box))
        for box, score in zip(boxes, scores):
            detections.append(_coco_box(image_id, len(detections) + 1, box) | {"score": score})

    def as_coco(annotations: list[dict]) -> COCO:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image_id} for image_id in range(num_images)],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": annotations,
        }
        coco.createIndex()
        return coco

    if not ground_truth:
        return {"AP": math.nan, "AP50": math.nan, "AP75": math.nan}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by printing
        evaluation = COCOeval(as_coco(ground_truth), as_coco(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(("AP", "AP50", "AP75"), evaluation.stats[:3].tolist()))


def _coco_box(image_id: int, annotation_id: int, box: np.ndarray) -> dict:
    x0, y0, x1, y1 = (float(side) for side in box)
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
    }

"""Counting for AP^p and PCP: which person of the ground truth each predicted one fits best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aiparsing_d2.structures.cropped_maps import CroppedMaps

from .average_precision import IOU_THRESHOLDS, exact_mean
from .pixel_counts import count_pixels


def match_people(
    gt_maps: CroppedMaps,
    gt_areas: np.ndarray,
    maps: CroppedMaps,
    num_classes: int,
    image_size: tuple[int, int],
) -> dict[str, np.ndarray]:
    """Find the best ground-truth person for every predicted one, over whole person maps.

    Args:
        gt_maps, gt_areas: ground-truth persons and their :func:`label_areas`.
        maps: the K predicted persons to match.

    Returns:
        The fields ``best_gt``, ``best_miou`` and ``parts_above`` of
        :class:`~.image_statistics.ImageStatistics`.
    """
    num_gt, num_predictions = len(gt_maps.maps), len(maps.maps)
    if num_gt == 0:
        return {
            "best_gt": np.full(num_predictions, -1),
            "best_miou": np.zeros(num_predictions),
            "parts_above": np.zeros((num_predictions, len(IOU_THRESHOLDS)), dtype=np.int64),
        }
    areas = np.zeros((num_predictions, num_classes), dtype=np.int64)
    # Pixels that are class c in both maps; that are foreground in both; that are class c in the
    # prediction and ignored in the ground truth.
    common = np.zeros((num_predictions, num_gt, num_classes), dtype=np.int64)
    both_foreground = np.zeros((num_predictions, num_gt), dtype=np.int64)
    ignored = np.zeros_like(common)
    gt_foregrounds = [(gt_map > 0) & (gt_map < num_classes) for gt_map in gt_maps.maps]
    for k, (crop, window) in enumerate(zip(maps.maps, maps.windows.tolist())):
        foreground = crop > 0
        touching, equal = [], []
        for g, gt_window in enumerate(gt_maps.windows.tolist()):
            overlap = _overlap(window, gt_window)
            if overlap is None:
                continue
            inside, gt_inside = overlap
            labels, gt_labels = crop[inside], gt_maps.maps[g][gt_inside]
            both_foreground[k, g] = np.count_nonzero(
                foreground[inside] & gt_foregrounds[g][gt_inside]
            )
            if gt_areas[g, num_classes]:
                ignored_labels = labels[gt_labels >= num_classes]
                ignored[k, g] = np.bincount(ignored_labels, minlength=num_classes)
            touching.append(g)
            equal.append((inside, labels == gt_labels))
        areas[k], common[k, touching] = _count_equal(crop, equal, num_classes)

    # Background outside the windows was not counted above: it follows from the areas of the whole
    # maps.
    areas[:, 0] = image_size[0] * image_size[1] - areas[:, 1:].sum(axis=1)
    gt_valid_areas, gt_ignored_area = gt_areas[:, :num_classes], gt_areas[:, num_classes]
    ignored[:, :, 0] = gt_ignored_area - ignored[:, :, 1:].sum(axis=2)
    valid_areas = areas[:, None] - ignored
    common[:, :, 0] = gt_valid_areas[:, 0] - valid_areas[:, :, 1:].sum(axis=2) + both_foreground
    union = gt_valid_areas + valid_areas - common
    ious = np.divide(common, union, out=np.full(union.shape, np.nan), where=union > 0)

    miou = np.array([[exact_mean(pair) for pair in row] for row in ious]).reshape(-1, num_gt)
    miou = np.nan_to_num(miou, nan=0.0)  # every pixel of the person's image ignored
    best_gt = miou.argmax(axis=1)
    rows = np.arange(num_predictions)
    part_ious = ious[rows, best_gt, 1:]
    return {
        "best_gt": best_gt,
        "best_miou": miou[rows, best_gt],
        "parts_above": np.stack([(part_ious > t).sum(axis=1) for t in IOU_THRESHOLDS], axis=1),
    }


def _count_equal(
    crop: np.ndarray,
    equal: list[tuple[tuple[slice, slice], np.ndarray]],
    num_classes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Count a person's pixels of every label, and of those the ones that are equal in other people.

    Histograms are what costs time here, so eight people are compared by one: that of the label
    together with one bit for each of the eight, set where the labels are equal.

    Args:
        crop: uint8 (h, w), labels below C.
        equal: for each of M other people a part of the crop, and bool where they are equal in it.

    Returns:
        int64 (C,) and (M, C).
    """
    common = np.zeros((len(equal), num_classes), dtype=np.int64)
    for first in range(0, max(len(equal), 1), 8):
        group = equal[first : first + 8]
        codes = crop.astype(np.uint16)  # below C * 2**8, C <= 255
        for bit, (inside, mask) in enumerate(group):
            codes[inside] += mask * np.uint16(num_classes << bit)
        num_masks = 1 << len(group)
        counts = count_pixels(codes, num_masks * num_classes)
        counts = counts.reshape(num_masks, num_classes)
        has_bit = np.arange(num_masks) >> np.arange(len(group))[:, None] & 1
        common[first : first + 8] = has_bit @ counts
        areas = counts.sum(axis=0)
    return areas, common


def label_areas(maps: CroppedMaps, num_classes: int, image_size: tuple[int, int]) -> np.ndarray:
    """Count the pixels of every label of every whole map.

    Returns:
        int64 (N, C + 1); the last column counts all labels >= C.
    """
    areas = np.zeros((len(maps.maps), num_classes + 1), dtype=np.int64)
    for row, crop in zip(areas, maps.maps):
        counts = count_pixels(crop, 256)
        row[:num_classes] = counts[:num_classes]
        row[num_classes] = counts[num_classes:].sum()
        row[0] += image_size[0] * image_size[1] - crop.size
    return areas


def _overlap(
    a: Sequence[int], b: Sequence[int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Where two windows overlap, as indices into the crop of each; None if they do not."""
    x0, y0 = max(a[0], b[0]), max(a[1], b[1])
    x1, y1 = min(a[2], b[2]), min(a[3], b[3])
    if x0 >= x1 or y0 >= y1:
        return None
    inside_a, inside_b = (
        (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)) for left, top, _, _ in (a, b)
    )
    return inside_a, inside_b

"""Counting one image: what the metrics of human parsing need of it, and nothing of its size.

Naming convention:
    C: number of classes including background 0. P: ground-truth persons, N: predicted persons.
    T: number of IoU thresholds. H, W: height and width of the image in pixels.
    person map: uint8 label map of one person; 0 = not this person, ``1..C-1`` = part.
        Ground truth may hold labels >= C (255): such pixels are ignored.
    crop, window: part of a person map and its place ``(x0, y0, x1, y1)`` in the image, integer
        pixels, ends exclusive. Outside its window a map is 0.
    part region: the visible pixels of one part of one person. Where people overlap, the one
        painted last is visible.
    mIoU of a (ground-truth, predicted) pair: mean over classes, background included, of the IoU of
        the two whole person maps, over the classes that occur in either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

IOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds of AP^p, PCP and AP^r. A match needs an IoU strictly above the threshold."""


@dataclass(frozen=True)
class CroppedMaps:
    """Person maps stored over their windows only; counting them is faster than full-size maps.

    Attributes:
        maps: N uint8 arrays, ``maps[i]`` of shape ``(y1 - y0, x1 - x0)`` of ``windows[i]``.
        windows: integer array (N, 4), ``(x0, y0, x1, y1)``, ends exclusive, inside the image.
    """

    maps: Sequence[np.ndarray]
    windows: np.ndarray


@dataclass(frozen=True)
class ScoreThresholds:
    """Lowest person score with which a prediction takes part in a metric.

    Attributes:
        matching: AP^p and PCP.
        semantic: mIoU, pixel and mean accuracy.
        part_regions: AP^r.
    """

    matching: float = 0.001
    semantic: float = 0.3
    part_regions: float = 0.01


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of one image.

    Attributes:
        person_maps: uint8 (P, H, W) or :class:`CroppedMaps`.
        category_map: uint8 (H, W), class of every pixel, >= C where it is ignored.
        boxes: float (P, 4) XYXY in image pixels, ends exclusive (``xmax + 1``). None: the tight
            boxes of the non-zero pixels of ``person_maps``.
    """

    person_maps: np.ndarray | CroppedMaps
    category_map: np.ndarray
    boxes: np.ndarray | None = None


@dataclass(frozen=True)
class Prediction:
    """What a system found in one image.

    Attributes:
        person_maps: uint8 (N, H, W) or :class:`CroppedMaps`, labels below C.
        scores: (N,) person scores.
        part_scores: (N, C-1), score of part c of person n at ``[n, c - 1]``, ranks the part
            regions in AP^r. None: the person's score.
        boxes: (N, 4) XYXY in image pixels. None: this system has no boxes, box AP is left out.
        box_scores: (N,) scores for box AP. None: the person scores.
    """

    person_maps: np.ndarray | CroppedMaps
    scores: np.ndarray
    part_scores: np.ndarray | None = None
    boxes: np.ndarray | None = None
    box_scores: np.ndarray | None = None


@dataclass(frozen=True)
class ImageStatistics:
    """Everything kept of one image besides its confusion matrix, which is summed.

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
        region_classes: int64 (R,).
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
) -> tuple[ImageStatistics, np.ndarray]:
    """Counts one image.

    Args:
        ground_truth: the image's ground truth.
        prediction: the system's output for it.
        num_classes: C.
        thresholds: lowest person scores of the metrics.

    Returns:
        The image's record, and its confusion matrix: int64 (C, C), pixels by ground-truth (row) and
        predicted (column) class.

    Raises:
        ValueError: an array's dtype, shape or values cannot be scored; the message names the
            array, not the image.
    """
    category_map = _check_label_map(ground_truth.category_map, "ground-truth category map")
    image_size = category_map.shape
    gt_maps = _crop(ground_truth.person_maps, image_size, "ground-truth person maps")
    maps = _crop(prediction.person_maps, image_size, "predicted person maps")
    scores = _check_numbers(prediction.scores, (len(maps.maps),), "person scores")
    part_scores = prediction.part_scores
    if part_scores is None:
        part_scores = np.repeat(scores[:, None], num_classes - 1, axis=1)
    part_scores = _check_numbers(part_scores, (len(maps.maps), num_classes - 1), "part scores")
    boxes, gt_boxes = prediction.boxes, ground_truth.boxes
    if boxes is not None:
        boxes = _check_numbers(boxes, (len(maps.maps), 4), "predicted boxes")
    if gt_boxes is None:
        gt_boxes = _tighten(gt_maps).windows
    gt_boxes = _check_numbers(gt_boxes, (len(gt_maps.maps), 4), "ground-truth boxes")
    box_scores = scores if prediction.box_scores is None else prediction.box_scores
    box_scores = _check_numbers(box_scores, scores.shape, "box scores")

    areas = _label_areas(maps, num_classes, image_size)
    too_high = np.flatnonzero(areas[:, num_classes])
    if len(too_high):
        raise ValueError(
            f"predicted person map {too_high[0]} has the label "
            f"{maps.maps[too_high[0]].max()}, but there are {num_classes} classes (labels 0 to "
            f"{num_classes - 1}); only ground truth may hold labels to ignore"
        )
    gt_areas = _label_areas(gt_maps, num_classes, image_size)

    # People are painted by ascending score, so the one visible at a pixel has the highest score of
    # all there: one picture serves both thresholds, as hiding those below one uncovers nobody.
    lowest = min(thresholds.semantic, thresholds.part_regions)
    ascending = np.argsort(scores, kind="stable")
    owners, labels = _paint(maps, ascending[scores[ascending] >= lowest], image_size)
    gt_owners, gt_labels = _paint(gt_maps, range(len(gt_maps.maps)), image_size)
    categories = np.minimum(category_map, num_classes)

    matches = _match_people(
        gt_maps, gt_areas, maps, areas, np.flatnonzero(scores >= thresholds.matching), num_classes
    )
    regions = _match_part_regions(
        (gt_owners, gt_labels),
        (owners, _hide(labels, owners, scores < thresholds.part_regions)),
        categories,
        part_scores,
        len(gt_maps.maps),
    )
    confusion = _count_pairs(
        categories, _hide(labels, owners, scores < thresholds.semantic), num_classes
    )[:num_classes]
    statistics = ImageStatistics(
        gt_part_counts=np.count_nonzero(gt_areas[:, 1:num_classes], axis=1),
        scores=scores[scores >= thresholds.matching],
        **matches,
        **regions,
        gt_boxes=gt_boxes,
        boxes=boxes,
        box_scores=box_scores,
    )
    return statistics, confusion


def _match_people(
    gt_maps: CroppedMaps,
    gt_areas: np.ndarray,
    maps: CroppedMaps,
    areas: np.ndarray,
    candidates: np.ndarray,
    num_classes: int,
) -> dict[str, np.ndarray]:
    """Best ground-truth person of every candidate, over whole person maps.

    Args:
        gt_maps, gt_areas: ground-truth persons and their :func:`_label_areas`.
        maps, areas: predicted persons and theirs.
        candidates: indices of the predictions to match, ascending.

    Returns:
        The fields ``best_gt``, ``best_miou`` and ``parts_above`` of :class:`ImageStatistics`.
    """
    num_gt, num_candidates = len(gt_maps.maps), len(candidates)
    # Pixels that are class c in both maps; that are foreground in both; that are class c in the
    # prediction and ignored in the ground truth.
    common = np.zeros((num_candidates, num_gt, num_classes), dtype=np.int64)
    both_foreground = np.zeros((num_candidates, num_gt), dtype=np.int64)
    ignored = np.zeros_like(common)
    for g in range(num_gt):
        gt_window = gt_maps.windows[g]
        gt_crop = np.minimum(gt_maps.maps[g], num_classes)
        for k, n in enumerate(candidates):
            window = _intersect(gt_window, maps.windows[n])
            if window is None:
                continue
            counts = _count_pairs(
                _view(gt_crop, gt_window, window),
                _view(maps.maps[n], maps.windows[n], window),
                num_classes,
            )
            common[k, g] = counts[:num_classes].diagonal()
            both_foreground[k, g] = counts[1:num_classes, 1:].sum()
            ignored[k, g] = counts[num_classes]

    # Background pixels outside the common window were not counted above: they follow from the
    # areas of the whole maps.
    gt_valid_areas, gt_ignored_area = gt_areas[:, :num_classes], gt_areas[:, num_classes]
    ignored[:, :, 0] = gt_ignored_area - ignored[:, :, 1:].sum(axis=2)
    valid_areas = areas[candidates, None, :num_classes] - ignored
    common[:, :, 0] = gt_valid_areas[:, 0] - valid_areas[:, :, 1:].sum(axis=2) + both_foreground
    union = gt_valid_areas + valid_areas - common
    ious = np.divide(common, union, out=np.full(union.shape, np.nan), where=union > 0)

    miou = np.zeros((num_candidates, num_gt))
    for k in range(num_candidates):
        for g in range(num_gt):
            miou[k, g] = exact_mean(ious[k, g])
    miou = np.nan_to_num(miou, nan=0.0)  # every pixel of the person's image ignored

    if num_gt == 0:
        return {
            "best_gt": np.full(num_candidates, -1),
            "best_miou": np.zeros(num_candidates),
            "parts_above": np.zeros((num_candidates, len(IOU_THRESHOLDS)), dtype=np.int64),
        }
    best_gt = miou.argmax(axis=1)
    rows = np.arange(num_candidates)
    part_ious = ious[rows, best_gt, 1:]
    return {
        "best_gt": best_gt,
        "best_miou": miou[rows, best_gt],
        "parts_above": np.stack([(part_ious > t).sum(axis=1) for t in IOU_THRESHOLDS], axis=1),
    }


def _match_part_regions(
    gt_picture: tuple[np.ndarray, np.ndarray],
    picture: tuple[np.ndarray, np.ndarray],
    categories: np.ndarray,
    part_scores: np.ndarray,
    num_gt: int,
) -> dict[str, np.ndarray]:
    """Best ground-truth region of every predicted part region.

    Args:
        gt_picture, picture: owner and label of every pixel, from :func:`_paint`.
        categories: uint8 (H, W), C where the pixel is ignored.
        part_scores: float64 (N, C-1).
        num_gt: P.

    Returns:
        The fields ``gt_region_counts`` and ``region_*`` of :class:`ImageStatistics`.
    """
    num_predictions, num_classes = part_scores.shape[0], part_scores.shape[1] + 1
    (gt_owners, gt_labels), (owners, labels) = gt_picture, picture
    ignored = (categories >= num_classes) | (gt_labels >= num_classes)
    if ignored.any():
        labels = np.where(ignored, 0, labels)
        gt_labels = np.where(ignored, 0, gt_labels)

    gt_areas = _count_pairs(gt_owners, gt_labels, num_classes, num_gt)
    areas = _count_pairs(owners, labels, num_classes, num_predictions)
    same = np.flatnonzero((labels == gt_labels) & (labels > 0))
    pairs = owners.ravel()[same].astype(np.int64) * num_gt + gt_owners.ravel()[same]
    common = np.bincount(
        pairs * num_classes + labels.ravel()[same], minlength=num_predictions * num_gt * num_classes
    ).reshape(num_predictions, num_gt, num_classes)

    gt_areas[:, 0] = areas[:, 0] = 0
    persons, classes = np.nonzero(areas)
    union = areas[:, None] + gt_areas[None] - common
    ious = np.divide(common, union, out=np.zeros(union.shape), where=common > 0)
    region_ious = ious[persons, :, classes]
    return {
        "gt_region_counts": np.count_nonzero(gt_areas, axis=0),
        "region_classes": classes,
        "region_scores": part_scores[persons, classes - 1],
        "region_best_gt": region_ious.argmax(axis=1) if num_gt else np.full(len(persons), -1),
        "region_best_iou": region_ious.max(axis=1, initial=0.0),
    }


def exact_mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN, NaN if there are none.

    The sum is rounded once, so that the order of the values (of classes, say) cannot push a mean
    that equals a threshold to either side of it.
    """
    values = values[~np.isnan(values)]
    return math.fsum(values) / len(values) if len(values) else math.nan


def _paint(
    maps: CroppedMaps, order: Sequence[int] | np.ndarray, image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Paints person maps over each other wherever they are not 0.

    Returns:
        int32 (H, W) index of the person visible at each pixel (0 where there is nobody), and uint8
        (H, W) label (0 where there is nobody).
    """
    owners = np.zeros(image_size, dtype=np.int32)
    labels = np.zeros(image_size, dtype=np.uint8)
    for n in order:
        x0, y0, x1, y1 = maps.windows[n]
        foreground = maps.maps[n] > 0
        np.copyto(owners[y0:y1, x0:x1], n, where=foreground)
        np.copyto(labels[y0:y1, x0:x1], maps.maps[n], where=foreground)
    return owners, labels


def _hide(labels: np.ndarray, owners: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Painted labels without the people marked in ``hidden`` (bool (N,))."""
    return np.where(hidden[owners], 0, labels) if hidden.any() else labels


def _count_pairs(
    rows: np.ndarray, columns: np.ndarray, num_columns: int, num_rows: int | None = None
) -> np.ndarray:
    """Joint histogram of two maps of one shape.

    Args:
        rows: values below ``num_rows`` (default ``num_columns + 1``).
        columns: values below ``num_columns``.

    Returns:
        int64 (num_rows, num_columns).
    """
    if num_rows is None:
        num_rows = num_columns + 1
    codes = rows.astype(np.int32)
    codes *= num_columns
    codes += columns
    counts = np.bincount(codes.ravel(), minlength=max(num_rows, 1) * num_columns)
    return counts.reshape(-1, num_columns)[:num_rows]


def _label_areas(maps: CroppedMaps, num_classes: int, image_size: tuple[int, int]) -> np.ndarray:
    """Pixels of every label of every whole map.

    Returns:
        int64 (N, C + 1); the last column counts all labels >= C.
    """
    areas = np.zeros((len(maps.maps), num_classes + 1), dtype=np.int64)
    for row, crop in zip(areas, maps.maps):
        counts = np.bincount(crop.ravel(), minlength=256)
        row[:num_classes] = counts[:num_classes]
        row[num_classes] = counts[num_classes:].sum()
        row[0] += image_size[0] * image_size[1] - crop.size
    return areas


def _intersect(a: np.ndarray, b: np.ndarray) -> tuple[int, int, int, int] | None:
    """Common part of two windows, None if it is empty."""
    x0, y0 = max(a[0], b[0]), max(a[1], b[1])
    x1, y1 = min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _view(crop: np.ndarray, window: np.ndarray, part: tuple[int, int, int, int]) -> np.ndarray:
    """The pixels of a crop inside ``part``, which lies within the crop's window."""
    x0, y0 = window[:2]
    return crop[part[1] - y0 : part[3] - y0, part[0] - x0 : part[2] - x0]


def _tighten(maps: CroppedMaps) -> CroppedMaps:
    """Shrinks every window to the non-zero pixels; without any it becomes empty, at the origin."""
    crops, windows = [], np.zeros((len(maps.maps), 4), dtype=np.int64)
    for i, (crop, (x0, y0, _, _)) in enumerate(zip(maps.maps, maps.windows)):
        rows = np.flatnonzero(crop.any(axis=1))
        if len(rows) == 0:
            crops.append(crop[:0, :0])
            continue
        top, bottom = rows[0], rows[-1] + 1
        columns = np.flatnonzero(crop[top:bottom].any(axis=0))
        left, right = columns[0], columns[-1] + 1
        crops.append(crop[top:bottom, left:right])
        windows[i] = x0 + left, y0 + top, x0 + right, y0 + bottom
    return CroppedMaps(crops, windows)


def _crop(maps: np.ndarray | CroppedMaps, image_size: tuple[int, int], name: str) -> CroppedMaps:
    """Checks person maps and crops full-size ones to their non-zero pixels."""
    height, width = image_size
    if not isinstance(maps, CroppedMaps):
        maps = np.asarray(maps)
        if maps.dtype != np.uint8 or maps.ndim != 3 or maps.shape[1:] != image_size:
            raise ValueError(
                f"{name} must be uint8 with shape (persons, {height}, {width}) like the category "
                f"map, got {maps.dtype} {maps.shape}"
            )
        whole = np.tile(np.array([0, 0, width, height]), (len(maps), 1))
        return _tighten(CroppedMaps(maps, whole))
    windows = np.asarray(maps.windows).reshape(-1, 4)
    if len(windows) != len(maps.maps):
        raise ValueError(f"{name}: {len(maps.maps)} maps but {len(windows)} windows")
    for i, (crop, (x0, y0, x1, y1)) in enumerate(zip(maps.maps, windows)):
        if crop.dtype != np.uint8 or crop.shape != (y1 - y0, x1 - x0):
            raise ValueError(
                f"{name}: map {i} must be uint8 with shape ({y1 - y0}, {x1 - x0}) of its window, "
                f"got {crop.dtype} {crop.shape}"
            )
        if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
            raise ValueError(
                f"{name}: window {i} {(int(x0), int(y0), int(x1), int(y1))} leaves the {height} x "
                f"{width} (height x width) image"
            )
    return CroppedMaps(maps.maps, windows)


def _check_label_map(label_map: np.ndarray, name: str) -> np.ndarray:
    label_map = np.asarray(label_map)
    if label_map.dtype != np.uint8 or label_map.ndim != 2:
        raise ValueError(
            f"{name} must be uint8 with shape (height, width), got {label_map.dtype} "
            f"{label_map.shape}"
        )
    return label_map


def _check_numbers(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    values = np.array(values, dtype=np.float64)  # a copy: the caller may reuse its array
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")
    return values

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
from collections.abc import Iterable, Sequence
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
        semantic: mIoU, pixel and mean accuracy; without effect on a predicted category map.
        part_regions: AP^r; without effect on predicted :class:`PartRegions`.
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
class PartRegions:
    """Part regions as a system gave them, instead of those seen of its painted people.

    Attributes:
        region_map: integer (H, W), number of the region at every pixel: 0 = none, ``1..R``.
        classes: integer (R,), class ``1..C-1`` of region k at ``[k - 1]``.
        scores: (R,), ranks the regions in AP^r.
    """

    region_map: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


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
        category_map: uint8 (H, W), labels below C, scored by mIoU, pixel and mean accuracy as it
            is. None: the people are painted over each other, the highest score on top.
        part_regions: scored by AP^r as they are. None: what is visible of the painted people.
    """

    person_maps: np.ndarray | CroppedMaps
    scores: np.ndarray
    part_scores: np.ndarray | None = None
    boxes: np.ndarray | None = None
    box_scores: np.ndarray | None = None
    category_map: np.ndarray | None = None
    part_regions: PartRegions | None = None


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
    num_gt, num_predictions = len(gt_maps.maps), len(maps.maps)
    for n, crop in enumerate(maps.maps):
        _check_labels(crop, num_classes, f"predicted person map {n}")
    scores = _check_numbers(prediction.scores, (num_predictions,), "person scores")
    part_scores = prediction.part_scores
    if part_scores is None:
        part_scores = np.repeat(scores[:, None], num_classes - 1, axis=1)
    part_scores = _check_numbers(part_scores, (num_predictions, num_classes - 1), "part scores")
    boxes = prediction.boxes
    if boxes is not None:
        boxes = _check_numbers(boxes, (num_predictions, 4), "predicted boxes")
    gt_boxes = gt_maps.windows if ground_truth.boxes is None else ground_truth.boxes
    gt_boxes = _check_numbers(gt_boxes, (num_gt, 4), "ground-truth boxes")
    box_scores = scores if prediction.box_scores is None else prediction.box_scores
    box_scores = _check_numbers(box_scores, scores.shape, "box scores")
    shown, part_regions, region_labels = _pictures_to_score(
        prediction, maps, scores, part_scores, thresholds, image_size
    )

    gt_areas = _label_areas(gt_maps, num_classes, image_size)
    candidates = np.flatnonzero(scores >= thresholds.matching)
    matches = _match_people(
        gt_maps,
        gt_areas,
        CroppedMaps([maps.maps[n] for n in candidates], maps.windows[candidates]),
        num_classes,
        image_size,
    )
    regions = _match_part_regions(
        _paint(gt_maps, range(num_gt - 1, -1, -1), image_size),
        num_gt,
        part_regions,
        region_labels,
        category_map,
        num_classes,
    )
    statistics = ImageStatistics(
        gt_part_counts=np.count_nonzero(gt_areas[:, 1:num_classes], axis=1),
        scores=scores[candidates],
        **matches,
        **regions,
        gt_boxes=gt_boxes,
        boxes=boxes,
        box_scores=box_scores,
    )
    return statistics, _confusion_matrix(category_map, shown, num_classes)


def _pictures_to_score(
    prediction: Prediction,
    maps: CroppedMaps,
    scores: np.ndarray,
    part_scores: np.ndarray,
    thresholds: ScoreThresholds,
    image_size: tuple[int, int],
) -> tuple[np.ndarray, PartRegions, np.ndarray]:
    """What mIoU and AP^r are computed on: given by the prediction, or painted from its people.

    Args:
        prediction: gives its pictures, if it has any.
        maps, scores, part_scores: its people, checked.

    Returns:
        Category map, uint8 (H, W), part regions and their classes at every pixel, uint8 (H, W).
    """
    num_classes = part_scores.shape[1] + 1
    shown, regions = prediction.category_map, prediction.part_regions
    if shown is not None:
        shown = _check_category_map(shown, image_size, num_classes)
    if regions is not None:
        regions = _check_part_regions(regions, image_size, num_classes)
        region_labels = np.insert(regions.classes, 0, 0).astype(np.uint8)[regions.region_map]
    if shown is not None and regions is not None:
        return shown, regions, region_labels

    pictures = _paint_by_score(
        maps, scores, (thresholds.semantic, thresholds.part_regions), image_size
    )
    if shown is None:
        shown = _labels(pictures[thresholds.semantic])
    if regions is None:
        regions = _regions_of_people(pictures[thresholds.part_regions], part_scores)
        region_labels = _labels(pictures[thresholds.part_regions])
    return shown, regions, region_labels


def _match_people(
    gt_maps: CroppedMaps,
    gt_areas: np.ndarray,
    maps: CroppedMaps,
    num_classes: int,
    image_size: tuple[int, int],
) -> dict[str, np.ndarray]:
    """Best ground-truth person of every predicted one, over whole person maps.

    Args:
        gt_maps, gt_areas: ground-truth persons and their :func:`_label_areas`.
        maps: the K predicted persons to match.

    Returns:
        The fields ``best_gt``, ``best_miou`` and ``parts_above`` of :class:`ImageStatistics`.
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
    """Pixels of every label of a person, and of those the ones that are equal in other people.

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
        counts = np.bincount(codes.ravel(), minlength=num_masks * num_classes)
        counts = counts.reshape(num_masks, num_classes)
        has_bit = np.arange(num_masks) >> np.arange(len(group))[:, None] & 1
        common[first : first + 8] = has_bit @ counts
        areas = counts.sum(axis=0)
    return areas, common


def _match_part_regions(
    gt_picture: np.ndarray,
    num_gt: int,
    regions: PartRegions,
    labels: np.ndarray,
    category_map: np.ndarray,
    num_classes: int,
) -> dict[str, np.ndarray]:
    """Best ground-truth region of every predicted part region.

    Args:
        gt_picture: the painted ground truth, from :func:`_paint`.
        num_gt: P.
        regions: predicted regions; those without a pixel that counts are left out.
        labels: uint8 (H, W), class of the region at every pixel, 0 where there is none.
        category_map: uint8 (H, W), >= C where the pixel is ignored.
        num_classes: C.

    Returns:
        The fields ``gt_region_counts`` and ``region_*`` of :class:`ImageStatistics`.
    """
    gt_labels, region_map = _labels(gt_picture), regions.region_map
    ignored = np.maximum(category_map, gt_labels) >= num_classes
    if ignored.any():
        gt_picture = np.where(ignored, 0, gt_picture)
        gt_labels = np.where(ignored, 0, gt_labels)
        region_map = np.where(ignored, 0, region_map)

    gt_areas = np.bincount(gt_picture.ravel(), minlength=max(num_gt, 1) * _PERSON)
    gt_areas = gt_areas.reshape(-1, _PERSON)[:num_gt, :num_classes]
    gt_areas[:, 0] = 0
    # Class and area of every value of the region map.
    classes = np.insert(regions.classes, 0, 0)
    areas = np.bincount(region_map.ravel(), minlength=len(classes))
    same = (labels == gt_labels) & (gt_labels > 0)
    pairs = region_map[same].astype(np.int64) * num_gt + gt_picture[same] // _PERSON
    common = np.bincount(pairs, minlength=len(classes) * num_gt).reshape(len(classes), num_gt)

    visible = 1 + np.flatnonzero(areas[1:])
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


def _confusion_matrix(category_map: np.ndarray, shown: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels by ground-truth (row) and predicted (column) class: int64 (C, C)."""
    codes = np.minimum(category_map, num_classes).astype(np.uint16)
    codes *= num_classes  # at most 255 * 255
    codes += shown
    counts = np.bincount(codes.ravel(), minlength=(num_classes + 1) * num_classes)
    return counts.reshape(num_classes + 1, num_classes)[:num_classes]


def exact_mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN, NaN if there are none.

    The sum is rounded once, so that the order of the values (of classes, say) cannot push a mean
    that equals a threshold to either side of it.
    """
    values = values[~np.isnan(values)]
    return math.fsum(values) / len(values) if len(values) else math.nan


_PERSON = 256
"""A pixel of a picture is ``_PERSON * person + label``, 0 where there is nobody."""


def _paint(
    maps: CroppedMaps,
    people: Iterable[int],
    image_size: tuple[int, int],
    above: np.ndarray | None = None,
) -> np.ndarray:
    """Paints person maps wherever they are not 0, each below those before it.

    Args:
        people: indices of the people to paint, the uppermost first.
        above: a picture of other people of ``maps``, which hide these.

    Returns:
        Unsigned (H, W), the picture.
    """
    if above is None:
        picture = np.zeros(image_size, dtype=np.min_scalar_type(_PERSON * (len(maps.maps) + 1)))
    else:
        picture = above.copy()
    number = picture.dtype.type
    for n in people:
        crop, (x0, y0, x1, y1) = maps.maps[n], maps.windows[n]
        canvas = picture[y0:y1, x0:x1]
        pixels = (crop > 0) * number(_PERSON * n)
        pixels += crop
        pixels *= canvas == 0
        canvas += pixels
    return picture


def _paint_by_score(
    maps: CroppedMaps,
    scores: np.ndarray,
    thresholds: Iterable[float],
    image_size: tuple[int, int],
) -> dict[float, np.ndarray]:
    """Paints the people whose scores reach a threshold, the highest score on top.

    Returns:
        The picture for every threshold.
    """
    descending = np.argsort(scores, kind="stable")[::-1]  # of equal scores the last is on top
    pictures, picture, num_painted = {}, None, 0
    for threshold in sorted(thresholds, reverse=True):
        # Those below a threshold are hidden by those above it: they are added to their picture.
        num_reaching = np.count_nonzero(scores >= threshold)
        picture = _paint(maps, descending[num_painted:num_reaching], image_size, picture)
        pictures[threshold], num_painted = picture, num_reaching
    return pictures


def _labels(picture: np.ndarray) -> np.ndarray:
    """Label of every pixel of a picture: uint8 (H, W)."""
    return picture.astype(np.uint8)  # keeps the low byte


def _regions_of_people(picture: np.ndarray, part_scores: np.ndarray) -> PartRegions:
    """The part regions seen in a picture, numbered by the picture's values.

    Args:
        part_scores: float64 (N, C-1).
    """
    num_people, num_parts = part_scores.shape
    scores = np.zeros((num_people, _PERSON))
    scores[:, 1 : num_parts + 1] = part_scores
    classes = np.arange(num_people * _PERSON) % _PERSON
    return PartRegions(picture, classes[1:], scores.ravel()[1:])


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
    """Checks person maps and crops them to their non-zero pixels."""
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
    return _tighten(CroppedMaps(maps.maps, windows))


def _check_label_map(label_map: np.ndarray, name: str) -> np.ndarray:
    label_map = np.asarray(label_map)
    if label_map.dtype != np.uint8 or label_map.ndim != 2:
        raise ValueError(
            f"{name} must be uint8 with shape (height, width), got {label_map.dtype} "
            f"{label_map.shape}"
        )
    return label_map


def _check_category_map(
    category_map: np.ndarray, image_size: tuple[int, int], num_classes: int
) -> np.ndarray:
    name = "predicted category map"
    category_map = _check_label_map(category_map, name)
    if category_map.shape != image_size:
        raise ValueError(
            f"{name} must have shape {image_size} like that of the ground truth, got "
            f"{category_map.shape}"
        )
    _check_labels(category_map, num_classes, name)
    return category_map


def _check_part_regions(
    regions: PartRegions, image_size: tuple[int, int], num_classes: int
) -> PartRegions:
    region_map, classes = np.asarray(regions.region_map), np.asarray(regions.classes)
    if region_map.shape != image_size or not np.issubdtype(region_map.dtype, np.integer):
        raise ValueError(
            f"part region map must hold integers with shape {image_size} like the ground-truth "
            f"category map, got {region_map.dtype} {region_map.shape}"
        )
    if classes.ndim != 1 or not (len(classes) == 0 or np.issubdtype(classes.dtype, np.integer)):
        raise ValueError(
            f"part region classes must be integers with shape (regions,), got {classes.dtype} "
            f"{classes.shape}"
        )
    wrong = np.flatnonzero((classes < 1) | (classes >= num_classes))
    if len(wrong):
        raise ValueError(
            f"part region {wrong[0] + 1} has the class {classes[wrong[0]]}; parts are 1 to "
            f"{num_classes - 1}"
        )
    lowest, highest = region_map.min(initial=0), region_map.max(initial=0)
    if lowest < 0 or highest > len(classes):
        raise ValueError(
            f"part region map has the value {lowest if lowest < 0 else highest}, but classes and "
            f"scores are given for the {len(classes)} regions 1 to {len(classes)}"
        )
    scores = _check_numbers(regions.scores, classes.shape, "part region scores")
    return PartRegions(region_map.astype(np.int64), classes.astype(np.int64), scores)


def _check_labels(label_map: np.ndarray, num_classes: int, name: str) -> None:
    highest = label_map.max(initial=0)
    if highest >= num_classes:
        raise ValueError(
            f"{name} has the label {highest}, but there are {num_classes} classes (labels 0 to "
            f"{num_classes - 1}); only ground truth may hold labels to ignore"
        )


def _check_numbers(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    values = np.array(values, dtype=np.float64)  # a copy: the caller may reuse its array
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")
    return values

"""What the metrics take of one image: ground truth and prediction, and the checks of their arrays.

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

from dataclasses import dataclass

import numpy as np

from aiparsing_d2.counted import counted
from aiparsing_d2.structures.cropped_maps import CroppedMaps, check_cropped_maps


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


def check_ground_truth(ground_truth: GroundTruth) -> GroundTruth:
    """Check ground truth and bring it into one form.

    Returns:
        The same, with ``person_maps`` cropped to their non-zero pixels and ``boxes`` float64.

    Raises:
        ValueError: an array's dtype, shape or values cannot be scored; the message names it.
    """
    category_map = _check_label_map(ground_truth.category_map, "ground-truth category map")
    maps = _crop_person_maps(
        ground_truth.person_maps, category_map.shape, "ground-truth person maps"
    )
    boxes = maps.windows if ground_truth.boxes is None else ground_truth.boxes
    boxes = _check_numbers(boxes, (len(maps.maps), 4), "ground-truth boxes")
    return GroundTruth(maps, category_map, boxes)


def check_prediction(
    prediction: Prediction, image_size: tuple[int, int], num_classes: int
) -> Prediction:
    """Check a prediction and bring it into one form.

    Args:
        prediction: what a system found.
        image_size: ``(H, W)`` of the ground truth.
        num_classes: C.

    Returns:
        The same, with ``person_maps`` cropped to their non-zero pixels, ``part_scores`` and
        ``box_scores`` filled in, and numbers as float64.

    Raises:
        ValueError: an array's dtype, shape or values cannot be scored; the message names it.
    """
    maps = _crop_person_maps(prediction.person_maps, image_size, "predicted person maps")
    num_people = len(maps.maps)
    for n, crop in enumerate(maps.maps):
        _check_labels(crop, num_classes, f"predicted person map {n}")
    scores = _check_numbers(prediction.scores, (num_people,), "person scores")
    part_scores, box_scores = prediction.part_scores, prediction.box_scores
    if part_scores is None:
        part_scores = np.repeat(scores[:, None], num_classes - 1, axis=1)
    boxes, category_map, regions = (
        prediction.boxes,
        prediction.category_map,
        prediction.part_regions,
    )
    if boxes is not None:
        boxes = _check_numbers(boxes, (num_people, 4), "predicted boxes")
    if category_map is not None:
        category_map = check_category_map(category_map, image_size, num_classes)
    if regions is not None:
        regions = check_part_regions(regions, image_size, num_classes)
    return Prediction(
        maps,
        scores,
        part_scores=_check_numbers(part_scores, (num_people, num_classes - 1), "part scores"),
        boxes=boxes,
        box_scores=_check_numbers(
            scores if box_scores is None else box_scores, (num_people,), "box scores"
        ),
        category_map=category_map,
        part_regions=regions,
    )


def _crop_person_maps(
    maps: np.ndarray | CroppedMaps, image_size: tuple[int, int], name: str
) -> CroppedMaps:
    """Check person maps and crop them to their non-zero pixels.

    Raises:
        ValueError: dtype, shape or windows are wrong; the message calls the maps ``name``.
    """
    height, width = image_size
    if not isinstance(maps, CroppedMaps):
        maps = np.asarray(maps)
        if maps.dtype != np.uint8 or maps.ndim != 3 or maps.shape[1:] != image_size:
            raise ValueError(
                f"{name} must be uint8 with shape (persons, {height}, {width}) like the category "
                f"map, got {maps.dtype} {maps.shape}"
            )
        whole = np.tile(np.array([0, 0, width, height]), (len(maps), 1))
        return CroppedMaps(list(maps), whole).tightened()
    windows = np.asarray(maps.windows).reshape(-1, 4)
    check_cropped_maps(maps.maps, windows.tolist(), image_size, name)
    return CroppedMaps(maps.maps, windows).tightened()


def _check_label_map(label_map: np.ndarray, name: str) -> np.ndarray:
    label_map = np.asarray(label_map)
    if label_map.dtype != np.uint8 or label_map.ndim != 2:
        raise ValueError(
            f"{name} must be uint8 with shape (height, width), got {label_map.dtype} "
            f"{label_map.shape}"
        )
    return label_map


def check_category_map(
    category_map: np.ndarray, image_size: tuple[int, int], num_classes: int
) -> np.ndarray:
    """Return a system's category map as an array.

    Raises:
        ValueError: it is not uint8 (H, W), or a label is not below ``num_classes``.
    """
    name = "predicted category map"
    category_map = _check_label_map(category_map, name)
    if category_map.shape != image_size:
        raise ValueError(
            f"{name} must have shape {image_size} like the image, got {category_map.shape}"
        )
    _check_labels(category_map, num_classes, name)
    return category_map


def check_part_regions(
    regions: PartRegions, image_size: tuple[int, int], num_classes: int
) -> PartRegions:
    """Return a system's part regions with int64 map and classes and float64 scores.

    Raises:
        ValueError: the map is not of integers (H, W), a value in it is negative or of no region, a
            class is no part, or there is not one finite score for each region.
    """
    region_map, classes = np.asarray(regions.region_map), np.asarray(regions.classes)
    if region_map.shape != image_size or not np.issubdtype(region_map.dtype, np.integer):
        raise ValueError(
            f"part region map must hold integers with shape {image_size} like the image, got "
            f"{region_map.dtype} {region_map.shape}"
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
            f"scores are given for {counted(len(classes), 'region')}"
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

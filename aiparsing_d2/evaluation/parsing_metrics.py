"""Metrics of instance-level human parsing for any system's output, from plain numpy arrays.

===========  ==================================================================================
mIoU         IoU per class of the composed category map, one confusion matrix over all images,
             mean over the classes that occur in ground truth or prediction, background included
AP^p         average precision of people; a match is judged by the mean part IoU of two people
PCP          percentage of correctly parsed parts of a person, mean over all people
AP^r         average precision of part regions, mean over the classes with ground truth
box AP       COCO's average precision of the person boxes
===========  ==================================================================================

AP^p, PCP and AP^r are taken at the nine thresholds .1, .2, ..., .9; "vol" is the mean of the nine.
:mod:`~aiparsing_d2.evaluation.image_inputs` fixes the terms used here.

Example::

    metrics = ParsingMetrics(num_classes=20)
    for name in names:
        metrics.add_image(
            name,
            GroundTruth(person_maps, category_map),
            Prediction(predicted_person_maps, person_scores),
        )
    print(metrics.summarize()["parsing"]["APp50"])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .average_precision import (
    IOU_THRESHOLDS,
    average_precision,
    box_average_precision,
    exact_mean,
    first_claims,
)
from .image_inputs import GroundTruth, Prediction
from .image_statistics import ImageStatistics, ScoreThresholds, measure_image
from .packed_rows import PackedRows

_AT_50 = IOU_THRESHOLDS.index(0.5)
_T = len(IOU_THRESHOLDS)

# What is kept: a few dozen bytes per person and per part region. The scores are ranked over all
# images at the end and pycocotools computes in float64, so scores and boxes keep their bits. Of an
# IoU only "passed" is kept: how many of the thresholds it is above.
_GT_PERSON = np.dtype([("num_parts", "u1"), ("box", "f8", 4)])
_CANDIDATE = np.dtype(
    [("score", "f8"), ("best_gt", "i4"), ("passed", "u1"), ("parts_above", "u1", _T)]
)
_REGION = np.dtype([("score", "f8"), ("best_gt", "i4"), ("label", "u1"), ("passed", "u1")])
_BOX = np.dtype([("box", "f8", 4), ("score", "f8")])

# Attributes of ParsingMetrics that partial results must share.
_SETTINGS = (
    "num_classes",
    "class_names",
    "score_thresholds",
    "part_regions_one_to_one",
    "part_regions_skip_ignored",
)


@dataclass(frozen=True)
class ParsingScores:
    """The metrics as fractions (1 = perfect); NaN where a metric is undefined.

    T = 9 is the number of IoU thresholds, C the number of classes including background.

    Attributes:
        class_iou: float64 (C,); NaN for a class that neither ground truth nor prediction has.
        miou: mean of the defined ``class_iou``.
        pixel_accuracy: share of the pixels with the right class.
        mean_accuracy: mean over the classes with ground truth of the share of right pixels.
        app: float64 (T,) AP^p; NaN without ground-truth people.
        pcp: float64 (T,) PCP; NaN without ground-truth people.
        apr_per_class: float64 (C, T) AP^r; NaN for background and classes without ground truth.
        apr: float64 (T,) mean over the classes with ground truth.
        box: ``AP``, ``AP50``, ``AP75``; None if the predictions have no boxes.
    """

    class_iou: np.ndarray
    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    app: np.ndarray
    pcp: np.ndarray
    apr_per_class: np.ndarray
    apr: np.ndarray
    box: dict[str, float] | None


class ParsingMetrics:
    """Collect images one at a time and computes the metrics over all of them.

    An image leaves about a kilobyte, whatever its number of pixels: 33 bytes per ground-truth
    person, 62 per prediction, 14 per predicted part region and its key. Partial results of several
    processes (the object can be pickled) are joined by :meth:`merge`; the result is bit for bit
    that of one process, whatever the number of processes and the order of images, because all that
    is summed before the end are integers.

    People and boxes of equal score rank by ``image_order``, then by their index in the image. Part
    regions of one class with equal scores rank in the reverse of the order in which the published
    evaluators list them, by ``image_order``, then as the people are painted, since these reverse a
    stable ascending sort.
    """

    def __init__(
        self,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        *,
        score_thresh: float = 0.001,
        semseg_thresh: float = 0.3,
        part_score_thresh: float = 0.01,
        part_regions_one_to_one: bool = False,
        part_regions_skip_ignored: bool = False,
    ):
        """
        Args:
            num_classes: number of classes C including background 0, at most 255.
            class_names: C distinct names, used in :meth:`summarize`. Default: ``"0"``, ``"1"``, ...
            score_thresh: lowest person score that counts for AP^p and PCP.
            semseg_thresh: lowest person score that is painted into the category map (mIoU). The
                published numbers use 0.3 for CIHP and VIP, 0.005 or 0.05 for LV-MHP-v2.
            part_score_thresh: lowest person score that is painted for AP^r.
            part_regions_one_to_one: let a ground-truth part region be matched once only. The
                published AP^r lets any number of predictions match it, so that the AP of a class
                can exceed 1.
            part_regions_skip_ignored: leave pixels that the ground truth ignores (labels >= C) out
                of predicted part regions, as all other metrics do. The published AP^r knows no
                such label: to it they are background, which counts in the union.
        """
        if not 2 <= num_classes <= 255:
            raise ValueError(f"num_classes must be between 2 and 255, got {num_classes}")
        names = [str(c) for c in range(num_classes)] if class_names is None else list(class_names)
        if len(names) != num_classes or len(set(names)) != num_classes:
            raise ValueError(
                f"class_names must be {num_classes} different names (background included), got "
                f"{names}"
            )
        self.num_classes = num_classes
        self.class_names = names
        self.score_thresholds = ScoreThresholds(score_thresh, semseg_thresh, part_score_thresh)
        self.part_regions_one_to_one = part_regions_one_to_one
        self.part_regions_skip_ignored = part_regions_skip_ignored
        self._orders: dict[str, int] = {}  # by image key; the rows below are in the same order
        self._taken_orders: set[int] = set()
        self._confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        self._gt_region_counts = np.zeros(num_classes, dtype=np.int64)
        self._gt_people = PackedRows(_GT_PERSON)
        self._candidates = PackedRows(_CANDIDATE)
        self._regions = PackedRows(_REGION)
        self._boxes = PackedRows(_BOX)
        self._image_with_boxes: str | None = None
        self._image_without_boxes: str | None = None

    @property
    def num_images(self) -> int:
        """Number of images collected so far."""
        return len(self._orders)

    def add_image(
        self,
        image_key: str,
        ground_truth: GroundTruth,
        prediction: Prediction,
        image_order: int | None = None,
    ) -> None:
        """Count one image.

        Args:
            image_key: name of the image, unique over the data set.
            ground_truth: the image's ground truth.
            prediction: the system's output for it, possibly with zero people.
            image_order: place of the image in the data set, which ranks predictions of equal score
                and must be unique. Default: the number of images added before. Give it where images
                are spread over processes or come in no fixed order.

        Raises:
            ValueError: the image was added before, its order is taken, or its arrays cannot be
                scored (dtype, shape, a predicted label >= C, a score that is not finite). The
                message names the image; nothing is counted.
        """
        order = self.num_images if image_order is None else int(image_order)
        self._check_new(image_key, order)
        try:
            statistics, confusion = measure_image(
                ground_truth,
                prediction,
                self.num_classes,
                self.score_thresholds,
                self.part_regions_skip_ignored,
            )
        except ValueError as error:
            raise ValueError(f"image {image_key!r}: {error}") from error
        self.add_measured(image_key, statistics, confusion, order)

    def add_measured(
        self,
        image_key: str,
        statistics: ImageStatistics,
        confusion: np.ndarray,
        image_order: int,
    ) -> None:
        """Add what :func:`~.image_statistics.measure_image` counted, in another process say.

        Args:
            image_key, image_order: see :meth:`add_image`.
            statistics, confusion: measured with this object's settings.

        Raises:
            ValueError: the image was added before, or its order is taken.
        """
        self._check_new(image_key, image_order)
        self._orders[image_key] = image_order
        self._taken_orders.add(image_order)
        self._confusion += confusion
        self._gt_region_counts += statistics.gt_region_counts
        self._gt_people.append(num_parts=statistics.gt_part_counts, box=statistics.gt_boxes)
        self._candidates.append(
            score=statistics.scores,
            best_gt=statistics.best_gt,
            passed=_num_thresholds_below(statistics.best_miou),
            parts_above=statistics.parts_above,
        )
        self._regions.append(
            score=statistics.region_scores,
            best_gt=statistics.region_best_gt,
            label=statistics.region_classes,
            passed=_num_thresholds_below(statistics.region_best_iou),
        )
        if statistics.boxes is not None:
            self._boxes.append(box=statistics.boxes, score=statistics.box_scores)
            if len(statistics.boxes):
                self._image_with_boxes = image_key
        else:
            self._boxes.append(box=np.zeros((0, 4)), score=np.zeros(0))
            # An image without predictions need not say whether there would have been boxes.
            if len(statistics.box_scores):
                self._image_without_boxes = image_key

    def merge(self, other: ParsingMetrics) -> None:
        """Add the images collected by another object with the same settings.

        Raises:
            ValueError: the settings differ, or both hold the same image or the same order.
        """
        for setting in _SETTINGS:
            mine, theirs = getattr(self, setting), getattr(other, setting)
            if mine != theirs:
                raise ValueError(f"cannot merge metrics with {setting} {theirs} into {mine}")
        for image_key, order in other._orders.items():
            self._check_new(image_key, order)
        self._orders.update(other._orders)
        self._taken_orders |= other._taken_orders
        self._confusion += other._confusion
        self._gt_region_counts += other._gt_region_counts
        self._gt_people.extend(other._gt_people)
        self._candidates.extend(other._candidates)
        self._regions.extend(other._regions)
        self._boxes.extend(other._boxes)
        self._image_with_boxes = self._image_with_boxes or other._image_with_boxes
        self._image_without_boxes = self._image_without_boxes or other._image_without_boxes

    def compute(self) -> ParsingScores:
        """Compute all metrics, as fractions.

        Raises:
            ValueError: some of the images with predictions have boxes and others have none.
        """
        places = np.array(list(self._orders.values()), dtype=np.int64)
        gt_people, gt_counts = self._gt_people.arranged(places)
        candidates, candidate_counts = self._candidates.arranged(places)
        regions, region_counts = self._regions.arranged(places)
        # Indices of ground-truth people within their image -> within all images. Predictions in
        # images without ground truth get somebody else's index, but never match.
        first_gt = np.cumsum(gt_counts) - gt_counts
        candidates["best_gt"] += np.repeat(first_gt, candidate_counts).astype(np.int32)
        regions["best_gt"] += np.repeat(first_gt, region_counts).astype(np.int32)

        app, pcp = _person_scores(candidates, gt_people["num_parts"])
        apr_per_class = self._part_region_scores(regions)
        return ParsingScores(
            **_pixel_scores(self._confusion),
            app=app,
            pcp=pcp,
            apr_per_class=apr_per_class,
            apr=np.array([exact_mean(column) for column in apr_per_class.T]),
            box=self._box_scores(places, gt_people["box"], gt_counts),
        )

    def summarize(self) -> dict[str, dict[str, float]]:
        """Compute all metrics, in percent.

        Returns:
            Two groups of plain floats (NaN where undefined), in the form of Detectron2's results:

            * ``"parsing"``: ``mIoU``, ``pACC``, ``mACC``, ``APp50``, ``APpvol``, ``PCP50``,
              ``APr50``, ``APrvol``, then with a dash in their names (Detectron2's copy-paste line
              leaves those out) ``APp-10`` ... ``APp-90``, ``PCP-10`` ..., ``APr-10`` ... by
              threshold and ``IoU-<class>``, ``APr50-<class>``, ``APrvol-<class>`` by class;
            * ``"bbox"``: ``AP``, ``AP50``, ``AP75``, if the predictions have boxes.
        """
        return percentages(self.compute(), self.class_names)

    def _check_new(self, image_key: str, order: int) -> None:
        if image_key in self._orders:
            raise ValueError(
                f"image {image_key!r} was scored already: every image counts once, under a key of "
                "its own (a sampler that pads the data set to equal shares repeats images)"
            )
        if order in self._taken_orders:
            other = next(key for key, taken in self._orders.items() if taken == order)
            raise ValueError(
                f"image {image_key!r} has the order {order} of image {other!r}: give every image "
                "its place in the data set"
            )

    def _part_region_scores(self, regions: np.ndarray) -> np.ndarray:
        result = np.full((self.num_classes, _T), np.nan)
        ranked = regions[np.argsort(regions["score"], kind="stable")[::-1]]  # see the class on ties
        for c in range(1, self.num_classes):
            of_class = ranked[ranked["label"] == c]
            for t in range(_T):
                hits = of_class["passed"] > t
                if self.part_regions_one_to_one:
                    hits = first_claims(of_class["best_gt"], hits)
                result[c, t] = average_precision(hits, int(self._gt_region_counts[c]))
        return result

    def _box_scores(
        self, places: np.ndarray, gt_boxes: np.ndarray, gt_counts: np.ndarray
    ) -> dict[str, float] | None:
        if self._image_without_boxes is not None:
            if self._image_with_boxes is not None:
                raise ValueError(
                    f"image {self._image_without_boxes!r} has predictions without boxes, image "
                    f"{self._image_with_boxes!r} has boxes: give boxes for all predictions or for "
                    "none"
                )
            return None
        boxes, counts = self._boxes.arranged(places)
        ends = np.cumsum(counts)[:-1]
        return box_average_precision(
            zip(
                np.split(gt_boxes, np.cumsum(gt_counts)[:-1]),
                np.split(boxes["box"], ends),
                np.split(boxes["score"], ends),
            )
        )


def percentages(scores: ParsingScores, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Give the groups and names of :meth:`ParsingMetrics.summarize`."""
    by_threshold = {"APp": scores.app, "PCP": scores.pcp, "APr": scores.apr}
    parsing = {
        "mIoU": scores.miou,
        "pACC": scores.pixel_accuracy,
        "mACC": scores.mean_accuracy,
        "APp50": scores.app[_AT_50],
        "APpvol": scores.app.mean(),
        "PCP50": scores.pcp[_AT_50],
        "APr50": scores.apr[_AT_50],
        "APrvol": scores.apr.mean(),
    }
    for metric, values in by_threshold.items():
        for threshold, value in zip(IOU_THRESHOLDS, values):
            parsing[f"{metric}-{round(100 * threshold)}"] = value
    for name, iou in zip(class_names, scores.class_iou):
        parsing[f"IoU-{name}"] = iou
    for name, values in list(zip(class_names, scores.apr_per_class))[1:]:
        parsing[f"APr50-{name}"] = values[_AT_50]
        parsing[f"APrvol-{name}"] = values.mean()
    groups = {"parsing": parsing}
    if scores.box is not None:
        groups["bbox"] = scores.box
    return {
        group: {name: 100.0 * float(value) for name, value in values.items()}
        for group, values in groups.items()
    }


def _pixel_scores(confusion: np.ndarray) -> dict[str, Any]:
    """Compute the fields of :class:`ParsingScores` that come from the confusion matrix."""
    right = confusion.diagonal()
    gt = confusion.sum(axis=1)
    class_iou = _divide(right, gt + confusion.sum(axis=0) - right)
    return {
        "class_iou": class_iou,
        "miou": exact_mean(class_iou),
        "pixel_accuracy": float(_divide(right.sum(), gt.sum())),
        "mean_accuracy": exact_mean(_divide(right, gt)),
    }


def _person_scores(
    candidates: np.ndarray, gt_part_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute AP^p and PCP at every threshold.

    Args:
        candidates: ``_CANDIDATE`` rows of all images, ``best_gt`` within all images.
        gt_part_counts: (number of ground-truth people,).
    """
    ranked = candidates[np.argsort(-candidates["score"], kind="stable")]
    num_gt = len(gt_part_counts)
    app, pcp = np.full(_T, np.nan), np.full(_T, np.nan)
    for t in range(_T):
        hits = first_claims(ranked["best_gt"], ranked["passed"] > t)
        app[t] = average_precision(hits, num_gt)
        if num_gt:
            matched = ranked[hits]
            shares = _divide(matched["parts_above"][:, t], gt_part_counts[matched["best_gt"]])
            # A person without a part (all of it ignored) has none that could be right: 0.
            pcp[t] = math.fsum(np.nan_to_num(shares, nan=0.0)) / num_gt
    return app, pcp


def _num_thresholds_below(ious: np.ndarray) -> np.ndarray:
    """Count how many of the ascending thresholds each IoU is strictly above."""
    return np.searchsorted(IOU_THRESHOLDS, ious, side="left")


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator == 0, np.nan, np.divide(numerator, denominator))

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
The image module :mod:`~aiparsing_d2.evaluation.image_statistics` fixes the terms used here.

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

import numpy as np

from .average_precision import average_precision, box_average_precision, first_claims
from .image_statistics import (
    IOU_THRESHOLDS,
    GroundTruth,
    ImageStatistics,
    Prediction,
    ScoreThresholds,
    exact_mean,
    measure_image,
)

_AT_50 = IOU_THRESHOLDS.index(0.5)

# Attributes of ParsingMetrics that partial results must share.
_SETTINGS = ("num_classes", "class_names", "score_thresholds", "part_regions_one_to_one")


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
    """Collects images one at a time and computes the metrics over all of them.

    An image leaves a compact record whose size does not depend on its number of pixels. Partial
    results of several processes (the object can be pickled) are joined by :meth:`merge`; the result
    is bit for bit that of one process, whatever the number of processes and the order of images,
    because all that is summed before the end are integers.

    Predictions of equal score are ranked by ``image_order``, then by their index in the image.
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
        self._confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        self._records: dict[str, tuple[int, ImageStatistics]] = {}
        self._key_of_order: dict[int, str] = {}

    @property
    def num_images(self) -> int:
        """Number of images collected so far."""
        return len(self._records)

    def add_image(
        self,
        image_key: str,
        ground_truth: GroundTruth,
        prediction: Prediction,
        image_order: int | None = None,
    ) -> None:
        """Counts one image.

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
                ground_truth, prediction, self.num_classes, self.score_thresholds
            )
        except ValueError as error:
            raise ValueError(f"image {image_key!r}: {error}") from error
        self._confusion += confusion
        self._insert(image_key, order, statistics)

    def merge(self, other: ParsingMetrics) -> None:
        """Adds the images collected by another object with the same settings.

        Raises:
            ValueError: the settings differ, or both hold the same image or the same order.
        """
        for setting in _SETTINGS:
            mine, theirs = getattr(self, setting), getattr(other, setting)
            if mine != theirs:
                raise ValueError(f"cannot merge metrics with {setting} {theirs} into {mine}")
        for image_key, (order, _) in other._records.items():
            self._check_new(image_key, order)
        self._confusion += other._confusion
        for image_key, (order, statistics) in other._records.items():
            self._insert(image_key, order, statistics)

    def compute(self) -> ParsingScores:
        """Computes all metrics, as fractions.

        Raises:
            ValueError: some of the images with predictions have boxes and others have none.
        """
        images = [self._records[self._key_of_order[o]][1] for o in sorted(self._key_of_order)]
        app, pcp = _person_scores(images)
        apr_per_class = self._part_region_scores(images)
        return ParsingScores(
            **_pixel_scores(self._confusion),
            app=app,
            pcp=pcp,
            apr_per_class=apr_per_class,
            apr=np.array([exact_mean(column) for column in apr_per_class.T]),
            box=self._box_scores(images),
        )

    def summarize(self) -> dict[str, dict[str, float]]:
        """Computes all metrics, in percent.

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
        if image_key in self._records:
            raise ValueError(
                f"image {image_key!r} was scored already: every image counts once, under a key of "
                "its own (a sampler that pads the data set to equal shares repeats images)"
            )
        if order in self._key_of_order:
            raise ValueError(
                f"image {image_key!r} has the order {order} of image "
                f"{self._key_of_order[order]!r}: give every image its place in the data set"
            )

    def _insert(self, image_key: str, order: int, statistics: ImageStatistics) -> None:
        self._records[image_key] = (order, statistics)
        self._key_of_order[order] = image_key

    def _part_region_scores(self, images: list[ImageStatistics]) -> np.ndarray:
        num_gt = np.zeros(self.num_classes, dtype=np.int64)
        for image in images:
            num_gt += image.gt_region_counts
        classes = _concatenate([image.region_classes for image in images], np.int64)
        scores = _concatenate([image.region_scores for image in images], np.float64)
        ious = _concatenate([image.region_best_iou for image in images], np.float64)
        gt = _global_indices(images, [image.region_best_gt for image in images])
        result = np.full((self.num_classes, len(IOU_THRESHOLDS)), np.nan)
        for c in range(1, self.num_classes):
            regions = np.flatnonzero(classes == c)
            regions = regions[np.argsort(-scores[regions], kind="stable")]
            for t, threshold in enumerate(IOU_THRESHOLDS):
                hits = ious[regions] > threshold
                if self.part_regions_one_to_one:
                    hits = first_claims(gt[regions], hits)
                result[c, t] = average_precision(hits, int(num_gt[c]))
        return result

    def _box_scores(self, images: list[ImageStatistics]) -> dict[str, float] | None:
        # An image without predictions need not say whether there would have been boxes.
        has_boxes = {
            image_key: statistics.boxes is not None
            for image_key, (_, statistics) in self._records.items()
            if len(statistics.box_scores)
        }
        if not all(has_boxes.values()):
            if any(has_boxes.values()):
                without = next(key for key, given in has_boxes.items() if not given)
                raise ValueError(
                    f"image {without!r} has predictions without boxes, other images have boxes: "
                    "give boxes for all predictions or for none"
                )
            return None
        return box_average_precision(
            (
                image.gt_boxes,
                np.zeros((0, 4)) if image.boxes is None else image.boxes,
                image.box_scores,
            )
            for image in images
        )


def percentages(scores: ParsingScores, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The groups and names of :meth:`ParsingMetrics.summarize`."""
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


def _pixel_scores(confusion: np.ndarray) -> dict[str, np.ndarray | float]:
    """The fields of :class:`ParsingScores` that come from the confusion matrix."""
    right = confusion.diagonal()
    gt = confusion.sum(axis=1)
    class_iou = _divide(right, gt + confusion.sum(axis=0) - right)
    return {
        "class_iou": class_iou,
        "miou": exact_mean(class_iou),
        "pixel_accuracy": float(_divide(right.sum(), gt.sum())),
        "mean_accuracy": exact_mean(_divide(right, gt)),
    }


def _person_scores(images: list[ImageStatistics]) -> tuple[np.ndarray, np.ndarray]:
    """AP^p and PCP at every threshold."""
    scores = _concatenate([image.scores for image in images], np.float64)
    miou = _concatenate([image.best_miou for image in images], np.float64)
    parts_above = _concatenate([image.parts_above for image in images], np.int64)
    gt_part_counts = _concatenate([image.gt_part_counts for image in images], np.int64)
    gt = _global_indices(images, [image.best_gt for image in images])
    ranking = np.argsort(-scores, kind="stable")
    num_gt = len(gt_part_counts)
    app = np.full(len(IOU_THRESHOLDS), np.nan)
    pcp = np.full(len(IOU_THRESHOLDS), np.nan)
    for t, threshold in enumerate(IOU_THRESHOLDS):
        hits = first_claims(gt[ranking], miou[ranking] > threshold)
        app[t] = average_precision(hits, num_gt)
        if num_gt:
            matched = ranking[hits]
            shares = _divide(parts_above[matched, t], gt_part_counts[gt[matched]])
            # A person without a part (all of it ignored) has none that could be right: 0.
            pcp[t] = math.fsum(np.nan_to_num(shares, nan=0.0)) / num_gt
    return app, pcp


def _global_indices(
    images: list[ImageStatistics], indices_per_image: list[np.ndarray]
) -> np.ndarray:
    """Turns indices of ground-truth people within their image into indices over all images.

    Predictions in images without ground truth get somebody else's index, but never match.
    """
    first = 0
    shifted = []
    for image, indices in zip(images, indices_per_image):
        shifted.append(indices + first)
        first += len(image.gt_part_counts)
    return _concatenate(shifted, np.int64)


def _concatenate(arrays: list[np.ndarray], dtype: type) -> np.ndarray:
    """Concatenation that allows for no arrays at all."""
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype=dtype)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator == 0, np.nan, np.divide(numerator, denominator))

"""Scoring a submission against a data set, image by image, in any number of processes."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from aiparsing_d2.counted import counted
from aiparsing_d2.data.annotations import PersonAnnotations, read_person_annotations
from aiparsing_d2.evaluation.average_precision import exact_mean, first_claims
from aiparsing_d2.evaluation.image_inputs import GroundTruth, Prediction
from aiparsing_d2.evaluation.image_statistics import (
    ImageStatistics,
    ScoreThresholds,
    measure_image,
)
from aiparsing_d2.evaluation.parsing_metrics import ParsingMetrics, ParsingScores
from aiparsing_d2.parallel import map_in_processes

from .files import SubmissionError
from .submission import MetricGroup, Submission

__all__ = ["ImageScores", "SubmissionScores", "read_prediction", "score_submission"]

_MATCH_IOU = 0.5
_NUM_NAMED = 5  # how many of many images a message names


@dataclass(frozen=True)
class ImageScores:
    """One image, for finding those that went worst. Fractions; NaN or None where undefined.

    People are matched as for AP^p, within the image; predicted people below the threshold for
    single images (see :func:`score_submission`) do not count.

    Attributes:
        image_id, file_name: the image.
        missing: the submission has no result of it; it counts as one without people.
        num_gt_persons, num_persons: annotated and predicted people.
        miou: mIoU of this image alone.
        mean_person_miou: mean over the annotated people of the highest mIoU among the predictions
            that have this person as their best match, 0 where there is none.
        missed_persons: annotated people whom no prediction matches with an mIoU above .5.
        false_detections: predictions that match nobody, or somebody whom a prediction with a higher
            score matches.
    """

    image_id: str
    file_name: str
    missing: bool
    num_gt_persons: int
    num_persons: int | None
    miou: float
    mean_person_miou: float
    missed_persons: int | None
    false_detections: int | None


@dataclass(frozen=True)
class SubmissionScores:
    """A scored submission.

    Attributes:
        scores: the metrics; NaN (box AP: None) where the submission leaves them undefined.
        images: the scored images, the worst mIoU first (without mIoU: the worst mean person mIoU).
        undefined: undefined metrics, with the reason.
        missing: ids of images without a result; they are scored as images without people.
        skipped: why an image was left out of all metrics, by its id.
        unknown: ids the submission has results of that are not in the data set; ignored.
    """

    scores: ParsingScores
    images: list[ImageScores]
    undefined: Mapping[MetricGroup, str]
    missing: list[str]
    skipped: Mapping[str, str]
    unknown: list[str]


@dataclass(frozen=True)
class _Task:
    order: int
    record: Mapping[str, Any]
    missing: bool


@dataclass(frozen=True)
class _Measured:
    """What is left of an image: its part of the metrics and its row, or why there is none."""

    order: int
    image_id: str
    statistics: ImageStatistics | None = None
    confusion: np.ndarray | None = None
    scores: ImageScores | None = None
    error: str = ""


@dataclass(frozen=True)
class _Scorer:
    """Measure one image; sent to every worker process once."""

    submission: Submission
    thresholds: ScoreThresholds
    part_regions_skip_ignored: bool
    person_threshold: float
    undefined: Mapping[MetricGroup, str]
    read_annotations: Callable[[Mapping[str, Any], int], PersonAnnotations]

    def __call__(self, task: _Task) -> _Measured:
        image_id = task.record["image_id"]
        try:
            num_classes = self.submission.num_classes
            annotations = self.read_annotations(task.record, num_classes)
            prediction = read_prediction(self.submission, task.record, task.missing)
            statistics, confusion = measure_image(
                GroundTruth(annotations.person_maps, annotations.category_map, annotations.boxes),
                prediction,
                num_classes,
                self.thresholds,
                self.part_regions_skip_ignored,
            )
        except KeyError as error:  # its text would be quoted again
            return _Measured(task.order, image_id, error=str(error.args[0]))
        except (OSError, ValueError) as error:
            return _Measured(task.order, image_id, error=str(error))
        scores = self._score_image(task, statistics, confusion)
        return _Measured(task.order, image_id, statistics, confusion, scores)

    def _score_image(
        self, task: _Task, statistics: ImageStatistics, confusion: np.ndarray
    ) -> ImageScores:
        right = confusion.diagonal()
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
        ious = np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)
        if MetricGroup.PEOPLE in self.undefined:
            people = dict.fromkeys(("num_persons", "missed_persons", "false_detections"))
            people["mean_person_miou"] = math.nan
        else:
            people = self._score_people(statistics)
        return ImageScores(
            image_id=task.record["image_id"],
            file_name=task.record["file_name"],
            missing=task.missing,
            num_gt_persons=len(statistics.gt_part_counts),
            miou=math.nan if MetricGroup.PIXELS in self.undefined else exact_mean(ious),
            **people,
        )

    def _score_people(self, statistics: ImageStatistics) -> dict[str, int | float]:
        """Compute the fields of :class:`ImageScores` that are about predicted people."""
        num_gt = len(statistics.gt_part_counts)
        chosen = np.flatnonzero(statistics.scores >= self.person_threshold)
        chosen = chosen[np.argsort(-statistics.scores[chosen], kind="stable")]
        best_gt, best_miou = statistics.best_gt[chosen], statistics.best_miou[chosen]
        num_hits = int(first_claims(best_gt, best_miou > _MATCH_IOU).sum())
        miou_of_gt = np.zeros(num_gt)
        if num_gt:
            np.maximum.at(miou_of_gt, best_gt, best_miou)
        return {
            "num_persons": len(chosen),
            "mean_person_miou": exact_mean(miou_of_gt),
            "missed_persons": num_gt - num_hits,
            "false_detections": len(chosen) - num_hits,
        }


def score_submission(
    submission: Submission,
    records: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    *,
    thresholds: ScoreThresholds | None = None,
    part_regions_one_to_one: bool = False,
    part_regions_skip_ignored: bool = False,
    person_threshold: float = 0.3,
    on_missing: Literal["raise", "empty"] = "raise",
    on_error: Literal["raise", "skip"] = "raise",
    num_workers: int = 1,
    show_progress: bool = True,
    read_annotations: Callable[
        [Mapping[str, Any], int], PersonAnnotations
    ] = read_person_annotations,
) -> SubmissionScores:
    """Score a submission. The result does not depend on the number of workers.

    Args:
        submission: the results.
        records: records of the data set.
        class_names: the C class names of the data set.
        thresholds: lowest person scores of the metrics.
        part_regions_one_to_one, part_regions_skip_ignored: see
            :class:`~aiparsing_d2.evaluation.ParsingMetrics`.
        person_threshold: lowest person score that counts in the figures of single images.
        on_missing: what an image without a result is: an error, or an image without people.
        on_error: what a broken result or annotation is: an error, or a reason to leave the image
            out of all metrics.
        num_workers: processes to read and measure with; 1 uses none beside this one.
        show_progress: show a bar.
        read_annotations: reads the ground truth of a record, see
            :class:`~aiparsing_d2.evaluation.ParsingEvaluator`. With several workers it is sent to
            them.

    Raises:
        SubmissionError: no image of the data set has a result or can be scored; or, unless
            ``on_missing`` and ``on_error`` say otherwise, a single one has none or cannot. The
            message names it.
        ValueError: there are no records, or two have the same ``image_id``.
        WorkerDiedError: see :func:`~aiparsing_d2.parallel.map_in_processes`.
    """
    thresholds = ScoreThresholds() if thresholds is None else thresholds
    missing, unknown = _compare_ids(submission, records)
    if missing and on_missing == "raise":
        raise SubmissionError(
            f"{submission.files.root} has no result of {len(missing)} of the {len(records)} "
            f"images: {_named(missing)}"
        )
    scorer = _Scorer(
        submission,
        thresholds,
        part_regions_skip_ignored,
        person_threshold,
        submission.undefined_metrics(),
        read_annotations,
    )
    metrics = ParsingMetrics(
        submission.num_classes,
        class_names,
        score_thresh=thresholds.matching,
        semseg_thresh=thresholds.semantic,
        part_score_thresh=thresholds.part_regions,
        part_regions_one_to_one=part_regions_one_to_one,
        part_regions_skip_ignored=part_regions_skip_ignored,
    )
    absent = set(missing)
    tasks = [_Task(n, record, record["image_id"] in absent) for n, record in enumerate(records)]
    images: list[ImageScores] = []
    skipped: dict[str, str] = {}
    with map_in_processes(scorer, tasks, num_workers) as results:
        for image in tqdm(results, "Scoring", len(tasks), unit="image", disable=not show_progress):
            if not image.error:
                metrics.add_measured(image.image_id, image.statistics, image.confusion, image.order)
                images.append(image.scores)
            elif on_error == "skip":
                skipped[image.image_id] = image.error
            else:
                raise SubmissionError(f"image {image.image_id!r}: {image.error}")
    if not images:
        first = next(iter(skipped.values()))
        raise SubmissionError(
            f"of {counted(len(tasks), 'image')} none could be scored; the first: {first}"
        )
    return SubmissionScores(
        scores=_without_undefined(metrics.compute(), scorer.undefined),
        images=sorted(images, key=_badness),
        undefined=scorer.undefined,
        missing=missing,
        skipped=skipped,
        unknown=unknown,
    )


def _compare_ids(
    submission: Submission, records: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Compare the images of a data set with those of a submission.

    Returns:
        Ids of images without a result, in the order of the records, and of results without an
        image, sorted.

    Raises:
        SubmissionError: no image has a result.
        ValueError: there are no records, or two have the same ``image_id``.
    """
    if not records:
        raise ValueError("the data set has no images")
    image_ids = [record["image_id"] for record in records]
    (most_frequent, count), *_ = Counter(image_ids).most_common(1)
    if count > 1:
        raise ValueError(f"the data set has two records with image_id {most_frequent!r}")
    found = submission.image_ids()
    missing = [image_id for image_id in image_ids if image_id not in found]
    unknown = sorted(found.difference(image_ids))
    if len(missing) == len(image_ids):
        raise SubmissionError(
            f"{submission.files.root} has results of none of {counted(len(image_ids), 'image')}. "
            f"As {submission.format_name} it has the image ids: {_named(unknown)}. The data set's "
            f"are like {image_ids[0]!r}."
        )
    return missing, unknown


def read_prediction(
    submission: Submission, record: Mapping[str, Any], missing: bool = False
) -> Prediction:
    """Read the submission's result of a record; nobody in the image if it is ``missing``.

    Raises:
        SubmissionError: see :meth:`.Submission.read`.
    """
    image_size = (record["height"], record["width"])
    if missing:
        return Prediction(np.zeros((0, *image_size), dtype=np.uint8), np.zeros(0))
    return submission.read(record["image_id"], image_size)


def _without_undefined(
    scores: ParsingScores, undefined: Mapping[MetricGroup, str]
) -> ParsingScores:
    """Give the scores, with NaN for what the submission says nothing about."""
    blanked: dict[str, Any] = {}
    for fields, group in (
        (("class_iou", "miou", "pixel_accuracy", "mean_accuracy"), MetricGroup.PIXELS),
        (("app", "pcp"), MetricGroup.PEOPLE),
        (("apr", "apr_per_class"), MetricGroup.PART_REGIONS),
    ):
        if group in undefined:
            for field in fields:
                value = getattr(scores, field)
                is_array = isinstance(value, np.ndarray)
                blanked[field] = np.full_like(value, np.nan) if is_array else math.nan
    if MetricGroup.BOXES in undefined:
        blanked["box"] = None
    return dataclasses.replace(scores, **blanked)


def _badness(image: ImageScores) -> tuple[float, float, str]:
    """Sort the worst first, what is undefined last."""
    miou, mean_person_miou = (
        math.inf if math.isnan(value) else value for value in (image.miou, image.mean_person_miou)
    )
    return miou, mean_person_miou, image.image_id


def _named(image_ids: Sequence[str]) -> str:
    """Name the first few ids, and how many more there are."""
    names = ", ".join(repr(image_id) for image_id in image_ids[:_NUM_NAMED])
    more = len(image_ids) - _NUM_NAMED
    return f"{names} and {more} more" if more > 0 else names or "none"

"""Detectron2 evaluator of human parsing models."""

from __future__ import annotations

import json
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from aiparsing_d2.data.annotations import PersonAnnotations, read_person_annotations
from aiparsing_d2.structures import paste_part_maps
from aiparsing_d2.whole_files import whole_file

from .average_precision import IOU_THRESHOLDS
from .image_inputs import GroundTruth, Prediction
from .parsing_metrics import ParsingMetrics, ParsingScores, percentages

logger = logging.getLogger(__name__)

_REQUIRED_FIELDS = ("pred_part_maps", "scores", "pred_boxes")


class ParsingEvaluator(DatasetEvaluator):
    """Evaluate mIoU, AP^p, PCP, AP^r and box AP (see :class:`ParsingMetrics` for their meaning).

    Expects from the model, per image, ``{"instances": Instances}`` at the image's original size, as
    :class:`~aiparsing_d2.modeling.AIParsing` gives them, or Detectron2's own ``GeneralizedRCNN``
    with a parsing branch (``pred_part_logits`` are pasted here):

    ===================  =========================================================================
    ``pred_part_maps``   ``PartMaps`` of the N people
    ``scores``           (N,) person scores
    ``pred_part_scores`` (N, C), mean probability of each class over the person's pixels of that
                         class. Times the person score, it ranks the part regions of AP^r.
                         Optional: without it the person score ranks them.
    ``pred_boxes``       ``Boxes`` in pixels
    ``box_scores``       (N,) scores for box AP. Optional: without them ``scores`` are used.
    ===================  =========================================================================

    The data set's metadata must hold ``part_names`` and its records the keys ``image_id`` (unique)
    and whatever ``read_annotations`` needs. Ground truth is read when an image is processed, and
    nothing of the size of an image is kept. Among predictions of equal score the place of their
    image in the data set decides, so that the result does not depend on the number of processes.

    Attributes:
        model_precision: of the evaluated model, told in ``parsing_results.json``; whoever evaluates
            sets it. None: the model as it is trained.
    """

    model_precision: str | None = None

    def __init__(
        self,
        dataset_name: str,
        *,
        distributed: bool = True,
        output_dir: str | None = None,
        score_thresh: float = 0.001,
        semseg_thresh: float | None = None,
        part_score_thresh: float = 0.01,
        part_regions_one_to_one: bool = False,
        part_regions_skip_ignored: bool = False,
        box_group: str | None = "bbox",
        read_annotations: Callable[[dict, int], PersonAnnotations] = read_person_annotations,
    ):
        """
        Args:
            dataset_name: registered data set to evaluate on.
            distributed: collect the results of all processes (rank 0 returns them). Otherwise
                every process evaluates the images it was given.
            output_dir: folder in which to write ``parsing_results.json``.
            score_thresh: lowest person score that counts for AP^p and PCP.
            semseg_thresh: lowest person score that is painted into the category map. Default: the
                metadata's ``semseg_thresh``.
            part_score_thresh: lowest person score that is painted for AP^r.
            part_regions_one_to_one, part_regions_skip_ignored: see :class:`ParsingMetrics`.
            box_group: name of the group of box AP in the results; None leaves it out. To be set
                beside Detectron2's ``COCOEvaluator``, which has a group "bbox" too.
            read_annotations: called with a record of the data set and the number of classes, gives
                its :class:`~aiparsing_d2.data.annotations.PersonAnnotations`.

        Raises:
            ValueError: two records have the same ``image_id``, or ``box_group`` is "parsing".
        """
        if box_group == "parsing":
            raise ValueError('box_group cannot be "parsing", which is the name of the main group')
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
        self._box_group = box_group
        self._read_annotations = read_annotations
        self._settings: dict[str, Any] = {
            "score_thresh": score_thresh,
            "semseg_thresh": metadata.semseg_thresh if semseg_thresh is None else semseg_thresh,
            "part_score_thresh": part_score_thresh,
            "part_regions_one_to_one": part_regions_one_to_one,
            "part_regions_skip_ignored": part_regions_skip_ignored,
        }
        self._part_names = list(metadata.part_names)
        self._records: dict[str, tuple[int, dict]] = {}
        for order, record in enumerate(DatasetCatalog.get(dataset_name)):
            image_id = record["image_id"]
            if image_id in self._records:
                raise ValueError(
                    f"data set {dataset_name!r} has two records with image_id {image_id!r}: "
                    f"{self._records[image_id][1]['file_name']} and {record['file_name']}"
                )
            self._records[image_id] = (order, record)
        self.reset()

    def reset(self) -> None:
        """Forget the images processed so far."""
        self._metrics = ParsingMetrics(len(self._part_names), self._part_names, **self._settings)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Score a batch.

        Args:
            inputs: one dict per image with ``image_id``.
            outputs: one dict per image with ``instances``, see the class.

        Raises:
            ValueError: an image is not of the data set, was processed before, or cannot be scored;
                the message names it.
            KeyError, FileNotFoundError: it has no annotations, see
                :func:`~aiparsing_d2.data.annotations.read_person_annotations`.
        """
        for model_input, output in zip(inputs, outputs, strict=True):
            image_id = model_input["image_id"]
            if image_id not in self._records:
                raise ValueError(
                    f"image {image_id!r} is not in the data set {self._dataset_name!r}"
                )
            order, record = self._records[image_id]
            annotations = self._read_annotations(record, len(self._part_names))
            try:
                prediction = to_prediction(output["instances"], annotations.category_map.shape)
            except ValueError as error:
                raise ValueError(f"image {image_id!r}: {error}") from error
            self._metrics.add_image(
                record["image_id"],  # kept anyway; the input's is a copy if it was loaded elsewhere
                GroundTruth(annotations.person_maps, annotations.category_map, annotations.boxes),
                prediction,
                image_order=order,
            )

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Compute the metrics of all processed images, log them and write them.

        Returns:
            ``{"parsing": {...}, "bbox": {...}}`` in percent, see :meth:`ParsingMetrics.summarize`;
            the second under the name ``box_group``.
            Empty on all ranks but the first, and if no image was processed.
        """
        metrics = self._metrics
        if self._distributed:
            comm.synchronize()
            parts = comm.gather(self._metrics, dst=0)
            if not comm.is_main_process():
                return OrderedDict()
            metrics = ParsingMetrics(len(self._part_names), self._part_names, **self._settings)
            for part in parts:
                metrics.merge(part)
        if metrics.num_images == 0:
            logger.warning("[ParsingEvaluator] No image of %s was processed.", self._dataset_name)
            return OrderedDict()
        if metrics.num_images < len(self._records):
            logger.warning(
                "[ParsingEvaluator] Only %d of the %d images of %s were processed; the figures are "
                "those of this subset.",
                metrics.num_images,
                len(self._records),
                self._dataset_name,
            )

        scores = metrics.compute()
        results = OrderedDict(percentages(scores, self._part_names))
        boxes = results.pop("bbox", None)
        if boxes is not None and self._box_group is not None:
            results[self._box_group] = boxes
        self._log(scores, results, metrics.num_images)
        if self._output_dir:
            self._write(scores, results, metrics.num_images)
        return results

    def _log(
        self, scores: ParsingScores, results: dict[str, dict[str, float]], num_images: int
    ) -> None:
        main = {name: value for name, value in results["parsing"].items() if "-" not in name}
        by_threshold = tabulate(
            [
                [metric, *(100 * values), 100 * values.mean()]
                for metric, values in (
                    ("APp", scores.app),
                    ("PCP", scores.pcp),
                    ("APr", scores.apr),
                )
            ],
            headers=["metric", *(f"{t:.1f}" for t in IOU_THRESHOLDS), "mean"],
            tablefmt="pipe",
            floatfmt=".3f",
        )
        apr = scores.apr_per_class
        by_class = tabulate(
            [
                [name, 100 * iou, 100 * values[IOU_THRESHOLDS.index(0.5)], 100 * values.mean()]
                for name, iou, values in zip(self._part_names, scores.class_iou, apr)
            ],
            headers=["class", "IoU", "APr50", "APrvol"],
            tablefmt="pipe",
            floatfmt=".3f",
        )
        logger.info(
            "Human parsing on %d images of %s, in percent:\n%s",
            num_images,
            self._dataset_name,
            create_small_table(main),
        )
        if self._box_group in results:
            logger.info("Person boxes:\n%s", create_small_table(results[self._box_group]))
        logger.info("By IoU threshold:\n%s", by_threshold)
        logger.info("By class (nan: not in the ground truth):\n%s", by_class)

    def _write(
        self, scores: ParsingScores, results: dict[str, dict[str, float]], num_images: int
    ) -> None:
        per_class = {
            name: {
                "IoU": _finite_or_none(100 * iou),
                "APr": [_finite_or_none(100 * value) for value in apr],
            }
            for name, iou, apr in zip(self._part_names, scores.class_iou, scores.apr_per_class)
        }
        content = {
            "dataset": self._dataset_name,
            "num_images": num_images,
            "model_precision": self.model_precision,
            "settings": self._settings,
            "iou_thresholds": list(IOU_THRESHOLDS),
            "results": {
                group: {name: _finite_or_none(value) for name, value in values.items()}
                for group, values in results.items()
            },
            "per_class": per_class,
        }
        path = Path(self._output_dir, "parsing_results.json")
        with whole_file(path, durable=True) as file:
            json.dump(content, file, indent=2)
        logger.info("Wrote %s", path)


def to_prediction(instances: Instances, image_size: tuple[int, int]) -> Prediction:
    """Convert a model's output for an image to plain arrays.

    Args:
        instances: as :class:`ParsingEvaluator` takes them; without any field if nobody was found.
        image_size: (H, W) of the image in pixels.

    Raises:
        ValueError: the output has another size, lacks a field or has maps of a wrong dtype.
    """
    if tuple(instances.image_size) != tuple(image_size):
        raise ValueError(
            f"the model's instances have the size {instances.image_size}, the image has "
            f"{image_size} (height, width)"
        )
    if not instances.get_fields():
        return Prediction(np.zeros((0, *image_size), dtype=np.uint8), np.zeros(0))
    instances = paste_part_maps(instances)
    missing = [name for name in _REQUIRED_FIELDS if not instances.has(name)]
    if missing:
        raise ValueError(f"the model's instances have no {missing[0]}")
    instances = instances.to("cpu")
    scores = instances.scores.double().numpy()
    part_scores = box_scores = None
    if instances.has("pred_part_scores"):
        part_scores = scores[:, None] * instances.pred_part_scores[:, 1:].double().numpy()
    if instances.has("box_scores"):
        box_scores = instances.box_scores.double().numpy()
    return Prediction(
        instances.pred_part_maps.to_cropped_maps(),
        scores,
        part_scores=part_scores,
        boxes=instances.pred_boxes.tensor.double().numpy(),
        box_scores=box_scores,
    )


def _finite_or_none(value: float) -> float | None:
    """Give the plain number, None where it is undefined: JSON has no NaN."""
    return None if math.isnan(value) else float(value)

"""Writing a model's results while it is evaluated."""

from __future__ import annotations

import os
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.evaluation.parsing_evaluator import to_prediction

from .formats import find_format

__all__ = ["SubmissionWriter"]


class SubmissionWriter(DatasetEvaluator):
    """Writes a model's results to disk, in one of the formats of this package.

    Scores nothing; put it beside a :class:`~aiparsing_d2.evaluation.ParsingEvaluator`, whose
    outputs it takes, or use it alone where there is no ground truth::

        DatasetEvaluators([
            ParsingEvaluator("cihp_val"),
            SubmissionWriter("cihp_val", "output/cihp_val_results", "cihp"),
        ])

    Several processes write into one folder. It must be new or empty: results are never overwritten
    or mixed with others.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | os.PathLike,
        format_name: str = "person_maps",
        *,
        distributed: bool = True,
        score_thresh: float = 0.001,
        semseg_thresh: float | None = None,
        part_score_thresh: float = 0.01,
    ):
        """
        Args:
            dataset_name: registered data set whose images are processed.
            output_dir: folder to write into.
            format_name: a key of :data:`~aiparsing_d2.submissions.SUBMISSION_FORMATS`.
            distributed: all processes write the results of one evaluation. Otherwise each is on its
                own and needs an ``output_dir`` of its own.
            score_thresh, semseg_thresh, part_score_thresh: as those of the
                :class:`~aiparsing_d2.evaluation.ParsingEvaluator`; formats that hold pictures of
                all people show those from these scores on.

        Raises:
            ValueError: there is no format of that name.
        """
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._submission = find_format(format_name)(
            output_dir,
            len(metadata.part_names),
            ScoreThresholds(
                score_thresh,
                metadata.semseg_thresh if semseg_thresh is None else semseg_thresh,
                part_score_thresh,
            ),
        )
        self._records = {
            record["image_id"]: (order, record)
            for order, record in enumerate(DatasetCatalog.get(dataset_name))
        }
        self._index: list[tuple[int, str]] = []

    def reset(self) -> None:
        """Prepare for an evaluation.

        Raises:
            FileExistsError: the folder is not empty.
        """
        folder = self._submission.files.root
        occupied = folder.exists() and not _is_empty_folder(folder)
        if self._distributed:
            # Everybody looks before anybody writes, and all fail if one does.
            occupied = any(comm.all_gather(occupied))
        if occupied:
            raise FileExistsError(
                f"{folder} is not an empty folder; results are written to a new or empty one"
            )
        self._index = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Write a batch.

        Args:
            inputs: one dict per image with ``image_id``.
            outputs: one dict per image with ``instances``, see
                :class:`~aiparsing_d2.evaluation.ParsingEvaluator`.

        Raises:
            ValueError: an image is not of the data set, or its results cannot be written; the
                message names it.
            FileExistsError: an image comes a second time.
        """
        for model_input, output in zip(inputs, outputs, strict=True):
            image_id = model_input["image_id"]
            if image_id not in self._records:
                raise ValueError(
                    f"image {image_id!r} is not in the data set {self._dataset_name!r}"
                )
            order, record = self._records[image_id]
            image_size = (record["height"], record["width"])
            try:
                prediction = to_prediction(output["instances"], image_size)
                line = self._submission.write(image_id, prediction, image_size)
            except ValueError as error:
                raise ValueError(f"image {image_id!r}: {error}") from error
            self._index.append((order, line))

    def evaluate(self) -> dict:
        """Complete what was written; there is nothing to return.

        Returns:
            An empty dict.
        """
        index = self._index
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather(index, dst=0)
            if not comm.is_main_process():
                return {}
            index = [entry for part in gathered for entry in part]
        self._submission.write_index([line for _, line in sorted(index)])
        return {}


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None

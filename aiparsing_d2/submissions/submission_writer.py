"""Writing a model's results while it is evaluated."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from aiparsing_d2.evaluation.image_inputs import Prediction
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.evaluation.parsing_evaluator import to_prediction

from .formats import find_format

__all__ = ["SubmissionWriter"]

_IMAGES_AHEAD = 2
"""Images a thread that may wait to be written, or to be asked whether they were."""


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

    Threads write while the model goes on (compressing the PNGs is most of the work, and does not
    hold up Python). What goes wrong in them is raised by a later :meth:`process`, or by
    :meth:`evaluate` at the latest.
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
        num_threads: int = 2,
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
            num_threads: how many write.

        Raises:
            ValueError: there is no format of that name, or no thread.
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
        self._pool = ThreadPoolExecutor(num_threads, "SubmissionWriter")
        self._max_waiting = _IMAGES_AHEAD * num_threads
        self._waiting: deque[tuple[int, Future[str]]] = deque()
        self._taken: set[str] = set()
        self._index: list[tuple[int, str]] = []

    def reset(self) -> None:
        """Prepare for an evaluation.

        Raises:
            FileExistsError: the folder is not empty.
        """
        wait([future for _, future in self._waiting])  # of an evaluation that was broken off
        folder = self._submission.files.root
        occupied = folder.exists() and not _is_empty_folder(folder)
        if self._distributed:
            # Everybody looks before anybody writes, and all fail if one does.
            occupied = any(comm.all_gather(occupied))
        if occupied:
            raise FileExistsError(
                f"{folder} is not an empty folder; results are written to a new or empty one"
            )
        self._waiting.clear()
        self._taken.clear()
        self._index = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Have a batch written.

        Args:
            inputs: one dict per image with ``image_id``.
            outputs: one dict per image with ``instances``, see
                :class:`~aiparsing_d2.evaluation.ParsingEvaluator`.

        Raises:
            ValueError: an image is not of the data set, or the results of this or an earlier one
                cannot be written; the message names it.
            FileExistsError: an image comes a second time.
            OSError: a file of this or an earlier image cannot be written.
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
            except ValueError as error:
                raise ValueError(f"image {image_id!r}: {error}") from error
            if image_id in self._taken:
                raise FileExistsError(
                    f"image {image_id!r} comes a second time; its results exist in "
                    f"{self._submission.files.root}"
                )
            self._taken.add(image_id)
            future = self._pool.submit(self._write, image_id, prediction, image_size)
            self._waiting.append((order, future))
            self._collect(self._max_waiting)

    def _write(self, image_id: str, prediction: Prediction, image_size: tuple[int, int]) -> str:
        try:
            return self._submission.write(image_id, prediction, image_size)
        except ValueError as error:
            raise ValueError(f"image {image_id!r}: {error}") from error

    def _collect(self, max_waiting: int) -> None:
        """Take what was written, and wait until no more images than these are to be.

        Raises:
            ValueError, OSError: one could not be written.
        """
        while self._waiting and (len(self._waiting) > max_waiting or self._waiting[0][1].done()):
            order, future = self._waiting.popleft()
            self._index.append((order, future.result()))

    def evaluate(self) -> dict:
        """Complete what was written; there is nothing to return.

        Returns:
            An empty dict.

        Raises:
            ValueError, OSError: see :meth:`process`.
        """
        self._collect(0)
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

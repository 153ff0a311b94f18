"""What all formats of results on disk have in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import ClassVar

import numpy as np

from aiparsing_d2.counted import counted
from aiparsing_d2.evaluation.image_inputs import (
    Prediction,
    check_category_map,
    check_part_regions,
)
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.structures.cropped_maps import CroppedMaps, check_cropped_maps

from .files import SubmissionFolder

__all__ = ["MetricGroup", "Submission", "checked_person_maps"]


class MetricGroup(Enum):
    """Metrics that are defined by the same kind of results; the value names them."""

    PIXELS = "mIoU, pACC, mACC"
    PEOPLE = "APp, PCP"
    PART_REGIONS = "APr"
    BOXES = "box AP"


class Submission(ABC):
    """Results of one system on one data set, in a folder.

    Images are read and written one at a time. Several processes may write to one folder, each image
    by one of them; one of them then writes the index.

    Attributes:
        format_name: name of the format.
        files: the folder.
        num_classes: number of classes C of the data set, background included.
        thresholds: lowest person scores of what is painted when an image is written in a format
            that holds pictures of all people instead of every person alone.
    """

    format_name: ClassVar[str]

    def __init__(
        self,
        folder: str | os.PathLike,
        num_classes: int,
        thresholds: ScoreThresholds | None = None,
    ):
        """
        Args:
            folder: where the results are, or are to be written.
            num_classes: number of classes of the data set, background included.
            thresholds: see the class; those of the evaluation make the results score the same.
        """
        self.files = SubmissionFolder(folder)
        self.num_classes = num_classes
        self.thresholds = ScoreThresholds() if thresholds is None else thresholds

    @staticmethod
    @abstractmethod
    def recognizes(folder: Path) -> bool:
        """Whether an existing folder looks like this format."""

    def undefined_metrics(self) -> Mapping[MetricGroup, str]:
        """Metrics that the folder says nothing about, each with the reason."""
        return {}

    @abstractmethod
    def image_ids(self) -> set[str]:
        """Ids of the images that the folder has results of, complete or not.

        Raises:
            SubmissionError: the index is broken.
        """

    @abstractmethod
    def read(self, image_id: str, image_size: tuple[int, int]) -> Prediction:
        """Results of one image.

        Args:
            image_id: one of :meth:`image_ids`.
            image_size: ``(H, W)`` in pixels, which all label maps must have.

        Raises:
            SubmissionError: a file is missing or broken or contradicts another one. The message
                names the file.
        """

    @abstractmethod
    def write(self, image_id: str, prediction: Prediction, image_size: tuple[int, int]) -> str:
        """Write one image.

        Args:
            image_id: as the data set gives it.
            prediction: the system's output, all scores in 0..1.
            image_size: ``(H, W)`` in pixels.

        Returns:
            The image's line of the index, for :meth:`write_index`; empty in formats without one.

        Raises:
            FileExistsError: the folder has results of this image.
            ValueError: the format cannot hold the prediction.
        """

    def write_index(self, lines: Sequence[str]) -> None:  # noqa: B027  most formats have none
        """Write the file that lists all images, where the format has one.

        Args:
            lines: what :meth:`write` gave for each image, in the order of the data set.
        """


def checked_person_maps(
    prediction: Prediction, image_size: tuple[int, int], num_classes: int
) -> CroppedMaps:
    """Return the people of a prediction, full maps cropped to their pixels; all of it is checked
    for what would not be readable again.

    Raises:
        ValueError: a label is not below ``num_classes``, a score is not in 0..1, an array does not
            fit the image or the number of people, or a region map has a value of no region.
    """
    maps, num_people = prediction.person_maps, len(prediction.scores)
    height, width = image_size
    if isinstance(maps, CroppedMaps):
        windows = np.asarray(maps.windows).reshape(-1, 4)
        check_cropped_maps(maps.maps, windows.tolist(), image_size, "person maps")
        if len(maps.maps) != num_people:
            raise ValueError(
                f"got {counted(len(maps.maps), 'person map')}, but {counted(num_people, 'score')}"
            )
        maps = CroppedMaps(maps.maps, windows)
    else:
        if maps.dtype != np.uint8 or maps.shape != (num_people, *image_size):
            raise ValueError(
                f"person maps must be uint8 with shape {(num_people, *image_size)} "
                f"(scores, height, width), got {maps.dtype} {maps.shape}"
            )
        whole = np.tile(np.array([0, 0, width, height]), (num_people, 1))
        maps = CroppedMaps(list(maps), whole).tightened()
    highest = max((crop.max(initial=0) for crop in maps.maps), default=0)
    if highest >= num_classes:
        raise ValueError(f"a person map has the label {highest}; labels are 0 to {num_classes - 1}")
    if prediction.category_map is not None:
        check_category_map(prediction.category_map, (height, width), num_classes)
    regions = prediction.part_regions
    if regions is not None:
        check_part_regions(regions, (height, width), num_classes)
    for name, shape in (
        ("part_scores", (num_people, num_classes - 1)),
        ("boxes", (num_people, 4)),
        ("box_scores", (num_people,)),
    ):
        values = getattr(prediction, name)
        if values is not None and np.shape(values) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {np.shape(values)}")
    for name, scores in (
        ("scores", prediction.scores),
        ("part_scores", prediction.part_scores),
        ("box_scores", prediction.box_scores),
        ("scores of part_regions", None if regions is None else regions.scores),
    ):
        # NaN is not in there either.
        if scores is not None and not all(0 <= score <= 1 for score in np.ravel(scores).tolist()):
            raise ValueError(f"{name} must be in 0..1 to be written")
    return maps

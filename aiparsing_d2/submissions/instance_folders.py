"""The three result folders of the LIP challenges, which CIHP and VIP share.

===============================  ===================================================================
``global_parsing/*.png``         class of every pixel
``instance_parsing/*.png``       number of the part region at every pixel, 0 = none
``instance_parsing/*.txt``       line k: ``class score`` of region k
``instance_segmentation/*.png``  number of the person at every pixel, 0 = nobody
``instance_segmentation/*.txt``  line k: ``score y1 x1 y2 x2`` of person k
===============================  ===================================================================

PNGs are 8-bit grey or palette pictures (whose indices count), or 16-bit grey ones where there are
more than 255 regions. Boxes are in pixels, ends exclusive.

Scoring: mIoU from ``global_parsing``, APr from ``instance_parsing``. APp and PCP take as a person
the pixels that ``instance_segmentation`` gives it, each with the class of its region in
``instance_parsing`` (without that folder: its class in ``global_parsing``); box AP takes the boxes,
ranked by the score of the person. Metrics of a folder that is missing are undefined.

Predictions written by :meth:`InstanceFolders.write` score the same when read back

* in mIoU, pixel and mean accuracy and APr: always;
* in APp and PCP: if no two predicted people share a pixel, every person has a pixel, no score is
  between the thresholds of matching and of part regions, and the part regions are those of the
  people. Of an overlap only the visible person keeps the pixel, and people below the threshold of
  part regions, or hidden altogether, are not written;
* in box AP: if all people are written and there are no box scores beside the person scores.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from aiparsing_d2.counted import counted
from aiparsing_d2.data.json_files import shortened
from aiparsing_d2.evaluation.image_inputs import PartRegions, Prediction

from .composition import Composition
from .files import SubmissionError, parse_integer, parse_score
from .submission import MetricGroup, Submission

__all__ = ["FOLDER_NAMES", "InstanceFolders"]

_CATEGORIES, _REGIONS, _PEOPLE = "global_parsing", "instance_parsing", "instance_segmentation"
FOLDER_NAMES = (_CATEGORIES, _REGIONS, _PEOPLE)


class InstanceFolders(Submission):
    """Results in the three folders, see the module."""

    needs_boxes: ClassVar[bool]
    """Whether every person must have a box. A prediction without boxes is then written with those
    of its visible pixels."""

    @abstractmethod
    def file_name(self, image_id: str, folder_name: str, suffix: str) -> str:
        """Name of one of an image's files, relative to the folder of the submission."""

    @abstractmethod
    def folders(self, folder_name: str) -> Iterator[tuple[str, Path]]:
        """Return the existing folders of that name, and what precedes their file names in image
        ids.
        """

    @cached_property
    def _present(self) -> frozenset[str]:
        return frozenset(name for name in FOLDER_NAMES if next(self.folders(name), None))

    def undefined_metrics(self) -> Mapping[MetricGroup, str]:
        undefined = {}
        if _CATEGORIES not in self._present:
            undefined[MetricGroup.PIXELS] = f"there is no folder {_CATEGORIES}"
        if _REGIONS not in self._present:
            undefined[MetricGroup.PART_REGIONS] = f"there is no folder {_REGIONS}"
        if _PEOPLE not in self._present:
            undefined[MetricGroup.PEOPLE] = f"there is no folder {_PEOPLE}"
            undefined[MetricGroup.BOXES] = undefined[MetricGroup.PEOPLE]
        elif self._present == {_PEOPLE}:
            undefined[MetricGroup.PEOPLE] = f"there is no folder {_REGIONS} or {_CATEGORIES}"
        return undefined

    def image_ids(self) -> set[str]:
        return {
            prefix + path.stem
            for name in self._present
            for prefix, folder in self.folders(name)
            for path in folder.iterdir()
            if path.suffix in (".png", ".txt")
        }

    def read(self, image_id: str, image_size: tuple[int, int]) -> Prediction:
        category_map = part_regions = labels = None
        if _CATEGORIES in self._present:
            name = self.file_name(image_id, _CATEGORIES, ".png")
            labels = category_map = self.files.read_label_map(name, image_size, self.num_classes)
        if _REGIONS in self._present:
            part_regions = self._read_part_regions(image_id, image_size)
            classes = np.concatenate([[0], part_regions.classes]).astype(np.uint8)
            labels = classes[part_regions.region_map]

        person_maps, scores, boxes = np.zeros((0, *image_size), dtype=np.uint8), np.zeros(0), None
        if _PEOPLE in self._present:
            person_map, scores, boxes = self._read_people(image_id, image_size)
            if labels is not None:
                people = np.arange(1, len(scores) + 1)[:, None, None]
                person_maps = np.where(person_map == people, labels, np.uint8(0))
        return Prediction(
            person_maps,
            scores,
            boxes=boxes,
            category_map=category_map,
            part_regions=part_regions,
        )

    def _read_part_regions(self, image_id: str, image_size: tuple[int, int]) -> PartRegions:
        region_map, rows = self._read_numbered(image_id, _REGIONS, image_size)
        classes, scores = [], []
        for k, row in enumerate(rows, start=1):
            try:
                if len(row) != 2:
                    raise ValueError(f"it has {len(row)} words")
                label, score = row
                classes.append(parse_integer(label))
                scores.append(parse_score(score))
                if not 1 <= classes[-1] < self.num_classes:
                    raise ValueError(f"parts are 1 to {self.num_classes - 1}")
            except ValueError as error:
                raise self._row_error(image_id, _REGIONS, k, row, "class score", error) from error
        return PartRegions(region_map, np.array(classes, dtype=np.int64), np.array(scores))

    def _read_people(
        self, image_id: str, image_size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Map of the numbers of the people, their scores, and their boxes as XYXY."""
        person_map, rows = self._read_numbered(image_id, _PEOPLE, image_size)
        scores, boxes = [], []
        for k, row in enumerate(rows, start=1):
            try:
                if len(row) != 5 and (self.needs_boxes or len(row) != 1):
                    raise ValueError(f"it has {len(row)} words")
                score, *box = row
                scores.append(parse_score(score))
                if box:
                    y0, x0, y1, x1 = (float(side) for side in box)
                    if not (x0 <= x1 and y0 <= y1 and np.isfinite([x0, y0, x1, y1]).all()):
                        raise ValueError("the box ends before it begins")
                    boxes.append((x0, y0, x1, y1))
            except ValueError as error:
                expected = "score y1 x1 y2 x2"
                raise self._row_error(image_id, _PEOPLE, k, row, expected, error) from error
        if boxes and len(boxes) < len(scores):
            name = self.file_name(image_id, _PEOPLE, ".txt")
            raise SubmissionError(
                f"{self.files.path(name)}: {len(boxes)} of {len(scores)} people have a box; all "
                "or none must"
            )
        return person_map, np.array(scores), np.array(boxes) if boxes else None

    def _read_numbered(
        self, image_id: str, folder_name: str, image_size: tuple[int, int]
    ) -> tuple[np.ndarray, list[list[str]]]:
        """Return a map of numbers 1..K and the words of the K lines that go with it."""
        png_name = self.file_name(image_id, folder_name, ".png")
        txt_name = self.file_name(image_id, folder_name, ".txt")
        rows = self.files.read_rows(txt_name)
        numbers = self.files.read_png(png_name, image_size)
        values = np.unique(numbers[numbers > 0])
        if values.max(initial=0) > len(rows):
            raise SubmissionError(
                f"{self.files.path(png_name)} has the value {values.max()}, but "
                f"{self.files.path(txt_name)} has {counted(len(rows), 'line')}; line k goes with "
                "value k"
            )
        if len(values) < len(rows):
            without = np.setdiff1d(np.arange(1, len(rows) + 1), values)[0]
            raise SubmissionError(
                f"line {without} of {self.files.path(txt_name)} has no pixels: there is no value "
                f"{without} in {self.files.path(png_name)}"
            )
        return numbers, rows

    def _row_error(
        self,
        image_id: str,
        folder_name: str,
        number: int,
        row: list[str],
        expected: str,
        error: ValueError,
    ) -> SubmissionError:
        path = self.files.path(self.file_name(image_id, folder_name, ".txt"))
        return SubmissionError(
            f"{path}, line {number}: {shortened(' '.join(row))} must be '{expected}' ({error})"
        )

    def write(self, image_id: str, prediction: Prediction, image_size: tuple[int, int]) -> str:
        picture = Composition(
            prediction,
            image_size,
            self.num_classes,
            self.thresholds,
            # Lower than this, no class of the person's pixels could be read from its regions.
            self.thresholds.part_regions,
        )
        regions = picture.part_regions
        self.files.write_png(self.file_name(image_id, _CATEGORIES, ".png"), picture.category_map)
        self._write_numbered(
            image_id,
            _REGIONS,
            regions.region_map,
            [f"{c} {float(score)!r}" for c, score in zip(regions.classes, regions.scores)],
        )
        self._write_numbered(
            image_id, _PEOPLE, picture.person_map, self._person_rows(prediction, picture)
        )
        return ""

    def _person_rows(self, prediction: Prediction, picture: Composition) -> list[str]:
        rows = []
        for k, n in enumerate(picture.visible, start=1):
            words = [float(prediction.scores[n])]
            if prediction.boxes is not None:
                x0, y0, x1, y1 = (float(side) for side in prediction.boxes[n])
                words += [y0, x0, y1, x1]
            elif self.needs_boxes:
                ys, xs = np.nonzero(picture.person_map == k)
                words += [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]
            rows.append(" ".join(str(word) for word in words))
        return rows

    def _write_numbered(
        self, image_id: str, folder_name: str, numbers: np.ndarray, rows: list[str]
    ) -> None:
        self.files.write_png(self.file_name(image_id, folder_name, ".png"), numbers)
        text = "".join(f"{row}\n" for row in rows)
        self.files.write_text(self.file_name(image_id, folder_name, ".txt"), text)

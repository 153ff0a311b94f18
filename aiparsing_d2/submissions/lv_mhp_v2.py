"""The format ``lv_mhp_v2``: what the public scoring script of LV-MHP-v2 reads.

::

    <folder>/
      results.txt                 a line per image: its id, then number and score of every person
      global_seg/<image_id>.png   class of every pixel
      global_tag/<image_id>.png   number of the person at every pixel, 0 = nobody

Documented by that script (``eval_submission.py`` of the data set's authors): the names of the files
and folders, the lines of ``results.txt``, that a person's map is ``global_seg`` where
``global_tag`` has the person's number, and that a listed person without a pixel is left out.

Our choice: people are numbered from 1; there are 16-bit PNGs where there are more than 255 people;
both pictures show the people from the threshold of mIoU on; mIoU takes ``global_seg``; a number in
``global_tag`` that ``results.txt`` does not list is an error, as that person would be lost. The
format holds neither scores of part regions nor boxes: APr and box AP are undefined.

Predictions written by :meth:`LvMhpV2Submission.write` score the same when read back

* in mIoU, pixel and mean accuracy: always;
* in APp and PCP: if no two predicted people share a pixel, every person has a pixel, no score is
  between the thresholds of matching and of mIoU, and the category map is that of the people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from aiparsing_d2.evaluation.image_inputs import Prediction

from .composition import Composition
from .files import SubmissionError, parse_integer, parse_score
from .submission import MetricGroup, Submission

__all__ = ["LvMhpV2Submission"]

_INDEX, _CATEGORIES, _PEOPLE = "results.txt", "global_seg", "global_tag"


class LvMhpV2Submission(Submission):
    """Results in the format ``lv_mhp_v2``, see the module."""

    format_name = "lv_mhp_v2"

    @staticmethod
    def recognizes(folder: Path) -> bool:
        return (folder / _INDEX).is_file() and (folder / _PEOPLE).is_dir()

    def undefined_metrics(self) -> Mapping[MetricGroup, str]:
        return {
            MetricGroup.PART_REGIONS: "the format holds no scores of part regions",
            MetricGroup.BOXES: "the format holds no boxes",
        }

    @cached_property
    def _people(self) -> dict[str, dict[int, float]]:
        """Scores of the people of every image, by their numbers."""
        path = self.files.path(_INDEX)
        people: dict[str, dict[int, float]] = {}
        for number, row in enumerate(self.files.read_rows(_INDEX), start=1):
            if not row or len(row) % 2 == 0:
                raise SubmissionError(
                    f"{path}, line {number}: an image id and pairs of a person's number and score "
                    f"are needed, got {len(row)} words"
                )
            image_id, *words = row
            if image_id in people:
                raise SubmissionError(f"{path}, line {number}: image {image_id!r} is listed twice")
            scores: dict[int, float] = {}
            try:
                for person, score in zip(
                    map(parse_integer, words[::2]), map(parse_score, words[1::2])
                ):
                    if person < 1 or person in scores:
                        raise ValueError(f"person {person} is below 1 or listed twice")
                    scores[person] = score
            except ValueError as error:
                raise SubmissionError(
                    f"{path}, line {number}, image {image_id!r}: {error}"
                ) from error
            people[image_id] = scores
        return people

    def image_ids(self) -> set[str]:
        return set(self._people)

    def read(self, image_id: str, image_size: tuple[int, int]) -> Prediction:
        scores = self._people[image_id]
        category_map = self.files.read_label_map(
            f"{_CATEGORIES}/{image_id}.png", image_size, self.num_classes
        )
        person_map = self.files.read_png(f"{_PEOPLE}/{image_id}.png", image_size)
        tagged = np.unique(person_map[person_map > 0]).tolist()
        unlisted = [person for person in tagged if person not in scores]
        if unlisted:
            raise SubmissionError(
                f"{self.files.path(f'{_PEOPLE}/{image_id}.png')} has the value {unlisted[0]}, but "
                f"{self.files.path(_INDEX)} lists no such person of image {image_id!r}"
            )
        # In the order of the line, which ranks people of equal score.
        visible = [person for person in scores if person in set(tagged)]
        numbers = np.array(visible, dtype=person_map.dtype)[:, None, None]
        return Prediction(
            np.where(person_map == numbers, category_map, np.uint8(0)),
            np.array([scores[person] for person in visible], dtype=np.float64),
            category_map=category_map,
        )

    def write(self, image_id: str, prediction: Prediction, image_size: tuple[int, int]) -> str:
        if len(image_id.split()) != 1:
            raise ValueError(f"{_INDEX} cannot hold the image id {image_id!r}: it has white space")
        picture = Composition(
            prediction,
            image_size,
            self.num_classes,
            self.thresholds,
            # Lower than this, no class of the person's pixels could be read from the category map.
            self.thresholds.semantic,
        )
        self.files.write_png(f"{_CATEGORIES}/{image_id}.png", picture.category_map)
        self.files.write_png(f"{_PEOPLE}/{image_id}.png", picture.person_map)
        words = [
            f"{k} {float(prediction.scores[n])!r}" for k, n in enumerate(picture.visible, start=1)
        ]
        return " ".join([image_id, *words])

    def write_index(self, lines: Sequence[str]) -> None:
        self.files.write_text(_INDEX, "".join(f"{line}\n" for line in lines))

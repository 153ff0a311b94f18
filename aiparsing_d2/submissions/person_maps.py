"""The format ``person_maps``: every person alone, so that nothing is lost where people overlap.

::

    <folder>/
      <image_id>.json         the people of the image
      <image_id>_1.png        label map of the first person, as large as the image: 8-bit grey,
                              0 = not this person, 1..C-1 = part
      <image_id>_2.png        ...

An image id may hold slashes (``videos1/000000000001``). The JSON file::

    {"persons": [{"map": "0000007_1.png",           file name, relative to <folder>
                  "score": 0.93,                    ranks people in APp
                  "part_scores": [0.9, 0.0, ...],   optional: of the parts 1..C-1, rank regions in
                                                    APr; the person's score if left out
                  "box": [12, 30.5, 118, 260],      optional: x0, y0, x1, y1 in pixels, for box AP
                  "box_score": 0.97}]}              optional: ranks boxes; the person's score if
                                                    left out

All scores are in 0..1. An image without people has ``{"persons": []}``. The ten lines that make any
system's output readable::

    import json
    from pathlib import Path
    from PIL import Image

    for image_id, people in results.items():
        persons = []
        for k, (label_map, score, box) in enumerate(people, start=1):  # uint8 (H, W), float, XYXY
            name = f"{image_id}_{k}.png"
            Image.fromarray(label_map).save(Path(folder, name))
            persons.append({"map": name, "score": float(score), "box": [float(x) for x in box]})
        Path(folder, f"{image_id}.json").write_text(json.dumps({"persons": persons}))

A system that does not compose its category map or part regions from its people, and wants mIoU and
APr computed on them as they are, adds beside "persons"::

    "category_map": "0000007_classes.png"                              label of every pixel
    "part_regions": {"map": "0000007_regions.png",                     number of the region, 0 =
                     "regions": [{"class": 2, "score": 0.8}, ...]}     none; region 1 comes first

Written predictions read back score bit for bit the same in every metric.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from aiparsing_d2.counted import counted
from aiparsing_d2.data.json_files import JsonError, read_json, shortened
from aiparsing_d2.evaluation.image_inputs import PartRegions, Prediction
from aiparsing_d2.structures.cropped_maps import CroppedMaps

from .files import SubmissionError
from .submission import Submission, checked_person_maps

__all__ = ["PersonMapsSubmission"]


class PersonMapsSubmission(Submission):
    """Results in the format ``person_maps``, see the module."""

    format_name = "person_maps"

    @staticmethod
    def recognizes(folder: Path) -> bool:
        return next(folder.rglob("*.json"), None) is not None

    def image_ids(self) -> set[str]:
        root = self.files.root
        return {path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.json")}

    def read(self, image_id: str, image_size: tuple[int, int]) -> Prediction:
        name = f"{image_id}.json"
        try:
            content = read_json(self.files.path(name))
        except JsonError as error:
            raise SubmissionError(str(error)) from error
        except OSError as error:
            raise SubmissionError(f"{self.files.path(name)} cannot be read: {error}") from error
        try:
            return self._to_prediction(content, image_size)
        except _ContentError as error:
            raise SubmissionError(f"{self.files.path(name)}: {error}") from error

    def _to_prediction(self, content: Any, image_size: tuple[int, int]) -> Prediction:
        content = _fields(content, "the file", {"persons"}, {"category_map", "part_regions"})
        persons = [
            _fields(person, f"person {k}", {"map", "score"}, {"part_scores", "box", "box_score"})
            for k, person in enumerate(_list(content["persons"], "persons"), start=1)
        ]
        maps = np.zeros((len(persons), *image_size), dtype=np.uint8)
        used: dict[Path, int] = {}
        for k, person in enumerate(persons, start=1):
            map_name = self._file_name(person["map"], f"person {k}: map")
            first = used.setdefault(self.files.path(map_name).resolve(), k)
            if first != k:
                raise _ContentError(f"persons {first} and {k} have the same map {map_name!r}")
            maps[k - 1] = self.files.read_label_map(map_name, image_size, self.num_classes)
        num_parts = self.num_classes - 1
        scores = _scores([person["score"] for person in persons], len(persons), "score")
        part_scores = [
            _scores(values, num_parts, f"part_scores of person {k}")
            for k, values in _optional(persons, "part_scores")
        ]
        boxes = [_box(values, f"box of person {k}") for k, values in _optional(persons, "box")]
        box_scores = [values for _, values in _optional(persons, "box_score")]
        return Prediction(
            maps,
            scores,
            part_scores=np.array(part_scores) if part_scores else None,
            boxes=np.array(boxes) if boxes else None,
            box_scores=_scores(box_scores, len(persons), "box_score") if box_scores else None,
            category_map=self._read_category_map(content, image_size),
            part_regions=self._read_part_regions(content, image_size),
        )

    def _file_name(self, value: Any, name: str) -> str:
        """``value``, if it names a file in the folder."""
        if not isinstance(value, str) or not value:
            raise _ContentError(f"{name} must be a file name, got {shortened(value)}")
        try:
            self.files.path(value)
        except SubmissionError as error:
            raise _ContentError(f"{name}: {error}") from error
        return value

    def _read_category_map(
        self, content: Mapping[str, Any], image_size: tuple[int, int]
    ) -> np.ndarray | None:
        if "category_map" not in content:
            return None
        name = self._file_name(content["category_map"], "category_map")
        return self.files.read_label_map(name, image_size, self.num_classes)

    def _read_part_regions(
        self, content: Mapping[str, Any], image_size: tuple[int, int]
    ) -> PartRegions | None:
        if "part_regions" not in content:
            return None
        given = _fields(content["part_regions"], "part_regions", {"map", "regions"})
        name = self._file_name(given["map"], "map of part_regions")
        regions = [
            _fields(region, f"region {k}", {"class", "score"})
            for k, region in enumerate(_list(given["regions"], "regions"), start=1)
        ]
        for k, region in enumerate(regions, start=1):
            if type(region["class"]) is not int or not 1 <= region["class"] < self.num_classes:
                raise _ContentError(
                    f"region {k} has the class {shortened(region['class'])}; parts are 1 to "
                    f"{self.num_classes - 1}"
                )
        region_map = self.files.read_png(name, image_size)
        if region_map.max(initial=0) > len(regions):
            raise _ContentError(
                f"{name} has the value {region_map.max()}; {counted(len(regions), 'region')} given"
            )
        return PartRegions(
            region_map,
            np.array([region["class"] for region in regions], dtype=np.int64),
            _scores([region["score"] for region in regions], len(regions), "score of a region"),
        )

    def write(self, image_id: str, prediction: Prediction, image_size: tuple[int, int]) -> str:
        maps = checked_person_maps(prediction, image_size, self.num_classes)
        persons = []
        for n in range(len(maps.maps)):
            person_map = CroppedMaps([maps.maps[n]], maps.windows[n : n + 1]).to_full(image_size)[0]
            name = f"{image_id}_{n + 1}.png"
            self.files.write_png(name, person_map)
            person = {"map": name, "score": float(prediction.scores[n])}
            for key, values in (
                ("part_scores", prediction.part_scores),
                ("box", prediction.boxes),
                ("box_score", prediction.box_scores),
            ):
                if values is not None:
                    person[key] = np.asarray(values[n], dtype=np.float64).tolist()
            persons.append(person)
        content: dict[str, Any] = {"persons": persons}
        if prediction.category_map is not None:
            content["category_map"] = f"{image_id}_classes.png"
            self.files.write_png(content["category_map"], prediction.category_map)
        if prediction.part_regions is not None:
            regions = prediction.part_regions
            name = f"{image_id}_regions.png"
            content["part_regions"] = {
                "map": name,
                "regions": [
                    {"class": int(label), "score": float(score)}
                    for label, score in zip(regions.classes, regions.scores)
                ],
            }
            self.files.write_png(name, regions.region_map)
        # Last: an image counts as written when it has this file.
        self.files.write_text(f"{image_id}.json", json.dumps(content, allow_nan=False) + "\n")
        return ""


class _ContentError(ValueError):
    """What is wrong inside a JSON file, whose name is added by the caller."""


def _fields(
    value: Any, name: str, required: Set[str], optional: Set[str] = frozenset()
) -> dict[str, Any]:
    """``value``, if it is an object with the required and no unknown keys."""
    if not isinstance(value, dict):
        raise _ContentError(f"{name} must be an object, got {shortened(value)}")
    missing, unknown = required - value.keys(), value.keys() - required - optional
    if missing:
        raise _ContentError(f"{name} lacks {', '.join(map(repr, sorted(missing)))}")
    if unknown:
        # A misspelt optional key would otherwise change scores without a word.
        raise _ContentError(
            f"{name} has the unknown key(s) {', '.join(map(shortened, sorted(unknown)))}; known "
            f"are {', '.join(sorted(required | optional))}"
        )
    return value


def _list(value: Any, name: str) -> list:
    if not isinstance(value, list):
        raise _ContentError(f"{name} must be a list, got {shortened(value)}")
    return value


def _optional(persons: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, Any]]:
    """Return (number of the person, value) of all people, or nothing if nobody has the key."""
    given = [(k, person[key]) for k, person in enumerate(persons, start=1) if key in person]
    if given and len(given) < len(persons):
        raise _ContentError(
            f"{len(given)} of {len(persons)} persons have {key!r}; all or none must"
        )
    return given


def _scores(values: Any, count: int, name: str) -> np.ndarray:
    """float64 (count,) of numbers in 0..1."""
    if len(_list(values, name)) != count:
        raise _ContentError(f"{name}: {count} numbers are needed, got {len(values)}")
    for value in values:
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise _ContentError(f"{name} must be in 0..1, got {shortened(value)}")
    return np.array(values, dtype=np.float64)


def _box(values: Any, name: str) -> list[float]:
    """Return the checked x0, y0, x1, y1."""
    if (
        not isinstance(values, list)
        or len(values) != 4
        # Comparisons with NaN are false; the bound keeps infinity and huge integers out.
        or not all(type(value) in (int, float) and abs(value) < 1e9 for value in values)
        or values[0] > values[2]
        or values[1] > values[3]
    ):
        raise _ContentError(f"{name} must be [x0, y0, x1, y1] in pixels, got {shortened(values)}")
    return values

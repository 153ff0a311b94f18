"""Speed of composing a submission's pictures of all people, beside a plain loop over them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch

from aiparsing_d2.evaluation import CroppedMaps, Prediction
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.structures import ROIPartLogits
from aiparsing_d2.submissions.composition import Composition

from .drawn_inputs import people_boxes, people_logits
from .measuring import Case, Clock, Settings
from .report import Report, shown_ratio, shown_time
from .versions import against_columns, compare_versions

__all__ = [
    "compare_composing",
    "composition",
    "compose_plainly",
    "measure_composing",
    "pasted_people",
]

_PLAIN = "plain loop"


def measure_composing(
    settings: Settings,
    people: Sequence[int],
    image_sizes: Sequence[tuple[int, int]],
    num_classes: int = 20,
) -> Report:
    """Measure ``compose`` on the CPU.

    Args:
        settings: see there.
        people: numbers of people.
        image_sizes: (height, width) of the picture in pixels.
        num_classes: the background included.

    Raises:
        AssertionError: the pictures differ.
    """
    report = Report(
        notes=[
            "From people's cropped maps to the pictures of a submission. The plain loop places a"
            " person's map in one of the picture's size and writes it, where it is not 0, into a"
            " picture of the parts and one of the people; it has no regions of parts, which the"
            " package's composition has too. Both pictures are equal."
        ]
    )
    for count, size in product(people, image_sizes):
        prediction = pasted_people(count, size, num_classes)
        _check_pictures(prediction, size, num_classes)

        def loop(clock: Clock, work: tuple = (prediction, size)) -> None:
            compose_plainly(*work)
            clock.mark("composing")

        def package(clock: Clock, work: tuple = (prediction, size, num_classes)) -> None:
            composition(*work)
            clock.mark("composing")

        cases = {
            _PLAIN: Case(loop, {"way": _PLAIN}),
            "compose": Case(package, {"way": "compose"}),
        }
        shared = {"people": count, "image_size": list(size), "classes": num_classes}
        report.add_group(settings, cases, shared, reference=_PLAIN)
    report.columns = {
        "people": lambda row: row["people"],
        "picture": lambda row: "{}x{}".format(*row["image_size"]),
        "way": lambda row: row["way"],
        "ms": lambda row: shown_time(row, "ms", ".2f"),
        f"time / {_PLAIN}'s": shown_ratio,
    }
    return report


def compare_composing(
    settings: Settings,
    people: Sequence[int],
    image_sizes: Sequence[tuple[int, int]],
    checkout: Path,
    tolerance: float,
    num_classes: int = 20,
) -> Report:
    """Measure ``compose`` in two versions.

    Args:
        settings, people, image_sizes, num_classes: as for :func:`measure_composing`.
        checkout, tolerance: see :func:`~.versions.compare_versions`.
    """
    report = Report(notes=[f"Pictures differ in a share of {tolerance:g} of their pixels at most."])
    for count, size in product(people, image_sizes):
        prediction = pasted_people(count, size, num_classes)
        maps = prediction.person_maps
        assert isinstance(maps, CroppedMaps)
        inputs = {
            "maps": [torch.from_numpy(part_map) for part_map in maps.maps],
            "windows": torch.from_numpy(maps.windows),
            "scores": torch.from_numpy(prediction.scores),
            "size": list(size),
            "classes": num_classes,
        }
        shared = {"people": count, "image_size": list(size), "classes": num_classes}
        compare_versions(report, settings, "compose", inputs, checkout, tolerance, shared)
    report.columns = {
        "people": lambda row: row["people"],
        "picture": lambda row: "{}x{}".format(*row["image_size"]),
        **against_columns(),
    }
    return report


def pasted_people(count: int, size: tuple[int, int], num_classes: int) -> Prediction:
    """Return drawn people as a model's output is composed."""
    logits = ROIPartLogits(people_logits(count, num_classes, 64), upsample_factor=4)
    part_maps, _ = logits.to_part_maps(people_boxes(count, size), size)
    scores = np.linspace(0.9, 0.5, count)
    return Prediction(part_maps.to_cropped_maps(), scores)


def composition(prediction: Prediction, size: tuple[int, int], num_classes: int) -> Composition:
    """Compose everybody, as the writers of submissions do."""
    made = Composition(prediction, size, num_classes, ScoreThresholds(), person_threshold=0.01)
    # Each is made when it is first asked for.
    _ = made.category_map, made.part_regions, made.person_map
    return made


def compose_plainly(prediction: Prediction, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Write people into (H, W) of their parts and one of their numbers, the best on top."""
    maps = prediction.person_maps
    assert isinstance(maps, CroppedMaps)
    parts = np.zeros(size, dtype=np.uint8)
    numbers = np.zeros(size, dtype=np.uint8 if len(maps.maps) < 256 else np.uint16)
    for n in np.argsort(prediction.scores, kind="stable"):
        x0, y0, x1, y1 = maps.windows[n]
        full = np.zeros(size, dtype=np.uint8)
        full[y0:y1, x0:x1] = maps.maps[n]
        person = full > 0
        parts[person] = full[person]
        numbers[person] = n + 1
    return parts, numbers


def _check_pictures(prediction: Prediction, size: tuple[int, int], num_classes: int) -> None:
    expected_parts, expected_numbers = compose_plainly(prediction, size)
    composed = composition(prediction, size, num_classes)
    # Of people of whom nothing is visible, the composition has no number.
    numbers = np.concatenate([[0], composed.visible + 1])[composed.person_map]
    if not (np.array_equal(composed.category_map, expected_parts)):
        raise AssertionError("the pictures of the parts differ")
    if not np.array_equal(numbers, expected_numbers):
        raise AssertionError("the pictures of the people differ")

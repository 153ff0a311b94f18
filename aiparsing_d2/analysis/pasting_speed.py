"""Speed of pasting people into the picture, beside a plain loop over them on the host."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from aiparsing_d2.structures import PartMaps, ROIPartLogits

from .drawn_inputs import people_boxes, people_logits
from .measuring import Case, Clock, Settings
from .report import Report, shown_number, shown_ratio, shown_time
from .versions import against_columns, compare_versions

__all__ = ["PLAIN", "check_labels", "compare_pasting", "measure_pasting", "paste_plainly"]

PLAIN = "plain loop"

_SIDE, _FACTOR = 64, 4  # of the paper's head
# Probabilities of two classes that rounding may exchange.
_NEAR_TIE = 1e-4


def measure_pasting(
    settings: Settings,
    people: Sequence[int],
    image_sizes: Sequence[tuple[int, int]],
    classes: Sequence[int],
) -> Report:
    """Measure ``ROIPartLogits.to_part_maps``.

    Args:
        settings: see there.
        people: numbers of people.
        image_sizes: (height, width) of the picture in pixels.
        classes: numbers of classes, the background included.

    Raises:
        AssertionError: the labels differ, but for near ties.
    """
    report = Report(
        notes=[
            f"From logits of {_SIDE}x{_SIDE} cells on the device, which become {_FACTOR * _SIDE}x"
            f"{_FACTOR * _SIDE}, to a label map of each person. The plain loop zero-pads a person's"
            " probabilities, resizes them by cv2.resize, takes the best class and writes it into a"
            " map of the picture's size. Labels are equal; where they are not, two classes are"
            f" within {_NEAR_TIE:g} of each other, and these pixels are counted."
        ]
    )
    for count, size, num_classes in product(people, image_sizes, classes):
        tensor = people_logits(count, num_classes, _SIDE).to(settings.device)
        logits = ROIPartLogits(tensor, _FACTOR)
        boxes = people_boxes(count, size).to(settings.device)
        shared = {"people": count, "image_size": list(size), "classes": num_classes}
        shared["near_ties"] = check_labels(logits, boxes, size)

        def loop(clock: Clock, work: tuple = (logits, boxes, size)) -> None:
            paste_plainly(*work)
            clock.mark("pasting")

        def paste(clock: Clock, work: tuple = (logits, boxes, size)) -> Tensor:
            logits, boxes, size = work
            _, scores = logits.to_part_maps(boxes, size, inclusive_boxes=True)
            clock.mark("pasting")
            return scores

        cases = {
            PLAIN: Case(loop, {"way": PLAIN}),
            "to_part_maps": Case(paste, {"way": "to_part_maps"}),
        }
        report.add_group(settings, cases, shared, reference=PLAIN)
    report.columns = {
        "people": lambda row: row["people"],
        "picture": lambda row: "{}x{}".format(*row["image_size"]),
        "classes": lambda row: row["classes"],
        "way": lambda row: row["way"],
        "ms": lambda row: shown_time(row, "ms", ".1f"),
        "ms/person": lambda row: shown_number(row["ms"] and row["ms"] / row["people"], ".2f"),
        f"time / {PLAIN}'s": shown_ratio,
        "other labels": lambda row: row["near_ties"],
    }
    return report


def compare_pasting(
    settings: Settings,
    people: Sequence[int],
    image_sizes: Sequence[tuple[int, int]],
    classes: Sequence[int],
    checkout: Path,
    tolerance: float,
) -> Report:
    """Measure ``ROIPartLogits.to_part_maps`` in two versions.

    Args:
        settings, people, image_sizes, classes: as for :func:`measure_pasting`.
        checkout, tolerance: see :func:`~.versions.compare_versions`.
    """
    report = Report(
        notes=[
            f"Outputs differ by {tolerance:g} at most: part maps in the share of people's pixels,"
            " scores in units of their standard deviation."
        ]
    )
    for count, size, num_classes in product(people, image_sizes, classes):
        inputs = {
            "logits": people_logits(count, num_classes, _SIDE),
            "factor": _FACTOR,
            "boxes": people_boxes(count, size),
            "size": list(size),
        }
        shared = {"people": count, "image_size": list(size), "classes": num_classes}
        compare_versions(report, settings, "paste", inputs, checkout, tolerance, shared)
    report.columns = {
        "people": lambda row: row["people"],
        "picture": lambda row: "{}x{}".format(*row["image_size"]),
        "classes": lambda row: row["classes"],
        **against_columns(),
    }
    return report


def paste_plainly(
    logits: ROIPartLogits, boxes: Tensor, size: tuple[int, int], with_margins: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Paste people one after the other on the host, as the code of the paper's time does.

    Args:
        logits: of N people.
        boxes: (N, 4) XYXY, right and bottom sides inclusive.
        size: (height, width) in pixels.
        with_margins: whether to tell how far the best class is ahead.

    Returns:
        uint8 (N, H, W) labels and, on request, float32 (N, H, W) how much more probable a pixel's
        class is than the next.
    """
    height, width = size
    maps = np.zeros((len(logits), height, width), dtype=np.uint8)
    margins = np.ones(maps.shape, dtype=np.float32) if with_margins else None
    for n, (x0, y0, x1, y1) in enumerate(boxes.cpu().double().tolist()):
        probabilities = logits[n].probabilities()[0].permute(1, 2, 0).cpu().numpy()
        side = len(probabilities)
        padded = np.pad(probabilities, ((1, 1), (1, 1), (0, 0)))
        # The box grows with the border, and is cut to whole pixels.
        reach_x, reach_y = (
            (end - start) / 2 * (side + 2) / side for start, end in ((x0, x1), (y0, y1))
        )
        center_x, center_y = (x0 + x1) / 2, (y0 + y1) / 2
        left, top = int(center_x - reach_x), int(center_y - reach_y)
        right, bottom = int(center_x + reach_x) + 1, int(center_y + reach_y) + 1
        resized = cv2.resize(padded, (max(right - left, 1), max(bottom - top, 1)))
        inside = np.s_[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        shown = resized[inside[0].start - top : inside[0].stop - top]
        shown = shown[:, inside[1].start - left : inside[1].stop - left]
        maps[n][inside] = shown.argmax(axis=2)
        if margins is not None:
            best = np.partition(shown, -2, axis=2)
            margins[n][inside] = best[..., -1] - best[..., -2]
    return maps, margins


@torch.no_grad()
def check_labels(logits: ROIPartLogits, boxes: Tensor, size: tuple[int, int]) -> int:
    """Compare the part maps of both ways.

    Returns:
        The number of pixels that have other labels since two classes are as probable.

    Raises:
        AssertionError: other pixels differ too.
    """
    part_maps, _ = logits.to_part_maps(boxes, size, inclusive_boxes=True)
    expected, margins = paste_plainly(logits, boxes, size, with_margins=True)
    assert margins is not None
    return _count_near_ties(part_maps, expected, margins)


def _count_near_ties(part_maps: PartMaps, expected: np.ndarray, margins: np.ndarray) -> int:
    different = part_maps.to_full().cpu().numpy() != expected
    if (margins[different] > _NEAR_TIE).any():
        raise AssertionError(
            f"labels of {np.count_nonzero(different)} pixels differ, where a class is ahead by "
            f"{margins[different].max():.2g} at most"
        )
    return int(np.count_nonzero(different))

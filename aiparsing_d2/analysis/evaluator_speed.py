"""Speed of scoring images, and what scoring them leaves in memory.

Made-up images are scored with all metrics: ground truth as full-size maps, predictions as cropped
maps, as they reach the evaluator. Reading files is not part of it. Figures are in CPU time, so that
other programs on the machine disturb them little; a repeat goes over all images of a case.

The floor is what any exact evaluator has to do at least: count the labels of every person inside
its window, and those of the whole image, once each.
"""

from __future__ import annotations

import pickle
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from aiparsing_d2.engine.dry_run import peak_resident_memory
from aiparsing_d2.evaluation import CroppedMaps, GroundTruth, ParsingMetrics, Prediction

from .report import Report, shown_number

__all__ = ["ImageKind", "measure_scoring"]


class Image(NamedTuple):
    """An image to score, and all label maps that this takes to count."""

    ground_truth: GroundTruth
    prediction: Prediction
    label_maps: list[np.ndarray]


@dataclass(frozen=True)
class ImageKind:
    """What the images are like.

    Attributes:
        height, width: in pixels.
        classes: the background included.
        people: annotated, in each image.
        predictions: predicted people.
    """

    height: int
    width: int
    classes: int
    people: int
    predictions: int

    def __post_init__(self) -> None:
        # The lowest people have half of the height, and need two rows for their parts.
        if self.height < 4 or self.person_width < 1:
            raise ValueError(
                f"{self.people} people do not fit side by side into an image of {self.height} x "
                f"{self.width} pixels (height x width)"
            )

    @property
    def person_width(self) -> int:
        """Of people side by side, in pixels."""
        return int(self.width / self.people * 0.9)


def measure_scoring(kind: ImageKind, repeats: int, num_images: int) -> Report:
    """Score people of two kinds, beside the floor; and many images, for what these leave in memory.

    Args:
        kind: of the images.
        repeats: of which the medians are reported.
        num_images: of the memory figures; 0 leaves them out.

    Raises:
        ValueError: there cannot be so many classes.
    """
    report = Report(
        notes=[
            f"{kind.height} x {kind.width} pixels, {kind.classes} classes, {kind.people} annotated "
            f"and {kind.predictions} predicted people, numpy {np.__version__}, CPU time."
        ]
    )
    for case, fill in (("side by side", False), ("everybody fills the image", True)):
        metrics = ParsingMetrics(kind.classes)
        images = _make_images(kind, fill)

        def score(image: Image, metrics: ParsingMetrics = metrics) -> None:
            metrics.add_image(str(metrics.num_images), image.ground_truth, image.prediction)

        scoring, floor = _seconds_per_item([score, _count_labels], images, repeats)
        ratios = [mine / least for mine, least in zip(scoring, floor)]
        report.rows.append(
            {
                "people": case,
                "images_per_second": 1 / statistics.median(scoring),
                "ms": 1000 * statistics.median(scoring),
                "floor_ms": 1000 * statistics.median(floor),
                "times_the_floor": statistics.median(ratios),
                "low": min(ratios),
                "high": max(ratios),
                "repeats": repeats,
            }
        )
    report.columns = {
        "people": lambda row: row["people"],
        "images/s": lambda row: shown_number(row["images_per_second"], ".1f"),
        "ms/image": lambda row: shown_number(row["ms"], ".1f"),
        "floor ms": lambda row: shown_number(row["floor_ms"], ".1f"),
        "times the floor": lambda row: "{times_the_floor:.1f} ({low:.1f} to {high:.1f})".format(
            **row
        ),
    }
    if num_images:
        memory = _measure_memory(kind, num_images)
        report.notes.append(
            "Peak memory grew by {grown_mib:.1f} MiB from image {warm_up} to {images} "
            "({bytes_per_image:.0f} bytes per image; a pickled record has {record_bytes:.0f}). "
            "Computing the metrics of all took {compute_seconds:.1f} s.".format(**memory)
        )
        report.rows = [{**row, "memory": memory} for row in report.rows]
    return report


def _measure_memory(kind: ImageKind, num_images: int) -> dict[str, float]:
    """Score images, and tell what this leaves in memory."""
    images = _make_images(kind, fill=False)
    metrics = ParsingMetrics(kind.classes)
    warm_up = min(100, num_images // 2)
    for i in tqdm(range(num_images), unit="image", leave=False):
        if i == warm_up:
            peak_before = peak_resident_memory()
        image = images[i % len(images)]
        metrics.add_image(f"{i:07d}", image.ground_truth, image.prediction)
    grown = peak_resident_memory() - peak_before
    start = time.process_time()
    metrics.compute()
    return {
        "warm_up": warm_up,
        "images": num_images,
        "grown_mib": grown / 2**20,
        "bytes_per_image": grown / (num_images - warm_up),
        "record_bytes": len(pickle.dumps(metrics)) / num_images,
        "compute_seconds": time.process_time() - start,
    }


def _make_images(kind: ImageKind, fill: bool, number: int = 8) -> list[Image]:
    """Images of people made of parts: upright ones side by side, or each as large as the image."""
    rng = np.random.default_rng(0)
    height, width, persons = kind.height, kind.width, kind.people
    images: list[Image] = []
    for _ in range(number):
        gt_maps = np.zeros((persons, height, width), dtype=np.uint8)
        for p, gt in enumerate(gt_maps):
            if fill:
                gt[:] = _draw_parts(rng, height, width, kind.classes)
            else:
                h, w = int(height * rng.uniform(0.5, 0.85)), kind.person_width
                y = rng.integers(0, height - h + 1)
                x = min(int(width * p / persons), width - w)
                gt[y : y + h, x : x + w] = _draw_parts(rng, h, w, kind.classes)
        maps = np.zeros((kind.predictions, height, width), dtype=np.uint8)
        for n, found in enumerate(maps):
            shift = tuple(rng.integers(-4, 5, size=2))
            found[:] = np.roll(gt_maps[n % persons], shift, axis=(0, 1))
        category_map = np.zeros((height, width), dtype=np.uint8)
        for gt in gt_maps:
            np.copyto(category_map, gt, where=gt > 0)
        scores = rng.uniform(0.05, 1, kind.predictions)
        part_scores = scores[:, None] * rng.random((kind.predictions, kind.classes - 1))
        cropped = _crop(maps)
        boxes = cropped.windows.astype(np.float64)
        images.append(
            Image(
                GroundTruth(gt_maps, category_map),
                Prediction(cropped, scores, part_scores, boxes),
                [*_crop(gt_maps).maps, *cropped.maps, category_map],
            )
        )
    return images


def _draw_parts(rng: np.random.Generator, height: int, width: int, classes: int) -> np.ndarray:
    """Return a body of sixteen parts: bands of random heights, each split in two."""
    body = np.zeros((height, width), dtype=np.uint8)
    edges = np.sort(rng.integers(1, height, size=7))
    for top, bottom in zip([0, *edges], [*edges, height]):
        middle = rng.integers(0, width)
        body[top:bottom, :middle] = rng.integers(1, classes)
        body[top:bottom, middle:] = rng.integers(1, classes)
    return body


def _crop(maps: np.ndarray) -> CroppedMaps:
    crops, windows = [], []
    for part_map in maps:
        ys, xs = np.nonzero(part_map)
        x0, y0, x1, y1 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        windows.append((x0, y0, x1, y1))
        crops.append(np.ascontiguousarray(part_map[y0:y1, x0:x1]))
    return CroppedMaps(crops, np.array(windows, dtype=np.int64).reshape(-1, 4))


def _count_labels(image: Image) -> None:
    for label_map in image.label_maps:
        np.bincount(label_map.ravel())


def _seconds_per_item(
    works: Sequence[Callable[[Any], None]], items: Sequence[Any], repeats: int
) -> list[list[float]]:
    """CPU time of each repeat, for works that take turns."""
    times: list[list[float]] = [[] for _ in works]
    for number in range(-1, repeats):  # the first pass is slower
        for work, of_work in zip(works, times):
            start = time.process_time()
            for item in items:
                work(item)
            if number >= 0:
                of_work.append((time.process_time() - start) / len(items))
    return times

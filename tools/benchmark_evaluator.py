#!/usr/bin/env python
"""Measure how fast images are scored, and what scoring them leaves in memory.

    python tools/benchmark_evaluator.py

Scores made-up images with all metrics, on one core: ground truth as full-size maps, predictions as
cropped maps, as they reach the evaluator. Reading files is not part of it. Figures are in CPU time,
so that other programs on the machine disturb them little; a repeat goes over all images of a case.

The floor is what any exact evaluator has to do at least: count the labels of every person inside
its window, and those of the whole image, once each.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")  # before numpy is imported

import numpy as np  # noqa: E402
from tabulate import tabulate  # noqa: E402
from tqdm import tqdm  # noqa: E402

from aiparsing_d2.evaluation import (  # noqa: E402
    CroppedMaps,
    GroundTruth,
    ParsingMetrics,
    Prediction,
)

Image = tuple[GroundTruth, Prediction]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--height", type=int, default=400)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--classes", type=int, default=20, help="classes, background included")
    parser.add_argument("--persons", type=int, default=4, help="annotated people per image")
    parser.add_argument("--predictions", type=int, default=5, help="predicted people per image")
    parser.add_argument("--repeats", type=int, default=7, help="the median of these is reported")
    parser.add_argument(
        "--images", type=int, default=5000, help="images of the memory figures; 0 leaves them out"
    )
    return parser.parse_args(argv)


def make_images(args: argparse.Namespace, fill: bool, number: int = 8) -> list[Image]:
    """Images of people made of parts: upright ones side by side, or each as large as the image."""
    rng = np.random.default_rng(0)
    height, width, persons = args.height, args.width, args.persons
    images = []
    for _ in range(number):
        gt_maps = np.zeros((persons, height, width), dtype=np.uint8)
        for p, gt in enumerate(gt_maps):
            if fill:
                gt[:] = _draw_parts(rng, height, width, args.classes)
            else:
                h, w = int(height * rng.uniform(0.5, 0.85)), int(width / persons * 0.9)
                y = rng.integers(0, height - h + 1)
                x = min(int(width * p / persons), width - w)
                gt[y : y + h, x : x + w] = _draw_parts(rng, h, w, args.classes)
        maps = np.zeros((args.predictions, height, width), dtype=np.uint8)
        for n, found in enumerate(maps):
            shift = tuple(rng.integers(-4, 5, size=2))
            found[:] = np.roll(gt_maps[n % persons], shift, axis=(0, 1))
        category_map = np.zeros((height, width), dtype=np.uint8)
        for gt in gt_maps:
            np.copyto(category_map, gt, where=gt > 0)
        scores = rng.uniform(0.05, 1, args.predictions)
        part_scores = scores[:, None] * rng.random((args.predictions, args.classes - 1))
        cropped = _crop(maps)
        boxes = cropped.windows.astype(np.float64)
        images.append(
            (
                GroundTruth(gt_maps, category_map),
                Prediction(cropped, scores, part_scores, boxes),
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


def count_labels(label_maps: Iterable[np.ndarray]) -> None:
    for label_map in label_maps:
        np.bincount(label_map.ravel())


def seconds_per_item(work: Callable[[Any], None], items: Sequence[Any], repeats: int) -> float:
    """Median CPU time."""
    for item in items:
        work(item)  # the first pass is slower
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for item in items:
            work(item)
        times.append((time.process_time() - start) / len(items))
    return statistics.median(times)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.persons < 1 or args.predictions < 1:
        sys.exit("benchmark_evaluator: error: --persons and --predictions must be at least 1")
    print(
        f"{args.height} x {args.width} pixels, {args.classes} classes, {args.persons} people, "
        f"{args.predictions} predictions, numpy {np.__version__}"
    )
    rows = []
    for case, fill in (("side by side", False), ("everybody fills the image", True)):
        images = make_images(args, fill)
        metrics = ParsingMetrics(args.classes)
        label_maps = [
            [
                *_crop(ground_truth.person_maps).maps,
                *prediction.person_maps.maps,
                ground_truth.category_map,
            ]
            for ground_truth, prediction in images
        ]

        def score(image: Image, metrics: ParsingMetrics = metrics) -> None:
            metrics.add_image(str(metrics.num_images), *image)

        scoring = seconds_per_item(score, images, args.repeats)
        floor = seconds_per_item(count_labels, label_maps, args.repeats)
        rows.append([case, 1 / scoring, 1000 * scoring, 1000 * floor, scoring / floor])
    headers = ["people", "images/s", "ms/image", "floor ms", "times the floor"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f"))
    if args.images:
        print_memory(args)


def print_memory(args: argparse.Namespace) -> None:
    images = make_images(args, fill=False)
    metrics = ParsingMetrics(args.classes)
    warm_up = min(100, args.images // 2)
    for i in tqdm(range(args.images), unit="image", leave=False):
        if i == warm_up:
            peak_before = _peak_memory()
        metrics.add_image(f"{i:07d}", *images[i % len(images)])
    grown = _peak_memory() - peak_before
    record = len(pickle.dumps(metrics)) / args.images
    start = time.process_time()
    metrics.compute()
    print(
        f"Peak memory grew by {grown / 2**20:.1f} MiB from image {warm_up} to {args.images} "
        f"({grown / (args.images - warm_up):.0f} bytes per image; a pickled record has "
        f"{record:.0f}). Computing the metrics of all took {time.process_time() - start:.1f} s."
    )


def _peak_memory() -> int:
    """Highest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Measure how fast a data set is indexed, and how fast training samples are made of it.

    python tools/benchmark_data.py

Writes a data set in CIHP's layout to a temporary folder, a few drawn scenes over and over. Indexing
is timed by the clock, once with an empty cache and then with the cache. Mappers are timed in CPU
time of one thread, so that other programs on the machine disturb the figures little; a data loader
makes this many images a second with each worker that has a core to itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import aiparsing_d2  # isort: skip  # noqa: F401  before Detectron2: ignores its deprecation warnings

import cv2  # noqa: E402
import torch  # noqa: E402
from detectron2.data import transforms as T  # noqa: E402
from tabulate import tabulate  # noqa: E402
from tqdm import tqdm  # noqa: E402

from aiparsing_d2.data import layouts  # noqa: E402
from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper  # noqa: E402
from aiparsing_d2.data.datasets import load_cihp  # noqa: E402
from aiparsing_d2.drawn_scenes import CIHPRequest, write_data_set  # noqa: E402
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS  # noqa: E402

_NUM_SCENES = 8


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000, help="images of the data set")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(400, 500), metavar=("H", "W"), help="in pixels"
    )
    parser.add_argument("--repeats", type=int, default=5, help="the median of these is reported")
    parser.add_argument(
        "--mapped-images", type=int, default=24, help="images that a mapper is timed on"
    )
    return parser.parse_args(argv)


def write_copies(root: Path, num_images: int, size: tuple[int, int]) -> None:
    """Write a training split of drawn scenes, each of them many times."""
    drawn = root.with_name("drawn")
    write_data_set(drawn, CIHPRequest(num_train=_NUM_SCENES, num_val=0, image_size=tuple(size)))
    layout = layouts.CIHP["train"]
    scenes = (drawn / layout.id_lists[0]).read_text().split()
    ids = [layouts.cihp_image_id(number) for number in range(1, num_images + 1)]
    for folder, suffix in (
        (layout.images, ".jpg"),
        (layout.category_maps, ".png"),
        (layout.human_maps, ".png"),
    ):
        source, target = (base / folder for base in (drawn, root))
        contents = [(source / f"{scene}{suffix}").read_bytes() for scene in scenes]
        target.mkdir(parents=True)
        for number, image_id in enumerate(tqdm(ids, f"Writing {folder}", unit="file")):
            (target / f"{image_id}{suffix}").write_bytes(contents[number % len(contents)])
    (root / layout.id_lists[0]).write_text("\n".join(ids))


def seconds(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def images_per_second(
    mapper: ParsingDatasetMapper, records: Sequence[dict[str, Any]], repeats: int
) -> float:
    """Median over the repeats, in CPU time."""

    def map_all() -> None:
        for record in records:
            mapper(record)

    map_all()
    times = [seconds(map_all, time.process_time) for _ in range(repeats)]
    return len(records) / statistics.median(times)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="benchmark_data_") as folder:
        root = Path(folder) / "cihp"
        write_copies(root, args.images, args.size)
        os.environ["FVCORE_CACHE"] = os.path.join(folder, "cache")
        os.environ.pop("AIPARSING_INDEX_CACHE", None)

        def load() -> list[dict[str, Any]]:
            return load_cihp(root, "train")

        first = seconds(load, time.perf_counter)
        cached = [seconds(load, time.perf_counter) for _ in range(args.repeats)]
        rows = [
            [f"first index of {args.images} images", f"{first:.3f} s"],
            ["the same from the cache", f"{statistics.median(cached):.3f} s"],
        ]

        records = load()[: args.mapped_images]
        resize = T.ResizeShortestEdge((640, 800), max_size=1333, sample_style="range")
        training = ParsingDatasetMapper(
            True, augmentations=[resize, T.RandomFlip()], part_labels=CIHP_PART_LABELS
        )
        inference = ParsingDatasetMapper(False, augmentations=[T.ResizeShortestEdge(800, 1333)])
        height, width = args.size
        for name, mapper in (("training", training), ("inference", inference)):
            rate = images_per_second(mapper, records, args.repeats)
            rows.append(
                [f"{name} mapper, {height}x{width}, one core", f"{rate:.1f} images/s"],
            )
    print(tabulate(rows, tablefmt="plain"))


if __name__ == "__main__":
    main()

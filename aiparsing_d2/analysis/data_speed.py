"""Speed of indexing a data set, and of making training samples of it.

A data set in CIHP's layout is written to a temporary folder, a few drawn scenes over and over.
Indexing is timed by the clock, once with an empty cache and then with the cache. Mappers are timed
in CPU time of one thread, so that other programs on the machine disturb the figures little; a data
loader makes this many images a second with each worker that has a core to itself.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import torch
from detectron2.data import transforms as T
from tqdm import tqdm

from aiparsing_d2.data import layouts
from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.data.datasets import load_cihp
from aiparsing_d2.drawn_scenes import CIHPRequest, write_data_set
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

from .report import Report

__all__ = ["measure_data"]

_NUM_SCENES = 8


def measure_data(
    num_images: int, image_size: tuple[int, int], num_mapped: int, repeats: int
) -> Report:
    """Measure reading a data set, in this process with one thread.

    Args:
        num_images: of the data set.
        image_size: (height, width) in pixels.
        num_mapped: images that a mapper is timed on.
        repeats: of which the median is returned.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="benchmark_data_") as folder:
        root = Path(folder) / "cihp"
        _write_copies(root, num_images, image_size)

        def load() -> list[dict[str, Any]]:
            return load_cihp(root, "train")

        with mock.patch.dict(os.environ, FVCORE_CACHE=os.path.join(folder, "cache")):
            os.environ.pop("AIPARSING_INDEX_CACHE", None)
            first = _seconds(load, time.perf_counter)
            cached = [_seconds(load, time.perf_counter) for _ in range(repeats)]
            records = load()[:num_mapped]
        report = Report(
            notes=[
                "Index: seconds by the clock. Mappers: images per second of CPU time of one thread."
            ],
            columns={
                "what": lambda row: row["what"],
                "figure": lambda row: f"{row['figure']:{row['form']}} {row['unit']}",
                "range": lambda row: "{:{form}} to {:{form}}".format(
                    *(row["low"], row["high"]), form=row["form"]
                ),
            },
        )
        report.rows.append(_row(f"first index of {num_images} images", [first], "s", ".3f"))
        report.rows.append(_row("the same from the cache", cached, "s", ".3f"))
        resize = T.ResizeShortestEdge((640, 800), max_size=1333, sample_style="range")
        training = ParsingDatasetMapper(
            True, augmentations=[resize, T.RandomFlip()], part_labels=CIHP_PART_LABELS
        )
        inference = ParsingDatasetMapper(False, augmentations=[T.ResizeShortestEdge(800, 1333)])
        height, width = image_size
        for name, mapper in (("training", training), ("inference", inference)):
            rates = _images_per_second(mapper, records, repeats)
            what = f"{name} mapper, {height}x{width}, one core"
            report.rows.append(_row(what, rates, "images/s", ".1f"))
    return report


def _row(what: str, figures: Sequence[float], unit: str, form: str) -> dict[str, Any]:
    return {
        "what": what,
        "figure": statistics.median(figures),
        "low": min(figures),
        "high": max(figures),
        "unit": unit,
        "form": form,
        "repeats": len(figures),
    }


def _write_copies(root: Path, num_images: int, size: tuple[int, int]) -> None:
    """Write a training split of drawn scenes, each of them many times."""
    drawn = root.with_name("drawn")
    write_data_set(drawn, CIHPRequest(num_train=_NUM_SCENES, num_val=0, image_size=size))
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


def _seconds(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def _images_per_second(
    mapper: ParsingDatasetMapper, records: Sequence[dict[str, Any]], repeats: int
) -> list[float]:
    """Of each repeat, in CPU time."""

    def map_all() -> None:
        for record in records:
            mapper(record)

    map_all()
    times = [_seconds(map_all, time.process_time) for _ in range(repeats)]
    return [len(records) / time for time in times]

"""Peak memory of inference and of training steps, each in a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from aiparsing_d2.engine.dry_run import peak_resident_memory

from .drawn_inputs import training_batch
from .measured_pipeline import Pipeline, build_seeded, draw_picture
from .measuring import Clock, Settings
from .report import Report, available, shown_number
from .training_speed import Trainee

__all__ = ["measure_memory"]

_MIB = 2**20
_PEOPLE_IN_TRAINING = 4


def measure_memory(
    settings: Settings,
    config: str,
    people: Sequence[int],
    batch_sizes: Sequence[int],
    image_sizes: Sequence[tuple[int, int]],
    precisions: Sequence[str],
) -> Report:
    """Measure peaks, how they grow with people and images, and whether runs leave something behind.

    Args:
        settings: see there; runs in each process are the warm-up and the repeats.
        config: a name of the model zoo.
        people: numbers of people in the picture of inference.
        batch_sizes: numbers of images in a training step.
        image_sizes: (height, width) of the pictures in pixels.
        precisions: of ``measured_pipeline.PRECISIONS``; training steps take bf16, and float32 for
            all others.
    """
    on_gpu = settings.device.type == "cuda"
    report = Report(
        notes=[
            f"{config}. Inference goes from a JPEG file to the files of CIHP's format; a training"
            f" step is of SGD with momentum and {_PEOPLE_IN_TRAINING} people in each image. "
            + ("Peaks are of the GPU's memory." if on_gpu else "Peaks are of a whole process.")
            + " Before: with the model built and nothing run. Per run: the slope of the peak over"
            " the runs after the first two, which shows what a run leaves behind."
        ]
    )
    runs = settings.warm_up + settings.repeats
    works: list[tuple[str, Callable[..., list[int]], Sequence[int], Sequence[str]]] = [
        ("inference", _inference_peaks, people, available(precisions, settings.device, report)),
        ("training step", _training_peaks, batch_sizes, _of_training(precisions)),
    ]
    for work, measure, counts, names in works:
        for size, precision in product(image_sizes, names):
            rows = []
            for count in counts:
                facts = {
                    "work": work,
                    "count": count,
                    "image_size": list(size),
                    "precision": precision,
                }
                shown = ", ".join(f"{key} {value}" for key, value in facts.items())
                if time.monotonic() > settings.deadline:
                    report.left_out.append(f"{shown}: --max-seconds were over")
                    continue
                peaks = _in_fresh_process(
                    measure, config, precision, count, size, runs, str(settings.device)
                )
                rows.append(_row(facts, peaks))
                print(f"{shown}: {rows[-1]['peak_mib']:.0f} MiB", file=sys.stderr)
            slope = _slope([row["count"] for row in rows], [row["peak_mib"] for row in rows])
            report.rows += [{**row, "mib_per_one_more": slope} for row in rows]
    report.columns = {
        "work": lambda row: row["work"],
        "people or images": lambda row: row["count"],
        "picture": lambda row: "{}x{}".format(*row["image_size"]),
        "precision": lambda row: row["precision"],
        "before MiB": lambda row: shown_number(row["before_mib"], ".0f"),
        "peak MiB": lambda row: shown_number(row["peak_mib"], ".0f"),
        "MiB per run": lambda row: shown_number(row["mib_per_run"], ".2f"),
        "MiB per one more": lambda row: shown_number(row["mib_per_one_more"], ".1f"),
    }
    return report


def _of_training(precisions: Sequence[str]) -> list[str]:
    return list(dict.fromkeys("bf16" if name == "bf16" else "fp32" for name in precisions))


def _row(facts: dict[str, Any], peaks: Sequence[int]) -> dict[str, Any]:
    """Of the peaks before, and after each run."""
    mib = [peak / _MIB for peak in peaks]
    later = mib[3:]
    return {
        **facts,
        "before_mib": mib[0],
        "peak_mib": mib[-1],
        "mib_per_run": _slope(range(len(later)), later),
        "all_mib": mib,
    }


def _slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Of the line through some points that fits best, or None of fewer than two."""
    return float(np.polyfit(x, y, 1)[0]) if len(y) > 1 else None


def _in_fresh_process(measure: Callable[..., list[int]], *args: Any) -> list[int]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, torch.get_num_threads(), *args).result()


def _inference_peaks(
    num_threads: int,
    config: str,
    precision: str,
    people: int,
    size: tuple[int, int],
    runs: int,
    device_name: str,
) -> list[int]:
    torch.set_num_threads(num_threads)
    device = torch.device(device_name)
    with TemporaryDirectory(prefix="benchmark_memory_") as folder:
        picture = Path(folder) / "picture.jpg"
        draw_picture(picture, size)
        pipeline = Pipeline(*build_seeded(config), device, precision)
        pipeline.prepare(picture, Path(folder) / "results", people)
        return _peaks(lambda: pipeline.case.run(Clock(device)), runs, device)


def _training_peaks(
    num_threads: int,
    config: str,
    precision: str,
    num_images: int,
    size: tuple[int, int],
    runs: int,
    device_name: str,
) -> list[int]:
    torch.set_num_threads(num_threads)
    device = torch.device(device_name)
    model, _ = build_seeded(config)
    trainee = Trainee(model.to(device))
    batch = training_batch("aiparsing", num_images, size, _PEOPLE_IN_TRAINING)
    case = trainee.case(batch, precision, {})
    return _peaks(lambda: case.run(Clock(device)), runs, device)


def _peaks(run: Callable[[], Any], runs: int, device: torch.device) -> list[int]:
    """Peaks in bytes so far, before and after each of some runs."""

    def peak() -> int:
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device)
        return peak_resident_memory()

    _forget_earlier_peaks()
    peaks = [peak()]
    for _ in range(runs):
        run()
        # The kernel's count of pages lags behind and can fall a little.
        peaks.append(max(peaks[-1], peak()))
    return peaks


def _forget_earlier_peaks() -> None:
    """Give back what building the model took for a moment; on Linux, elsewhere it stays counted."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")

"""How many pictures several processes parse together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from typing import Any

import torch

from .inference_stages import worker_inputs
from .measured_pipeline import build_seeded, image_mapper
from .measuring import Case, Clock, Settings
from .report import Report, available, shown_number, shown_ratio, shown_time
from .versions import Worker, worker

__all__ = ["measure_processes"]


def measure_processes(
    settings: Settings,
    config: str,
    processes: Sequence[int],
    people: Sequence[int],
    image_sizes: Sequence[tuple[int, int]],
    precisions: Sequence[str],
) -> Report:
    """Measure inference, from a picture in memory to part maps, in processes side by side.

    On a CPU its threads are shared out among them.

    Args:
        settings: see there.
        config: a name of the model zoo.
        processes: their numbers; the first one is what the others are compared with.
        people: numbers of people in the picture.
        image_sizes: (height, width) of the picture in pixels.
        precisions: of ``PRECISIONS``.
    """
    report = Report(
        notes=[
            f"{config}, from a picture in memory to part maps. Every process has a model of its own"
            " and parses one picture at a time; all begin together. The time is that of the slowest"
            " divided by the number of pictures."
        ]
    )
    model, cfg = build_seeded(config)
    map_image = image_mapper(cfg)
    for count, size, precision in product(
        people, image_sizes, available(precisions, settings.device, report)
    ):
        inputs = worker_inputs(config, model, map_image, count, size, precision)
        inputs["device"] = str(settings.device)
        with ExitStack() as stack:
            cases = {}
            for number in dict.fromkeys(processes):
                threads = max(torch.get_num_threads() // number, 1)
                group = [
                    stack.enter_context(worker("infer", {**inputs, "threads": threads}))
                    for _ in range(number)
                ]
                facts = {"processes": number, "threads": threads}
                cases[f"{number} processes"] = _together(group, facts)
            shared = {"people": count, "image_size": list(size), "precision": precision}
            report.add_group(settings, cases, shared, reference=f"{processes[0]} processes")
    for row in report.rows:
        row["images_per_second"] = row["ms"] and 1000 / row["ms"]
    report.columns = {
        "processes": lambda row: row["processes"],
        "threads of each": lambda row: row["threads"],
        "people": lambda row: row["people"],
        "picture": lambda row: "{}x{}".format(*row["image_size"]),
        "precision": lambda row: row["precision"],
        "ms a picture": lambda row: shown_time(row, "ms", ".1f"),
        "images/s": lambda row: shown_number(row["images_per_second"], ".2f"),
        "time / the first one's": shown_ratio,
    }
    return report


def _together(group: Sequence[Worker], facts: dict[str, Any]) -> Case:
    for process in group:  # all are starting
        process.check()
    for process in group:
        process.outputs()

    def run(clock: Clock) -> None:
        for process in group:
            process.begin()
        clock.set(max([process.finish() for process in group]) / len(group))

    return Case(run, facts)

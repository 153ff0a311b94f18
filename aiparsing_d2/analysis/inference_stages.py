"""Where the time of inference goes: one model, from file to files, in several settings."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.modeling import GeneralizedRCNN
from torch import Tensor

from .device_peak import convolution_peaks
from .drawn_inputs import draw_image, people_boxes
from .layer_costs import analyze, stages_of
from .measured_pipeline import (
    AS_BUILT,
    Pipeline,
    build_seeded,
    draw_picture,
    drawn_logits,
    image_mapper,
)
from .measuring import Settings
from .report import Report, available, shown_number, shown_ratio, shown_time
from .versions import THIS, against_columns, compare_versions

__all__ = ["compare_inference", "measure_stages", "worker_inputs"]

_HEAD = "roi_heads.parsing_head"


def measure_stages(
    settings: Settings,
    config: str,
    people: Sequence[int],
    image_sizes: Sequence[tuple[int, int]],
    precisions: Sequence[str],
    channels_last: bool | None = None,
    compile: bool = False,
    cuda_graphs: bool = False,
) -> Report:
    """Measure a model's inference, from a JPEG file to the files of a submission.

    Args:
        settings: see there.
        config: a name of the model zoo.
        people: numbers of people in the picture.
        image_sizes: (height, width) of the picture in pixels.
        precisions: of ``PRECISIONS``; the first one is what the others are compared with.
        channels_last, compile, cuda_graphs: see
            :func:`~aiparsing_d2.modeling.optimize_for_inference`. What is compiled is one stage.
    """
    report = Report(
        notes=[
            f"{config}, one picture, from a JPEG file to the files of CIHP's format. The difference"
            " is that of the part logits from the first setting's, at most, in units of their"
            " standard deviation. Shares are of the rate at which the device computes convolutions"
            " in the precision."
        ]
    )
    device = settings.device
    precisions = available(precisions, device, report)
    if not precisions:
        return report
    model, cfg = build_seeded(config)
    pipelines = {
        precision: Pipeline(
            copy.deepcopy(model), cfg, device, precision, channels_last, compile, cuda_graphs
        )
        for precision in precisions
    }
    peaks = convolution_peaks(device, sorted({_arithmetic(name) for name in precisions}))
    with tempfile.TemporaryDirectory(prefix="benchmark_infer_") as folder:
        for count, size in product(people, image_sizes):
            picture = Path(folder) / "{}x{}.jpg".format(*size)
            draw_picture(picture, size)
            for precision, pipeline in pipelines.items():
                pipeline.prepare(
                    picture, Path(folder) / f"{precision}_{count}_{picture.stem}", count
                )
            shared = {"people": count, "image_size": list(size)}
            cases = {name: pipeline.case for name, pipeline in pipelines.items()}
            rows = report.add_group(settings, cases, shared, reference=precisions[0])
            costs = _multiply_adds(model, pipeline.input_size, count) if rows else {}
            first = pipelines[precisions[0]]
            for row in rows:
                row["input_size"] = list(pipeline.input_size)
                row["multiply_adds"] = costs
                row["share_of_limit"] = _shares(row, costs, peaks[_arithmetic(row["precision"])])
                # The first one's outputs are there if it did not fail.
                if row["ratio"]:
                    row["difference"] = _difference(pipelines[row["precision"]], first)
    report.table_rows = [
        line
        for _, rows in groupby(report.rows, key=lambda row: (row["people"], row["image_size"]))
        for line in _lines(list(rows))
    ]
    report.columns = {
        "people": lambda line: line["people"],
        "picture": lambda line: "{}x{}".format(*line["image_size"]),
        "stage": lambda line: line["stage"],
        "multiply-adds (10^9)": lambda line: shown_number(line["cost"], ".2f", 1e-9),
    }
    for name in precisions:
        report.columns[f"{name} ms"] = _shown_cell(name, "time")
        report.columns[f"{name} share"] = _shown_cell(name, "share")
    return report


def compare_inference(
    settings: Settings,
    config: str,
    people: Sequence[int],
    image_sizes: Sequence[tuple[int, int]],
    precisions: Sequence[str],
    checkout: Path,
    tolerance: float,
) -> Report:
    """Measure the model's inference from a picture in memory to part maps, in two versions.

    Args:
        settings, config, people, image_sizes: as for :func:`measure_stages`.
        precisions: of this version; the other one has the precision of its predictor.
        checkout, tolerance: see :func:`~.versions.compare_versions`.
    """
    report = Report(
        notes=[
            f"{config}, from a picture in memory to part maps, both versions with the same weights."
            f" Outputs differ by {tolerance:g} at most: part logits in units of their standard"
            " deviation, part maps in the share of people's pixels. The other version has the"
            " precision that its predictor has by default."
        ]
    )
    model, cfg = build_seeded(config)
    map_image = image_mapper(cfg)
    for count, size, precision in product(
        people, image_sizes, available(precisions, settings.device, report)
    ):
        inputs = worker_inputs(config, model, map_image, count, size, precision)
        shared = {"people": count, "image_size": list(size), "precision": precision}
        work = (settings, "infer", inputs, checkout, tolerance, shared, "default")
        compare_versions(report, *work)
    report.columns = {
        "people": lambda row: row["people"],
        "picture": lambda row: "{}x{}".format(*row["image_size"]),
        "precision": lambda row: row["precision"] if row["version"] == THIS else "its own",
        **against_columns(),
    }
    return report


def worker_inputs(
    config: str,
    model: GeneralizedRCNN,
    map_image: Callable[[np.ndarray], Tensor],
    count: int,
    size: tuple[int, int],
    precision: str,
) -> dict[str, Any]:
    """Return what a worker infers from, see :func:`.version_worker.infer`."""
    drawn = draw_image(size, 4, seed=0)[0].permute(1, 2, 0).numpy()
    image = map_image(np.ascontiguousarray(drawn))
    return {
        "config": config,
        "state": model.state_dict(),
        "precision": precision,
        "image": image,
        "size": list(size),
        "boxes": people_boxes(count, image.shape[1:]),
        "logits": drawn_logits(model, count),
    }


def _arithmetic(precision: str) -> str:
    return "fp32" if precision == AS_BUILT else precision


def _difference(pipeline: Pipeline, reference: Pipeline) -> float:
    expected = reference.forced.found.float()
    difference = (pipeline.forced.found.float() - expected).abs().max() / expected.std()
    return float(difference)


def _multiply_adds(
    model: GeneralizedRCNN, input_size: tuple[int, int], num_people: int
) -> dict[str, int]:
    """By stage. Those of the parsing head are counted for one person and multiplied."""
    costs = analyze(model, input_size, num_people=1)
    return {
        cost.name: cost.multiply_adds * (num_people if stage.modules[0].startswith(_HEAD) else 1)
        for cost, stage in zip(costs, stages_of(model), strict=True)
        if cost.multiply_adds
    }


def _shares(row: dict[str, Any], costs: dict[str, int], peak: float) -> dict[str, float]:
    """Of the peak, by stage, and of all."""
    if row["error"]:
        return {}
    amounts = {**costs, "all": sum(costs.values())}
    times = {**row["stages_ms"], "all": row["ms"]}
    return {name: 1e3 * amounts[name] / times[name] / peak for name in amounts if name in times}


def _lines(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Lines of the table, of rows that differ in precision: the stages, then the whole."""
    shared = {key: rows[0][key] for key in ("people", "image_size")}
    costs = rows[0]["multiply_adds"]
    for stage in dict.fromkeys(stage for row in rows for stage in row["stages_ms"]):
        cells = {
            row["precision"]: {
                "time": shown_number(row["stages_ms"].get(stage), ".1f"),
                "share": shown_number(row["share_of_limit"].get(stage), ".0%"),
            }
            for row in rows
        }
        yield {**shared, "stage": stage, "cost": costs.get(stage), "cells": cells}
    whole = {
        row["precision"]: {
            "time": shown_time(row, "ms", ".1f"),
            "share": shown_number(row["share_of_limit"].get("all"), ".0%"),
        }
        for row in rows
    }
    yield {**shared, "stage": "all", "cost": sum(costs.values()), "cells": whole}
    for name, show in (
        ("time of all / the first one's", shown_ratio),
        ("difference", lambda row: shown_number(row.get("difference"), ".1e")),
    ):
        cells = {row["precision"]: {"time": show(row), "share": "-"} for row in rows}
        yield {**shared, "stage": name, "cost": None, "cells": cells}


def _shown_cell(precision: str, name: str) -> Callable[[dict[str, Any]], str]:
    return lambda line: line["cells"].get(precision, {}).get(name, "-")

"""Where the time of inference goes: one model, from file to files, in several settings."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data.transforms import AugInput, AugmentationList
from detectron2.modeling import GeneralizedRCNN
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn

from aiparsing_d2 import model_zoo
from aiparsing_d2.data.image_files import read_image
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.evaluation.parsing_evaluator import to_prediction
from aiparsing_d2.modeling import optimize_for_inference, parsing_postprocess
from aiparsing_d2.submissions import SUBMISSION_FORMATS, instance_folders
from aiparsing_d2.submissions.composition import Composition, compose

from .device_peak import convolution_peaks
from .drawn_inputs import draw_image, people_boxes, people_logits
from .forced_people import ForcedPeople
from .layer_costs import analyze, stages_of
from .measured_models import RoICounter, with_small_activations
from .measuring import Case, Clock, Settings, allow_tf32, size_in_bytes
from .report import Report, available, shown_number, shown_ratio, shown_time
from .versions import THIS, against_columns, compare_versions

__all__ = [
    "AS_BUILT",
    "PRECISIONS",
    "Pipeline",
    "build_seeded",
    "compare_inference",
    "draw_picture",
    "measure_stages",
]

AS_BUILT = "none"
PRECISIONS = (AS_BUILT, "fp32", "tf32", "bf16", "fp16")

_HEAD = "roi_heads.parsing_head"


def build_seeded(config: str) -> tuple[GeneralizedRCNN, DictConfig]:
    """Return a model of the zoo with random weights, always the same, on the CPU; and its config.

    As many candidates as may be are decoded and suppressed.

    Raises:
        ValueError: there is no such config.
    """
    cfg = model_zoo.get_config(config)
    if "model" not in cfg:
        raise ValueError(f"{config} is not a LazyConfig of a whole run")
    torch.manual_seed(0)
    model = with_small_activations(instantiate(cfg.model)).eval()
    if hasattr(model.proposal_generator, "score_thresh"):
        model.proposal_generator.score_thresh = 0.0
    return model, cfg


def measure_stages(
    settings: Settings,
    config: str,
    people: Sequence[int],
    image_sizes: Sequence[tuple[int, int]],
    precisions: Sequence[str],
    channels_last: bool | None = None,
    compile: bool = False,
) -> Report:
    """Measure a model's inference, from a JPEG file to the files of a submission.

    Args:
        settings: see there.
        config: a name of the model zoo.
        people: numbers of people in the picture.
        image_sizes: (height, width) of the picture in pixels.
        precisions: of ``PRECISIONS``; the first one is what the others are compared with.
        channels_last, compile: see :func:`~aiparsing_d2.modeling.optimize_for_inference`. What is
            compiled is one stage.
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
    model, cfg = build_seeded(config)
    pipelines = {
        precision: Pipeline(copy.deepcopy(model), cfg, device, precision, channels_last, compile)
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
            costs = _multiply_adds(model, pipelines[precisions[0]].input_size, count)
            for row in rows:
                pipeline = pipelines[row["precision"]]
                row["input_size"] = list(pipeline.input_size)
                row["difference"] = _difference(pipeline, pipelines[precisions[0]])
                row["multiply_adds"] = costs
                row["share_of_limit"] = _shares(row, costs, peaks[_arithmetic(row["precision"])])
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
    map_image = _mapper(cfg)
    for count, size, precision in product(
        people, image_sizes, available(precisions, settings.device, report)
    ):
        drawn = draw_image(size, 4, seed=0)[0].permute(1, 2, 0).numpy()
        image = map_image(np.ascontiguousarray(drawn))
        inputs = {
            "config": config,
            "state": model.state_dict(),
            "precision": precision,
            "image": image,
            "size": list(size),
            "boxes": people_boxes(count, image.shape[1:]),
            "logits": _logits(model, count),
        }
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


def _mapper(cfg: DictConfig) -> Callable[[np.ndarray], Tensor]:
    """Return what resizes a picture (H, W, 3) for the model as its test set's mapper does."""
    augmentations = AugmentationList(instantiate(cfg.dataloader.test.mapper.augmentations))

    def map_image(image: np.ndarray) -> Tensor:
        aug_input = AugInput(image)
        augmentations(aug_input)
        return torch.as_tensor(np.ascontiguousarray(aug_input.image.transpose(2, 0, 1)))

    return map_image


def _logits(model: GeneralizedRCNN, num_people: int) -> Tensor:
    heads = model.roi_heads
    side = 2 * heads.parsing_pooler.output_size[0]
    return people_logits(num_people, heads.parsing_head.num_classes, side)


def _arithmetic(precision: str) -> str:
    return "fp32" if precision == AS_BUILT else precision


def draw_picture(path: Path, size: tuple[int, int]) -> None:
    """Write a drawn scene as a JPEG file."""
    image, _ = draw_image(size, 4, seed=0)
    Image.fromarray(image.numpy()[::-1].transpose(1, 2, 0)).save(path, quality=90)


def _marking(clock: Clock) -> Callable[..., Composition]:
    """Return the composition that the writer calls, with marks around it."""

    def marked(*args: Any) -> Composition:
        clock.mark("to the host")
        composition = compose(*args)
        clock.mark("composing")
        return composition

    return marked


def _difference(pipeline: Pipeline, reference: Pipeline) -> float | None:
    if pipeline is reference:
        return None
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
        ("difference", lambda row: shown_number(row["difference"], ".1e")),
    ):
        cells = {row["precision"]: {"time": show(row), "share": "-"} for row in rows}
        yield {**shared, "stage": name, "cost": None, "cells": cells}


def _shown_cell(precision: str, name: str) -> Callable[[dict[str, Any]], str]:
    return lambda line: line["cells"].get(precision, {}).get(name, "-")


class Pipeline:
    """A model in a precision, and what is around it.

    Attributes:
        case: the whole, for the last picture that was prepared.
        forced: see there.
        input_size: (height, width) of the model's input.
    """

    def __init__(
        self,
        model: GeneralizedRCNN,
        cfg: DictConfig,
        device: torch.device,
        precision: str,
        channels_last: bool | None = None,
        compile: bool = False,
    ):
        """
        Args:
            model: as :func:`build_seeded` gives it; the pipeline's own from now on.
            cfg: its config.
            device: where it runs.
            precision: of ``PRECISIONS``.
            channels_last, compile: see :func:`measure_stages`.
        """
        self.precision = precision
        if precision == AS_BUILT:
            self.model = model.to(device)
            if channels_last:
                self.model.to(memory_format=torch.channels_last)
        else:
            self.model = optimize_for_inference(
                model.to(device),
                "fp32" if precision == "tf32" else precision,
                channels_last=channels_last,
                compile=compile,
            )
        self.forced = ForcedPeople(self.model)
        self.stages = _Stages(self.model, compile and precision != AS_BUILT)
        self.counter = RoICounter(self.model)
        self.image_format = cfg.dataloader.test.mapper.image_format
        self.map_image = _mapper(cfg)
        self.case: Case
        self.input_size: tuple[int, int]

    def prepare(self, picture: Path, folder: Path, count: int) -> None:
        """Make the case of a picture, whose results are written to a folder."""
        model, device = self.model, self.model.device
        head = model.roi_heads.parsing_head
        self.input_size = self.map_image(read_image(picture, self.image_format)).shape[1:]
        logits = _logits(model, count).to(device)
        self.forced.set(people_boxes(count, self.input_size).to(device), logits)
        submission = SUBMISSION_FORMATS["cihp"](folder, head.num_classes, ScoreThresholds())
        numbers = iter(range(10**9))

        @torch.no_grad()
        def run(clock: Clock) -> Tensor:
            allow_tf32(self.precision == "tf32")
            image = read_image(picture, self.image_format)
            clock.mark("reading")
            tensor = self.map_image(image)
            clock.mark("mapping")
            height, width = image.shape[:2]
            with self.stages.timed(clock):
                raw = model.inference([{"image": tensor}], do_postprocess=False)
            inclusive_boxes = getattr(model.proposal_generator, "inclusive_boxes", False)
            people = parsing_postprocess(raw[0], height, width, inclusive_boxes)
            clock.mark("pasting")
            prediction = to_prediction(people, (height, width))
            with mock.patch.object(instance_folders, "compose", _marking(clock)):
                submission.write(f"{next(numbers):07d}", prediction, (height, width))
            clock.mark("writing")
            return self.forced.found

        resident = size_in_bytes([*model.parameters(), *model.buffers()])
        self.case = Case(run, {"precision": self.precision}, self.counter, resident)


class _Stages:
    """Marks the ends of a model's stages: hooks of the modules that layer costs are counted of.

    What a module does beside those inside it is a stage too.
    """

    def __init__(self, model: GeneralizedRCNN, compiled: bool):
        """
        Args:
            model: with hooks of its own already.
            compiled: whether backbone and heads are, which cannot be looked into.
        """
        self._clock: Clock | None = None
        self._open = ["the rest of the model"]
        names = {} if compiled else _stage_names(model)
        for path, name in names.items():
            module = model.get_submodule(path)
            module.register_forward_pre_hook(self._enter(name), prepend=True)
            module.register_forward_hook(self._leave)

    @contextmanager
    def timed(self, clock: Clock) -> Iterator[None]:
        """Mark the stages of a call on a clock."""
        self._clock = clock
        yield
        clock.mark(self._open[0])
        self._clock = None

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if self._clock:
                self._clock.mark(self._open[-1])
                self._open.append(name)

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._clock:
            self._clock.mark(self._open.pop())


def _stage_names(model: GeneralizedRCNN) -> dict[str, str]:
    """Names of stages by path of a module."""
    names = {path: stage.name for stage in stages_of(model) for path in stage.modules}
    # The detector's layers are a stage of their own here.
    generator = model.proposal_generator
    head = "rpn_head" if hasattr(generator, "rpn_head") else "head"
    names[f"proposal_generator.{head}"] = names["proposal_generator"]
    names["proposal_generator"] = "decoding and suppression"
    for pooler in ("box_pooler", "parsing_pooler"):
        if isinstance(getattr(model.roi_heads, pooler, None), nn.Module):
            names[f"roi_heads.{pooler}"] = "RoI pooling"
    return names

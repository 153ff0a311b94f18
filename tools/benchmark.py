#!/usr/bin/env python
r"""Measure how fast the models are, and how much memory they take.

    python tools/benchmark.py models --output output/benchmark
    python tools/benchmark.py train --batch-sizes 2 8 --precisions tf32 bf16

Needs no weights and no data: pictures are drawn, weights are random with a fixed seed, and what
would depend on weights is forced. At test the detector's work is done, then the given number of
people takes the place of what it found; while training, boxes around the people join its proposals,
so that the branches train on as many RoIs as they do once the detector finds people.

Models take turns, so that what disturbs the machine disturbs all of them. A ratio is the median of
the ratios of neighbours in time, with the least and the greatest; "tie" where these span 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import aiparsing_d2  # isort: skip  # noqa: F401  before Detectron2: ignores its deprecation warnings

import cv2
import numpy as np
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import Tensor, nn

from aiparsing_d2 import model_zoo
from aiparsing_d2.drawn_scenes import draw_scene
from aiparsing_d2.engine.mixed_precision import build_trainer
from aiparsing_d2.modeling import AIParsing, parsing_postprocess
from aiparsing_d2.structures import PartMaps
from aiparsing_d2.whole_files import whole_file

MIB = 2**20
OUT_OF_MEMORY = "out of memory"
NOT_FINITE = "infinite or NaN values"  # whose time means nothing

# ------------------------------------------------------------------------------------------ models


@dataclass(frozen=True)
class Model:
    """A model that is measured.

    Attributes:
        name: in tables.
        build: makes it on the CPU.
        scale: of its input, in units of the image: AIParsing-light's short side is 600 pixels where
            the others' is 800.
        paper_fps: Table IX, on an RTX 2080 Ti.
    """

    name: str
    build: Callable[[], nn.Module]
    scale: float = 1.0
    paper_fps: float | None = None

    def input_size(self, image_size: Sequence[int]) -> tuple[int, int]:
        """(height, width) of its input for an image."""
        height, width = (round(side * self.scale) for side in image_size)
        return height, width


def build_from_zoo(name: str) -> nn.Module:
    return instantiate(model_zoo.get_config(name).model)


def build_mask_rcnn() -> nn.Module:
    """Return Detectron2's Mask R-CNN R-50 FPN for one class.

    Set up here as in its mask_rcnn_R_50_FPN, whose file not every installation has.
    """
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.WEIGHTS = ""
    model.MASK_ON = True
    model.BACKBONE.NAME = "build_resnet_fpn_backbone"
    model.RESNETS.DEPTH = 50
    model.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    model.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    model.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    model.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0, 2.0]]
    model.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    model.RPN.PRE_NMS_TOPK_TRAIN = 2000
    model.RPN.PRE_NMS_TOPK_TEST = 1000
    model.RPN.POST_NMS_TOPK_TRAIN = 1000
    model.RPN.POST_NMS_TOPK_TEST = 1000
    model.ROI_HEADS.NAME = "StandardROIHeads"
    model.ROI_HEADS.NUM_CLASSES = 1
    model.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    model.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    model.ROI_BOX_HEAD.NUM_FC = 2
    model.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    model.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    model.ROI_MASK_HEAD.NUM_CONV = 4
    model.ROI_MASK_HEAD.POOLER_RESOLUTION = 14
    return build_model(cfg)


REFERENCE = "aiparsing"
MODELS = {
    REFERENCE: Model(
        "AIParsing", lambda: build_from_zoo("cihp/aiparsing_R_50_FPN_cihp_25ep"), paper_fps=8.9
    ),
    "aiparsing-light": Model(
        "AIParsing-light",
        lambda: build_from_zoo("cihp/aiparsing_light_R_50_FPN_cihp_25ep"),
        scale=600 / 800,
        paper_fps=13.3,
    ),
    "parsing-rcnn": Model(
        "Parsing R-CNN",
        lambda: build_from_zoo("cihp/parsing_rcnn_R_50_FPN_cihp_25ep"),
        paper_fps=7.4,
    ),
    "mask-rcnn": Model("Mask R-CNN", build_mask_rcnn),
}


def build(key: str, device: torch.device, channels_last: bool) -> nn.Module:
    """Return a model with random weights, always the same."""
    torch.manual_seed(0)
    model = MODELS[key].build()
    keep_activations_small(model)
    if hasattr(model.proposal_generator, "score_thresh"):
        # As many candidates are decoded and suppressed as may be, as an RPN does; how many random
        # weights put above a threshold says nothing.
        model.proposal_generator.score_thresh = 0.0
    model.to(device)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    return model


def keep_activations_small(model: nn.Module) -> None:
    """Spare float16 the infinities of random weights, which no trained norm holds back."""
    for module in model.modules():
        if isinstance(module, BottleneckBlock) and isinstance(module.conv3.norm, FrozenBatchNorm2d):
            module.conv3.norm.weight.fill_(0.2)
    model.backbone.bottom_up.stem.conv1.norm.weight.fill_(0.02)


class RoICounter:
    """Counts the people that reach a model's parsing or mask head in a call."""

    def __init__(self, model: nn.Module):
        self.count = 0
        heads = model.roi_heads
        head = heads.parsing_head if hasattr(heads, "parsing_head") else heads.mask_head
        head.register_forward_pre_hook(self._note)

    def _note(self, head: nn.Module, args: tuple[Any, ...]) -> None:
        self.count = len(args[0])


# ------------------------------------------------------------------------------------- precisions

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", "tf32", *AUTOCAST)


def why_not(precision: str, device: torch.device) -> str | None:
    """Say why a device cannot compute in a precision, or None if it can."""
    if device.type == "cpu":
        return {"tf32": "only GPUs have TF32", "fp16": "measured on GPUs only"}.get(precision)
    needed = {"tf32": (8, 0), "bf16": (8, 0)}.get(precision)
    if needed and torch.cuda.get_device_capability(device) < needed:
        return f"{torch.cuda.get_device_name(device)} has none"
    return None


def allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed  # PyTorch's default allows it


def autocast(precision: str, device: torch.device) -> torch.autocast:
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


# -------------------------------------------------------------------------------------- measuring


class Clock:
    """Times stages of work that may run on a GPU, without waiting for it between stages."""

    def __init__(self, device: torch.device):
        self.device = device
        self.marks: list[tuple[str, Any]] = []

    def start(self) -> None:
        self._synchronize()
        self.marks = []
        self.mark("")

    def mark(self, stage: str) -> None:
        """Note the end of a stage."""
        if self.device.type == "cuda":
            now = torch.cuda.Event(enable_timing=True)
            now.record(torch.cuda.current_stream(self.device))
        else:
            now = time.perf_counter()
        self.marks.append((stage, now))

    def read(self) -> dict[str, float]:
        """Milliseconds by stage."""
        self._synchronize()
        pairs = zip(self.marks, self.marks[1:])
        if self.device.type == "cuda":
            return {stage: before.elapsed_time(now) for (_, before), (stage, now) in pairs}
        return {stage: 1000 * (now - before) for (_, before), (stage, now) in pairs}

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass
class Case:
    """Work that is measured.

    Attributes:
        run: does it once and marks its stages; returns a tensor that must be finite.
        counter: of the people that reach the RoI branch.
        resident: bytes that stay on the device between runs.
        after_failure: frees what a run that ran out of memory has left.
    """

    run: Callable[[Clock], Tensor]
    counter: RoICounter
    resident: int
    after_failure: Callable[[], None] = lambda: None


@dataclass
class Measurement:
    """What was measured of a case.

    Attributes:
        times: milliseconds by stage, of each repeat.
        rois: people in the RoI branch.
        peak: bytes at most on the GPU, without what other cases keep there.
        error: why there is no measurement.
    """

    times: list[dict[str, float]] = field(default_factory=list)
    rois: int = 0
    peak: int | None = None
    error: str | None = None

    @property
    def totals(self) -> list[float]:
        return [sum(stages.values()) for stages in self.times]


def measure(
    cases: Mapping[str, Case], device: torch.device, warm_up: int, repeats: int, deadline: float
) -> dict[str, Measurement]:
    """Run cases in turns, until they were repeated often enough or the time is up.

    Args:
        cases: by name.
        device: where they run.
        warm_up: rounds that are not counted.
        repeats: rounds that are.
        deadline: of ``time.monotonic()``; a round that began before it is finished.

    Returns:
        By name. Without an error all have as many times, perhaps fewer than ``repeats`` or none.
    """
    results = {name: Measurement() for name in cases}
    for number in range(-warm_up, repeats):
        if time.monotonic() > deadline:
            break
        for name, case in cases.items():
            result = results[name]
            if result.error:
                continue
            try:
                times, peak = run_once(case, device)
            except FloatingPointError:
                results[name] = Measurement(error=NOT_FINITE)
            except RuntimeError as e:
                if not is_out_of_memory(e):
                    raise
                results[name] = Measurement(error=OUT_OF_MEMORY)
            else:
                result.rois = case.counter.count
                # The first rounds allocate what stays, an optimiser's momentum for instance.
                if number >= 0:
                    result.times.append(times)
                    result.peak = peak and max(peak, result.peak or 0)
            # After the handler, which holds on to the frames of the failed run.
            if results[name].error:
                case.after_failure()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
    return results


def run_once(case: Case, device: torch.device) -> tuple[dict[str, float], int | None]:
    """Run a case; return milliseconds by stage, and the peak in bytes."""
    clock = Clock(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    clock.start()
    output = case.run(clock)
    times = clock.read()
    peak = torch.cuda.max_memory_allocated(device) - before + case.resident if on_gpu else None
    if not output.isfinite().all():
        raise FloatingPointError(NOT_FINITE)
    return times, peak


def is_out_of_memory(error: RuntimeError) -> bool:
    # cuDNN and cuBLAS have errors of their own.
    return isinstance(error, torch.cuda.OutOfMemoryError) or "ALLOC_FAILED" in str(error)


def size_in_bytes(tensors: Sequence[Any]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))


def compare(results: Mapping[str, Measurement], name: str) -> dict[str, Any] | None:
    """Time in units of the reference's, from runs side by side."""
    if name == REFERENCE or REFERENCE not in results:
        return None
    pairs = list(zip(results[name].totals, results[REFERENCE].totals))
    if not pairs:
        return None
    ratios = [mine / reference for mine, reference in pairs]
    low, high = min(ratios), max(ratios)
    return {
        "median": statistics.median(ratios),
        "low": low,
        "high": high,
        "tie": low <= 1 <= high,
    }


# ----------------------------------------------------------------------------------------- inputs


@lru_cache
def draw_image(size: tuple[int, int], num_people: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """Draw a scene: uint8 BGR (3, H, W), and people's part maps uint8 (N, H, W)."""
    scene = draw_scene(np.random.default_rng(seed), *size, num_people)
    image = torch.as_tensor(np.ascontiguousarray(scene.image[:, :, ::-1].transpose(2, 0, 1)))
    numbers = np.arange(1, num_people + 1)[:, None, None]
    return image, scene.category_map * (scene.human_map == numbers)


def people_boxes(count: int, size: Sequence[int]) -> Tensor:
    """Boxes (N, 4) of upright people, XYXY in pixels; the first ones are the same for any N."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(count, 3, generator=generator)
    h = (0.3 + 0.6 * u[:, 0]) * height
    w = (0.4 * h).clamp(max=width)
    x0, y0 = u[:, 1] * (width - w), u[:, 2] * (height - h)
    return torch.stack([x0, y0, x0 + w, y0 + h], dim=1)


def training_batch(
    key: str, batch_size: int, size: tuple[int, int], num_people: int, num_scenes: int = 2
) -> list[dict[str, Any]]:
    """Images with the targets that a model's mapper gives it; few scenes, over and over."""
    scenes = []
    for seed in range(min(num_scenes, batch_size)):
        image, maps = draw_image(size, num_people, seed)
        part_maps = PartMaps.from_full(maps)
        target = Instances(size, gt_boxes=part_maps.get_bounding_boxes())
        target.gt_classes = torch.zeros(num_people, dtype=torch.int64)
        if key == "mask-rcnn":
            target.gt_masks = PolygonMasks([outlines(person_map) for person_map in maps])
        else:
            target.gt_part_maps = part_maps
        scenes.append({"image": image, "instances": target})
    return [dict(scenes[i % len(scenes)]) for i in range(batch_size)]


def outlines(person_map: np.ndarray) -> list[np.ndarray]:
    """Polygons of a person, as Detectron2's Mask R-CNN takes them."""
    mask = (person_map > 0).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [c.reshape(-1).astype(np.float64) for c in contours if len(c) >= 3]


class ProposalsAroundPeople:
    """Gives a training model's RoI heads boxes around the people, which random weights don't find.

    A hook of the proposal generator, to which ``boxes`` are set per image.
    """

    COPIES = 32  # four people fill Mask R-CNN's 128 positives, and AIParsing's 16

    def __init__(self, model: nn.Module):
        self.boxes: list[Tensor] = []
        model.proposal_generator.register_forward_hook(self._add)

    def set_people(self, batch: Sequence[dict[str, Any]], device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self.boxes = []
        for x in batch:
            boxes = x["instances"].gt_boxes.tensor.float().repeat(self.COPIES, 1)
            sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
            # Sides move by 5 % at most, so the IoU stays above the 0.5 of a positive.
            shift = 0.05 * (2 * torch.rand(boxes.shape, generator=generator) - 1)
            self.boxes.append((boxes + shift * sides).to(device))

    def _add(self, generator: nn.Module, args: Any, output: Any) -> Any:
        proposals, losses = output
        joined = []
        for found, boxes in zip(proposals, self.boxes, strict=True):
            added = Instances(found.image_size, proposal_boxes=Boxes(boxes))
            added.objectness_logits = found.objectness_logits.new_zeros(len(boxes))
            added.proposal_boxes.clip(found.image_size)
            kept = Instances(
                found.image_size,
                proposal_boxes=found.proposal_boxes,
                objectness_logits=found.objectness_logits,
            )
            joined.append(Instances.cat([kept, added]))
        return joined, losses


# ----------------------------------------------------------------------------------------- models


@torch.no_grad()
def infer(
    model: nn.Module,
    image: Tensor,
    people: Tensor,
    output_size: Sequence[int],
) -> tuple[Instances, Tensor]:
    """Find people in an image, then go on with given ones.

    Args:
        model: in evaluation mode.
        image: uint8 (3, H, W), as a mapper leaves it.
        people: boxes (N, 4) in its frame, on the model's device.
        output_size: (height, width) that results are pasted at.

    Returns:
        The people at the output's size, and the finest feature map.
    """
    inputs = model.preprocess_image([{"image": image}])
    features = model.backbone(inputs.tensor)
    proposals, _ = model.proposal_generator(inputs, features, None)
    # What the RoI heads of either model do at test before they turn to parts or masks.
    model.roi_heads._forward_box(features, proposals)
    given = Instances(
        tuple(image.shape[1:]),
        pred_boxes=Boxes(people.clone()),  # postprocessing scales in place
        scores=people.new_full((len(people),), 0.9),
        pred_classes=torch.zeros(len(people), dtype=torch.int64, device=people.device),
    )
    (found,) = model.roi_heads.forward_with_given_boxes(features, [given])
    if isinstance(model, AIParsing):
        inclusive_boxes = getattr(model.proposal_generator, "inclusive_boxes", False)
        result = parsing_postprocess(found, *output_size, inclusive_boxes)
    else:
        result = detector_postprocess(found, *output_size)
    if len(result) != len(people):
        raise AssertionError(f"{len(people)} people were given, {len(result)} came out")
    return result, next(iter(features.values()))


def benchmark_models(args: argparse.Namespace) -> Report:
    report = Report(
        notes=[
            "Of one image, from uint8 pixels on the host to part maps (Mask R-CNN: masks) of the "
            "image's size on the device: network, decoding and suppression of as many candidates "
            "as the detector may have, pasting.",
            "Table IX of the paper: an RTX 2080 Ti, CIHP's images and people.",
        ]
    )
    device, size = args.device, args.image_size
    models = {key: build(key, device, args.channels_last).eval() for key in args.models}
    counters = {key: RoICounter(model) for key, model in models.items()}
    images = {key: draw_image(MODELS[key].input_size(size), 4, seed=0)[0] for key in args.models}
    for count, precision in groups(args.people, args.precisions, device, report):
        cases = {}
        for key, model in models.items():
            people = people_boxes(count, images[key].shape[1:]).to(device)

            def run(
                clock: Clock,
                model: nn.Module = model,
                image: Tensor = images[key],
                people: Tensor = people,
                precision: str = precision,
            ) -> Tensor:
                with autocast(precision, device):
                    _, features = infer(model, image, people, size)
                clock.mark("inference")
                return features

            resident = size_in_bytes([*model.parameters(), *model.buffers()])
            cases[key] = Case(run, counters[key], resident)
        report.add_group(args, cases, {"people": count, "precision": precision}, images_per_run=1)
    reference = MODELS[REFERENCE].paper_fps
    for row in report.rows:
        fps = MODELS[row["key"]].paper_fps
        row["paper_fps"], row["paper_ratio"] = fps, fps and reference / fps
    report.columns = {
        "model": lambda row: row["model"],
        "input": shown_size,
        "people": lambda row: row["people"],
        "precision": lambda row: row["precision"],
        "ms": lambda row: shown_time(row, "ms", ".1f"),
        "images/s": lambda row: shown_number(row["images_per_second"], ".1f"),
        "time / AIParsing's": shown_ratio,
        "peak MiB": lambda row: shown_number(row["peak_mib"], ".0f"),
        "Table IX images/s": lambda row: shown_number(row["paper_fps"], ".1f"),
        "Table IX time / AIParsing's": lambda row: shown_number(row["paper_ratio"], ".2f"),
    }
    return report


# ------------------------------------------------------------------------------------------ train


def benchmark_train(args: argparse.Namespace) -> Report:
    report = Report(
        notes=[
            "A step of SGD with momentum, from uint8 pixels on the host. Peak memory includes "
            "weights and momentum.",
            "RoIs are those of the parsing (Mask R-CNN: mask) branch in a batch.",
        ]
    )
    device, size = args.device, args.image_size
    trainees = {key: Trainee(key, device, args.channels_last) for key in args.models}
    for batch_size, precision in groups(args.batch_sizes, args.precisions, device, report):
        cases = {}
        for key, trainee in trainees.items():
            batch = training_batch(key, batch_size, MODELS[key].input_size(size), args.num_people)
            cases[key] = trainee.case(batch, precision)
        setting = {"batch_size": batch_size, "people": args.num_people, "precision": precision}
        report.add_group(args, cases, setting, images_per_run=batch_size)
    report.columns = {
        "model": lambda row: row["model"],
        "input": shown_size,
        "images": lambda row: row["batch_size"],
        "precision": lambda row: row["precision"],
        "RoIs": lambda row: row["rois"],
        "s/step": lambda row: shown_time(row, "ms", ".3f", 1e-3),
        **{
            f"{stage} s": lambda row, s=stage: shown_number(row["stages_ms"].get(s), ".3f", 1e-3)
            for stage in ("forward", "backward", "optimizer")
        },
        "images/s": lambda row: shown_number(row["images_per_second"], ".2f"),
        "time / AIParsing's": shown_ratio,
        "peak MiB": lambda row: shown_number(row["peak_mib"], ".0f"),
    }
    return report


class Trainee:
    """A model with its optimiser."""

    def __init__(self, key: str, device: torch.device, channels_last: bool):
        self.device = device
        self.model = build(key, device, channels_last).train()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        # Without a learning rate all is computed and nothing changes.
        self.optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9, weight_decay=1e-4)
        # The project's own way to bfloat16; once, since it leaves hooks in the model.
        trainer = build_trainer(self.model, [], self.optimizer, "bfloat16")
        self.forward = {"bf16": trainer.model}
        self.proposals = ProposalsAroundPeople(self.model)
        self.counter = RoICounter(self.model)
        # Momentum takes as much as the parameters.
        self.resident = size_in_bytes(
            [*self.model.parameters(), *self.model.buffers(), *parameters]
        )

    def case(self, batch: list[dict[str, Any]], precision: str) -> Case:
        forward = self.forward.get(precision, self.model)

        def run(clock: Clock) -> Tensor:
            self.proposals.set_people(batch, self.device)
            clock.start()
            with EventStorage():
                loss = sum(forward(batch).values())
            clock.mark("forward")
            loss.backward()
            clock.mark("backward")
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            clock.mark("optimizer")
            return loss.detach()

        return Case(run, self.counter, self.resident, self.optimizer.zero_grad)


# ----------------------------------------------------------------------------------------- report


@dataclass
class Report:
    """Rows of figures, how to show them, and what was left out.

    Attributes:
        notes: what the figures are of.
        rows: as written to the JSON file.
        columns: of the table; each shows a row.
        left_out: a line each.
    """

    notes: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, Callable[[dict[str, Any]], Any]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add_group(
        self,
        args: argparse.Namespace,
        cases: Mapping[str, Case],
        setting: Mapping[str, Any],
        images_per_run: int,
    ) -> None:
        """Measure models beside each other, and add a row for each."""
        allow_tf32(setting["precision"] == "tf32")
        results = measure(cases, args.device, args.warm_up, args.repeats, args.deadline)
        for key, result in results.items():
            name = MODELS[key].name
            if not result.times and not result.error:
                shown = ", ".join(f"{k} {v}" for k, v in setting.items())
                self.left_out.append(f"{name}, {shown}: --max-seconds were over")
                continue
            ms = statistics.median(result.totals) if result.times else None
            stages = result.times[0] if result.times else {}
            row = {
                "key": key,
                "model": name,
                "input_size": MODELS[key].input_size(args.image_size),
                **setting,
                "rois": result.rois,
                "ms": ms,
                "stages_ms": {s: statistics.median(t[s] for t in result.times) for s in stages},
                "images_per_second": ms and 1000 * images_per_run / ms,
                "ratio": compare(results, key),
                "peak_mib": result.peak and result.peak / MIB,
                "repeats": len(result.times),
                "all_ms": result.totals,
                "error": result.error,
            }
            self.rows.append(row)
            print(f"{name}, {setting}: {shown_time(row, 'ms', '.1f')} ms", file=sys.stderr)

    def markdown(self, machine: Mapping[str, Any]) -> str:
        table = [[show(row) for show in self.columns.values()] for row in self.rows]
        lines = [", ".join(f"{k} {v}" for k, v in machine.items()), *self.notes]
        lines.append(tabulate(table, list(self.columns), tablefmt="github", disable_numparse=True))
        if self.left_out:
            lines.append("Left out:\n\n" + "\n".join(f"* {line}" for line in self.left_out))
        return "\n\n".join(lines) + "\n"


def groups(
    numbers: Sequence[int], precisions: Sequence[str], device: torch.device, report: Report
) -> list[tuple[int, str]]:
    """All pairs that the device can do; why it cannot do the others goes to the report."""
    reasons = {precision: why_not(precision, device) for precision in precisions}
    report.left_out += [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    return list(product(numbers, [name for name in precisions if not reasons[name]]))


def shown_size(row: Mapping[str, Any]) -> str:
    return "{}x{}".format(*row["input_size"])


def shown_number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "-" if value is None else format(scale * value, form)


def shown_time(row: Mapping[str, Any], key: str, form: str, scale: float = 1.0) -> str:
    return row["error"] or shown_number(row[key], form, scale)


def shown_ratio(row: Mapping[str, Any]) -> str:
    ratio = row["ratio"]
    if ratio is None:
        return "-"
    shown = "{median:.2f} ({low:.2f} to {high:.2f})".format(**ratio)
    return f"{shown}, tie" if ratio["tie"] else shown


def describe_machine(args: argparse.Namespace) -> dict[str, Any]:
    on_gpu = args.device.type == "cuda"
    facts = {
        "device": torch.cuda.get_device_name(args.device)
        if on_gpu
        else platform.machine() + " CPU",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "image": "{}x{}".format(*args.image_size),
        "channels_last": args.channels_last,
    }
    if on_gpu:
        cudnn = torch.backends.cudnn
        facts.update(cuda=torch.version.cuda, cudnn=cudnn.version(), autotuned=cudnn.benchmark)
    return facts


# ------------------------------------------------------------------------------------ command line


@dataclass(frozen=True)
class Command:
    """A subcommand: what it measures, its options, and the work."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Report]


def add_model_arguments(
    parser: argparse.ArgumentParser, precisions: Sequence[str], repeats: int
) -> None:
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), help="default: all"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=precisions,
        default=list(precisions),
        help="tf32: float32 with TF32 convolutions and products; bf16, fp16: autocast; default: "
        "those that the device has",
    )
    parser.add_argument("--channels-last", action="store_true", help="memory format of the weights")
    parser.add_argument(
        "--image-size", type=int, nargs=2, default=(800, 1216), metavar=("H", "W"), help="in pixels"
    )
    parser.add_argument(
        "--repeats", type=int, default=repeats, help="the median is reported; default: %(default)s"
    )
    parser.add_argument(
        "--warm-up", type=int, default=2, help="rounds before; default: %(default)s"
    )


def add_models_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--people", type=int, nargs="+", default=[1, 5, 20, 50])
    add_model_arguments(parser, PRECISIONS, repeats=10)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[2, 8, 16], help="images")
    parser.add_argument(
        "--num-people", type=int, choices=range(1, 7), default=4, help="in each image"
    )
    # The fast ones first: where the time is over, the slowest are left out.
    add_model_arguments(parser, ("bf16", "tf32", "fp32"), repeats=5)


COMMANDS = {
    "models": Command("inference, model beside model", add_models_arguments, benchmark_models),
    "train": Command("a training step, model beside model", add_train_arguments, benchmark_train),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        sub = subparsers.add_parser(name, help=command.help, description=command.help)
        command.add_arguments(sub)
        sub.add_argument(
            "--device",
            type=torch.device,
            default="cuda" if torch.cuda.is_available() else "cpu",
            help="default: %(default)s",
        )
        sub.add_argument("--num-threads", type=int, help="of PyTorch on the CPU")
        sub.add_argument(
            "--max-seconds",
            type=float,
            default=80,
            help="no round is begun after these; what is missing is listed; default: %(default)s",
        )
        sub.add_argument(
            "--output", type=Path, metavar="DIR", help="for benchmark_COMMAND.json and .md"
        )
    args = parser.parse_args(argv)
    if args.device.type not in ("cpu", "cuda"):
        parser.error(f"--device {args.device}: only cpu and cuda are measured")
    if args.device.type == "cuda":
        if not torch.cuda.is_available():
            parser.error(f"--device {args.device}: PyTorch sees no GPU")
        args.device = torch.device("cuda", args.device.index or 0)
    counts = [*getattr(args, "people", ()), *getattr(args, "batch_sizes", ()), *args.image_size]
    if min(*counts, args.repeats, args.num_threads or 1) < 1 or args.warm_up < 0:
        parser.error("sizes and numbers must be positive")
    args.files = [
        args.output / f"benchmark_{args.command}.{suffix}" if args.output else None
        for suffix in ("json", "md")
    ]
    for file in args.files:
        if file and file.exists():
            parser.error(f"{file} exists; give another --output")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    if args.device.type == "cuda":
        torch.cuda.set_device(args.device)
    start = time.monotonic()
    args.deadline = start + args.max_seconds
    report = COMMANDS[args.command].run(args)
    machine = {**describe_machine(args), "seconds": round(time.monotonic() - start, 1)}
    text = report.markdown(machine)
    print(text, end="")
    json_file, markdown_file = args.files
    if json_file:
        content = {
            "command": args.command,
            "machine": machine,
            "notes": report.notes,
            "rows": report.rows,
            "left_out": report.left_out,
        }
        with whole_file(json_file, overwrite=False) as file:
            json.dump(content, file, indent=1)
        with whole_file(markdown_file, overwrite=False) as file:
            file.write(text)


if __name__ == "__main__":
    main()

"""Speed of a training step, model beside model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from aiparsing_d2.engine import build_trainer
from aiparsing_d2.engine.memory_allocation import keep_freed_memory

from .drawn_inputs import training_batch
from .measured_models import MODELS, REFERENCE, ModelSettings, RoICounter, build, facts
from .measuring import Case, Clock, allow_tf32, size_in_bytes
from .report import Report, available, shown_number, shown_ratio, shown_size, shown_time

__all__ = ["measure_training"]


class ProposalsAroundPeople:
    """Gives a training model's RoI heads boxes around the people, which random weights don't find.

    A hook of the proposal generator, to which ``boxes`` are set per image.
    """

    COPIES = 32  # four people fill Mask R-CNN's 128 positives, and AIParsing's 16

    def __init__(self, model: GeneralizedRCNN):
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


def measure_training(
    settings: ModelSettings, batch_sizes: Sequence[int], num_people: int
) -> Report:
    """Measure steps of SGD.

    Args:
        settings: see there.
        batch_sizes: numbers of images.
        num_people: in each image.
    """
    report = Report(
        notes=[
            "A step of SGD with momentum, from uint8 pixels on the host. Peak memory includes "
            "weights and momentum.",
            "RoIs are those of the parsing (Mask R-CNN: mask) branch in a batch.",
        ]
    )
    device, size = settings.device, settings.image_size
    trainees = {key: Trainee(build(key, device, settings.channels_last)) for key in settings.models}
    precisions = available(settings.precisions, device, report)
    for batch_size, precision in product(batch_sizes, precisions):
        cases = {}
        for key, trainee in trainees.items():
            batch = training_batch(key, batch_size, MODELS[key].input_size(size), num_people)
            cases[MODELS[key].name] = trainee.case(batch, precision, facts(key, size))
        allow_tf32(precision == "tf32")
        shared = {"batch_size": batch_size, "people": num_people, "precision": precision}
        report.add_group(settings, cases, shared, MODELS[REFERENCE].name)
    for row in report.rows:
        row["images_per_second"] = row["ms"] and 1000 * row["batch_size"] / row["ms"]
    report.columns = {
        "model": lambda row: row["model"],
        "input": shown_size,
        "images": lambda row: row["batch_size"],
        "precision": lambda row: row["precision"],
        "RoIs": lambda row: row["rois"],
        "s/step": lambda row: shown_time(row, "ms", ".3f", 1e-3),
        **{f"{stage} s": _shown_stage(stage) for stage in ("forward", "backward", "optimizer")},
        "images/s": lambda row: shown_number(row["images_per_second"], ".2f"),
        "time / AIParsing's": shown_ratio,
        "peak MiB": lambda row: shown_number(row["peak_mib"], ".0f"),
    }
    return report


def _shown_stage(stage: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: shown_number(row["stages_ms"].get(stage), ".3f", 1e-3)


class Trainee:
    """A model with its optimiser."""

    def __init__(self, model: GeneralizedRCNN):
        self.device = model.device
        if self.device.type == "cpu":
            keep_freed_memory()  # as a training does
        self.model = model.train()
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

    def case(self, batch: list[dict[str, Any]], precision: str, facts: dict[str, Any]) -> Case:
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

        return Case(run, facts, self.counter, self.resident, self.optimizer.zero_grad)

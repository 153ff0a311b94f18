"""Training in half precision, on CPUs too."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from torch import nn

logger = logging.getLogger(__name__)

PRECISIONS = ("float16", "bfloat16")


class BFloat16Trainer(SimpleTrainer):
    """``SimpleTrainer`` whose forward passes run under autocast to bfloat16, on CPU or GPU.

    bfloat16 has float32's range, so no gradient has to be scaled. The weights, the optimiser and
    this project's losses stay in float32.
    """

    def __init__(self, model: nn.Module, data_loader: Iterable, optimizer: torch.optim.Optimizer):
        """
        Args:
            model, data_loader, optimizer: as for ``SimpleTrainer``.
        """
        super().__init__(_BFloat16Forward(model), data_loader, optimizer)


class _BFloat16Forward(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batched_inputs):
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, torch.bfloat16):
            return self.model(batched_inputs)


def build_trainer(
    model: nn.Module,
    data_loader: Iterable,
    optimizer: torch.optim.Optimizer,
    precision: str | None = None,
) -> SimpleTrainer:
    """
    Args:
        model, data_loader, optimizer: as for ``SimpleTrainer``.
        precision: of the forward passes, "float16" (with scaled gradients; on a GPU only, left off
            with a warning elsewhere), "bfloat16", or None for float32.

    Raises:
        ValueError: another precision.
    """
    if precision is None:
        return SimpleTrainer(model, data_loader, optimizer)
    if precision == "bfloat16":
        return BFloat16Trainer(model, data_loader, optimizer)
    if precision != "float16":
        raise ValueError(
            f"train.amp.precision is {precision!r}; choose one of {', '.join(PRECISIONS)}"
        )
    device = next(model.parameters()).device
    if device.type != "cuda":
        logger.warning(
            "train.amp.enabled needs a GPU for float16; training on %s in float32. "
            "train.amp.precision=bfloat16 needs none.",
            device,
        )
        return SimpleTrainer(model, data_loader, optimizer)
    return AMPTrainer(model=model, data_loader=data_loader, optimizer=optimizer)

"""Gradient clipping, for any optimiser and trainer."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.utils.hooks import RemovableHandle

__all__ = ["clip_gradients"]


def clip_gradients(
    optimizer: torch.optim.Optimizer, max_norm: float, norm_type: float = 2.0
) -> RemovableHandle:
    """Clip the norm of all gradients together, before each of an optimiser's steps.

    Detectron2's ``SOLVER.CLIP_GRADIENTS`` clips each parameter's gradient by itself instead.

    Args:
        optimizer: its parameters' gradients count.
        max_norm: the largest norm; larger gradients are scaled down to it.
        norm_type: 2 for the Euclidean norm, infinity for the largest magnitude.

    Returns:
        A handle whose ``remove()`` ends the clipping.

    Raises:
        ValueError: ``max_norm`` is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f"train.clip_gradients.max_norm must be positive, got {max_norm}")

    def clip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # In mixed precision a fused optimiser gets scaled gradients, and their scale.
        scale = getattr(optimizer, "grad_scale", None)
        scaled_norm = max_norm if scale is None else max_norm * float(scale)
        clip_grad_norm_(parameters, scaled_norm, norm_type)

    return optimizer.register_step_pre_hook(clip)

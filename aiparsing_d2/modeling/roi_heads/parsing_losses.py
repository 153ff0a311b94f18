"""Losses of the prediction and refinement heads (paper, Eqs. 3-5).

Shape shorthand:
    R: RoIs of the batch. S: side of the logits. C: classes incl. background.
    Targets are int64 with 255 = ignore.

Numbers of pixels and RoIs are those of the logits given or, in a run of several processes, the
means over the processes (:func:`mean_over_processes`), which need not be whole.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor

from aiparsing_d2.structures.part_labels import IGNORE_LABEL

from ..collectives import exchange, gather_counts

# Errors that the Lovász loss sorts at once.
_MAX_SORTED = 1 << 22


def parsing_loss(logits: Tensor, target: Tensor, num_pixels: Tensor) -> Tensor:
    """Cross-entropy (L_parsing of Eq. 3), summed and divided by the number of counted pixels.

    Args:
        logits: (R, C, S, S).
        target: (R, S, S).
        num_pixels: with another target than 255. 0 gives 0.
    """
    total = F.cross_entropy(logits, target, ignore_index=IGNORE_LABEL, reduction="sum")
    return total / _or_1(num_pixels)


def edge_loss(logits: Tensor, target: Tensor, num_edge: Tensor, num_other: Tensor) -> Tensor:
    """Class-balanced cross-entropy (Eq. 4), as a weighted mean over the counted pixels.

    Non-edge pixels weigh |Y+| / |Y| and edge pixels |Y-| / |Y|, counted over all RoIs of the
    batch. 0 if the batch has no edge pixel or nothing else, where the weighted mean is 0 / 0.

    Args:
        logits: (R, 2, S, S), channel 1 = edge.
        target: (R, S, S) of {0, 1, 255}.
        num_edge, num_other: numbers of pixels with target 1 and 0.
    """
    counted = _or_1(num_edge + num_other)
    weight = torch.stack([num_edge, num_other]).to(logits.dtype) / counted
    total = F.cross_entropy(
        logits, target, weight=weight, ignore_index=IGNORE_LABEL, reduction="sum"
    )
    # Sum of the pixels' weights: num_other * w0 + num_edge * w1.
    total_weight = 2.0 * num_edge.to(logits.dtype) * (num_other / counted)
    return total / _or_1(total_weight)


def _or_1(count: Tensor) -> Tensor:
    """Return a divisor for sums that are 0 where the count is."""
    return count.where(count > 0, 1)


def lovasz_softmax_loss(logits: Tensor, target: Tensor, over_processes: bool = False) -> Tensor:
    """Lovász-softmax loss [67], a surrogate of 1 - mIoU (L_miou of Eq. 5).

    All RoIs of the batch form one set of pixels; averaged over the classes present in the target,
    background included. 0 if no pixel is counted.

    Args:
        logits: (R, C, S, S).
        target: (R, S, S).
        over_processes: whether the batch is that of all processes of the run. Then the result is
            this process's part of the loss times the number of processes, so that their mean is
            the loss. Errors go to the process that sorts their class, and slopes come back: twice
            4 bytes for each pixel and present class.
    """
    counted = target.flatten() != IGNORE_LABEL
    pixels = slice(None) if counted.all() else counted.nonzero().squeeze(1)
    labels = target.flatten()[pixels]
    counts = labels.bincount(minlength=logits.shape[1])
    # Per process and class.
    counts = gather_counts(counts) if over_processes else counts[None]
    num_pixels = counts.sum(dim=1).tolist()
    present = counts.sum(dim=0).nonzero().squeeze(1)
    if len(present) == 0:
        return logits.sum() * 0.0
    probabilities = logits.softmax(dim=1)
    constant = probabilities.detach()
    total, gradient = logits.new_zeros(()), torch.zeros_like(constant)
    # As many classes at once as a moderate memory holds; at least one for each process to sort.
    at_once = max(len(num_pixels), _MAX_SORTED // max(num_pixels))
    for group in present.split(at_once):
        is_class = labels == group[:, None]
        errors = constant[:, group].transpose(0, 1).flatten(1)[:, pixels]
        errors = torch.where(is_class, 1 - errors, errors)
        if len(num_pixels) == 1:
            slopes = _jaccard_slopes(errors, is_class)
        else:
            slopes = _jaccard_slopes_over_processes(errors, is_class, num_pixels)
        # Not a matrix product: autocast would take it in half precision, where slopes vanish.
        total += (errors * slopes).sum()
        rows = slopes.new_zeros(len(group), counted.numel())
        rows[:, pixels] = torch.where(is_class, -slopes, slopes)
        gradient[:, group] = rows.view(-1, *target.shape).transpose(0, 1)
    loss = _WithGradient.apply(probabilities, total, gradient)
    return loss * (len(num_pixels) / len(present))


class _WithGradient(torch.autograd.Function):
    """A value whose gradient was computed with it: autograd would keep and fill more memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad * ctx.saved_tensors[0], None, None


def _jaccard_slopes(errors: Tensor, is_class: Tensor) -> Tensor:
    """Slopes of the Lovász extensions of the Jaccard losses of some classes.

    That of the pixel with the i-th largest error is the Jaccard loss when the first i pixels are
    wrong minus that of the first i - 1, written without the difference, which would cancel: with I
    pixels still right and U in the union, a missed pixel of the class adds 1 / U and a false alarm
    I / (U (U - 1)).

    Args:
        errors: (K, pixels).
        is_class: bool (K, pixels), at least one true in each row.

    Returns:
        (K, pixels), at least 0, the sum of each row 1. Their product with the errors, summed, is
        the extension.
    """
    if errors.device.type != "cpu" or errors.dtype != torch.float32:
        order = errors.argsort(dim=1, descending=True, stable=True)
        slopes = _slopes_in_order(is_class, order, errors.dtype)
        return torch.empty_like(errors).scatter_(1, order, slopes)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        orders = list(pool.map(_deciding_pixels, errors, is_class))
    slopes = torch.zeros_like(errors)
    for row, own, order in zip(slopes, is_class, orders):
        row.scatter_(0, order, _slopes_in_order(own, order, errors.dtype))
    return slopes


def _deciding_pixels(errors: Tensor, is_class: Tensor) -> Tensor:
    """Give the pixels of a class (pixels,) that can have a slope, in the order of their errors.

    Errors are at least 0; the largest comes first, and the first of equal ones. Below the smallest
    of the class's own, nothing is right any more and slopes are 0: that is often most of it.
    """
    values = errors.numpy()
    pixels = np.flatnonzero(values >= values[is_class.numpy()].min())
    # The bits of floats that are not negative are in the order of the floats. With the place behind
    # them all keys differ, so that numpy's fast sort of integers gives the stable order.
    keys = values.view(np.int32)[pixels].astype(np.int64)
    np.negative(keys, out=keys)
    keys <<= 32
    keys |= pixels
    keys.sort()
    keys &= 0xFFFFFFFF
    return torch.from_numpy(keys)


def _slopes_in_order(is_class: Tensor, order: Tensor, dtype: torch.dtype) -> Tensor:
    """As :func:`_jaccard_slopes`, along the last axis; the slopes stand in the given order.

    Pixels that the order leaves out come after its own, none of them of the class.
    """
    is_class = is_class.gather(-1, order)
    found = is_class.cumsum(-1)
    total = found[..., -1:]
    intersection = (total - found).to(dtype)
    rank = torch.arange(1, found.shape[-1] + 1, device=found.device)
    union = (total + rank - found).to(dtype)
    # A false alarm makes the union at least 2; elsewhere the second value is not used.
    return torch.where(is_class, 1 / union, intersection / (union * (union - 1).clamp(min=1)))


def _jaccard_slopes_over_processes(
    errors: Tensor, is_class: Tensor, num_pixels: list[int]
) -> Tensor:
    """As :func:`_jaccard_slopes`, among the pixels of all processes.

    Each process sorts some of the classes.

    Args:
        errors: (K, pixels of this process), at least 0.
        is_class: bool (K, pixels of this process), at least one true among all processes' rows.
        num_pixels: of each process.

    Returns:
        (K, pixels of this process).
    """
    num_classes = [len(rows) for rows in errors.tensor_split(len(num_pixels))]
    own_classes, own_pixels = num_classes[comm.get_rank()], errors.shape[1]
    by_class = [count * own_pixels for count in num_classes]
    by_pixel = [own_classes * count for count in num_pixels]
    # The sign says whether the pixel is of the class; -0.0 has one too.
    signed = torch.where(is_class, -errors, errors)
    parts = exchange(signed.flatten(), by_class, by_pixel).split(by_pixel)
    signed = torch.cat([x.view(own_classes, n) for x, n in zip(parts, num_pixels)], dim=1)
    slopes = _jaccard_slopes(signed.abs(), signed.signbit())
    parts = torch.cat([x.flatten() for x in slopes.split(num_pixels, dim=1)])
    return exchange(parts, by_pixel, by_class).view_as(errors)


def score_loss(predicted: Tensor, target: Tensor, num_rois: Tensor, factor: float = 0.5) -> Tensor:
    """Squared error of the predicted mIoU (L_miou-score of Eq. 5), mean over RoIs that count.

    Args:
        predicted: (R,).
        target: (R,); RoIs with target 0 do not count.
        num_rois: that count. 0 gives 0.
        factor: of the mean squared error.
    """
    squared_error = (predicted - target).square()
    return factor * torch.where(target > 0, squared_error, 0.0).sum() / _or_1(num_rois)

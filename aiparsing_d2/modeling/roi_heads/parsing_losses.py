"""Losses of the prediction and refinement heads (paper, Eqs. 3-5).

Shape shorthand:
    R: RoIs of the batch. S: side of the logits. C: classes incl. background.
    Targets are int64 with 255 = ignore.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aiparsing_d2.structures.part_labels import IGNORE_LABEL

# Errors that the Lovász loss sorts at once; each takes about 50 bytes until the backward pass.
_MAX_SORTED = 1 << 22


def parsing_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, mean over the counted pixels; 0 if there are none (L_parsing of Eq. 3).

    Args:
        logits: (R, C, S, S).
        target: (R, S, S).
    """
    total = F.cross_entropy(logits, target, ignore_index=IGNORE_LABEL, reduction="sum")
    return total / (target != IGNORE_LABEL).sum().clamp(min=1)


def edge_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Class-balanced cross-entropy (Eq. 4), as a weighted mean over the counted pixels.

    Non-edge pixels weigh |Y+| / |Y| and edge pixels |Y-| / |Y|, counted over all RoIs of the
    batch. 0 if the batch has no edge pixel or nothing else, where the weighted mean is 0 / 0.

    Args:
        logits: (R, 2, S, S), channel 1 = edge.
        target: (R, S, S) of {0, 1, 255}.
    """
    num_edge = (target == 1).sum()
    num_other = (target == 0).sum()
    counted = (num_edge + num_other).clamp(min=1)
    weight = torch.stack([num_edge, num_other]).to(logits.dtype) / counted
    total = F.cross_entropy(
        logits, target, weight=weight, ignore_index=IGNORE_LABEL, reduction="sum"
    )
    # Sum of the pixels' weights: num_other * w0 + num_edge * w1.
    total_weight = 2.0 * num_edge.to(logits.dtype) * (num_other / counted)
    return torch.where(total_weight > 0, total / total_weight.clamp(min=1e-12), total * 0.0)


def lovasz_softmax_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Lovász-softmax loss [67], a surrogate of 1 - mIoU (L_miou of Eq. 5).

    All RoIs of the batch form one set of pixels; averaged over the classes present in the target,
    background included. 0 if no pixel is counted.

    Args:
        logits: (R, C, S, S).
        target: (R, S, S).
    """
    counted = target != IGNORE_LABEL
    labels = target[counted]
    present = labels.unique()
    if len(present) == 0:
        return logits.sum() * 0.0
    probabilities = logits.softmax(dim=1).transpose(0, 1)[:, counted]  # (C, pixels)
    # As many classes at once as a moderate memory holds.
    at_once = max(1, _MAX_SORTED // len(labels))
    hinges = (
        _lovasz_hinges(probabilities[group], labels == group[:, None]).sum()
        for group in present.split(at_once)
    )
    total = sum(hinges, logits.new_zeros(()))
    return total / len(present)


def _lovasz_hinges(probabilities: Tensor, is_class: Tensor) -> Tensor:
    """Lovász extensions of the Jaccard losses of some classes.

    Args:
        probabilities: (K, pixels).
        is_class: bool (K, pixels), at least one true in each row.

    Returns:
        (K,).
    """
    errors = torch.where(is_class, 1 - probabilities, probabilities)
    errors, order = errors.sort(dim=1, descending=True)
    # Not a matrix product: autocast would take it in half precision, where the slopes vanish.
    return (errors * _jaccard_slopes(is_class.gather(1, order), errors.dtype)).sum(dim=1)


def _jaccard_slopes(sorted_is_class: Tensor, dtype: torch.dtype) -> Tensor:
    """Slopes of the Lovász extension of the Jaccard loss, for errors in descending order.

    Entry i is the Jaccard loss when the first i + 1 pixels are wrong minus that of the first i,
    written without the difference, which would cancel: with I pixels still right and U in the
    union, a missed pixel of the class adds 1 / U and a false alarm I / (U (U - 1)).

    Args:
        sorted_is_class: bool (K, pixels), at least one true in each row.
        dtype: of the result.

    Returns:
        (K, pixels), at least 0, the sum of each row 1.
    """
    found = sorted_is_class.cumsum(1)
    total = found[:, -1:]
    intersection = (total - found).to(dtype)
    rank = torch.arange(1, found.shape[1] + 1, device=found.device)
    union = (total + rank - found).to(dtype)
    # A false alarm makes the union at least 2; elsewhere the second value is not used.
    return torch.where(
        sorted_is_class, 1 / union, intersection / (union * (union - 1).clamp(min=1))
    )


def score_loss(predicted: Tensor, target: Tensor, factor: float = 0.5) -> Tensor:
    """Squared error of the predicted mIoU (L_miou-score of Eq. 5), mean over RoIs that count.

    Args:
        predicted: (R,).
        target: (R,); RoIs with target 0 do not count.
        factor: of the mean squared error.
    """
    chosen = target > 0
    squared_error = (predicted - target).square()
    return factor * torch.where(chosen, squared_error, 0.0).sum() / chosen.sum().clamp(min=1)

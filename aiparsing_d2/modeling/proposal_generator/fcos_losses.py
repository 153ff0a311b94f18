"""Detection losses (paper, Eq. 2: L_det = L_cls + L_reg + L_center).

Each is a sum that the caller's normaliser divides: a number above 0, of the locations given or, in
a run of several processes, of the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor

BOX_LOSS_TYPES = ("giou", "iou")


def classification_loss(
    logits: Tensor,
    is_person: Tensor,
    is_ignored: Tensor,
    normalizer: Tensor,
    alpha: float,
    gamma: float,
) -> Tensor:
    """Sigmoid focal loss.

    Args:
        logits: (L,) over all locations of the batch.
        is_person: bool (L,).
        is_ignored: bool (L,), the locations to leave out of the sum; those of people count.
        normalizer: positive locations + images.
        alpha, gamma: of the focal loss.
    """
    losses = sigmoid_focal_loss(logits, is_person.to(logits.dtype), alpha=alpha, gamma=gamma)
    return losses.masked_fill(is_ignored & ~is_person, 0).sum() / normalizer


def box_loss(
    predicted: Tensor, target: Tensor, weights: Tensor, normalizer: Tensor, loss_type: str
) -> Tensor:
    """IoU-based box loss, weighted by the centre-ness target.

    Args:
        predicted, target: (P, 4) distances of the P positive locations in pixels. Zero if P = 0.
        weights: (P,) centre-ness targets.
        normalizer: sum of the weights.
        loss_type: "giou" (1 - GIoU), or "iou" (-ln IoU, the paper's UnitBox loss [54]).
    """
    # Both boxes hold the location they are measured from: of each pair of sides the nearer one
    # bounds the intersection and the farther one the smallest box around both.
    intersection = _area(torch.minimum(predicted, target))
    union = _area(predicted) + _area(target) - intersection
    iou = intersection / union
    if loss_type == "giou":
        hull = _area(torch.maximum(predicted, target))
        losses = 1 - iou + (hull - union) / hull
    elif loss_type == "iou":
        losses = -iou.clamp(min=torch.finfo(iou.dtype).tiny).log()
    else:
        raise ValueError(f"unknown box loss {loss_type!r}; choose one of {BOX_LOSS_TYPES}")
    return (losses * weights).sum() / normalizer


def _area(distances: Tensor) -> Tensor:
    return (distances[:, 0] + distances[:, 2]) * (distances[:, 1] + distances[:, 3])


def centerness_loss(logits: Tensor, target: Tensor, normalizer: Tensor) -> Tensor:
    """Binary cross-entropy with the (soft) centre-ness target.

    Args:
        logits, target: (P,) of the positive locations. Zero if P = 0.
        normalizer: positive locations.
    """
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / normalizer

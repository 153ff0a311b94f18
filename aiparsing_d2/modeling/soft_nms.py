"""Soft non-maximum suppression with linear decay (Bodla et al., ICCV 2017)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou


@torch.no_grad()
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    score_threshold: float = 1e-4,
    max_boxes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Lowers the scores of boxes that overlap a better one, instead of dropping them.

    The best remaining box is kept, each other remaining box whose IoU with it exceeds
    ``iou_threshold`` has its score multiplied by (1 - IoU), and so on until no remaining score
    reaches ``score_threshold``. Of equal scores the earlier box counts as the better one. Computed
    on the CPU in float64: each step needs the result of the one before.

    Args:
        boxes: (N, 4) XYXY.
        scores: (N,), non-negative.
        iou_threshold: overlap up to which a box leaves another alone.
        score_threshold: lowest score, after the decay, of a box to keep.
        max_boxes: most boxes to keep; None for all.

    Returns:
        int64 (K,) indices of the kept boxes, best first, and (K,) their lowered scores, both on the
        scores' device; the scores have their dtype.
    """
    boxes = boxes.detach().to("cpu", torch.float64)
    remaining = scores.detach().to("cpu", torch.float64, copy=True)
    overlaps = box_iou(boxes, boxes)
    # decay[i, j]: what becomes of j's score when i is kept.
    decay = torch.where(overlaps > iou_threshold, 1 - overlaps, torch.ones_like(overlaps))
    kept, kept_scores = [], []
    for _ in range(len(boxes) if max_boxes is None else min(max_boxes, len(boxes))):
        best = int(remaining.argmax())
        score = float(remaining[best])
        if score < score_threshold:
            break
        kept.append(best)
        kept_scores.append(score)
        # Out of the race for good: further factors must not turn -inf into NaN.
        remaining[best] = -torch.inf
        decay[:, best] = 1
        remaining *= decay[best]
    return (
        torch.tensor(kept, dtype=torch.int64, device=scores.device),
        torch.tensor(kept_scores, dtype=scores.dtype, device=scores.device),
    )

"""People put into a model that did not find them.

Knows only what all versions of the package have, since it runs in other versions too.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

__all__ = ["ForcedPeople"]


class ForcedPeople:
    """Has a model parse given people, however many its weights would find.

    The detector does its work; then the given boxes take the place of what it found. The parsing
    branch does its work too; then the given logits take the place of its own, since pasting and all
    that follows take longer for the noise of random weights.

    Attributes:
        found: (N, C, M, M), the branch's own logits in the last call.
    """

    def __init__(self, model: Any):
        """
        Args:
            model: a ``GeneralizedRCNN`` with a parsing branch, in evaluation mode.
        """
        self._find = model.roi_heads._forward_box
        self._boxes = self._logits = self.found = torch.zeros(0)
        model.roi_heads._forward_box = self._forward_box
        model.roi_heads.register_forward_hook(self._replace)

    def set(self, boxes: Tensor, logits: Tensor) -> None:
        """Give the people.

        Args:
            boxes: (N, 4) XYXY in the frame of the model's input.
            logits: (N, C, M, M) of their parts.
        """
        self._boxes, self._logits = boxes, logits

    def _forward_box(self, features: dict[str, Tensor], proposals: list[Instances]) -> Any:
        self._find(features, proposals)
        scores = torch.linspace(0.9, 0.8, len(self._boxes), device=self._boxes.device)
        classes = torch.zeros_like(scores, dtype=torch.int64)
        given = {"pred_boxes": Boxes(self._boxes.clone()), "scores": scores}
        return [Instances(proposals[0].image_size, **given, pred_classes=classes)]

    def _replace(self, heads: nn.Module, args: Any, output: Any) -> None:
        ((people,), _) = output
        own = people.pred_part_logits
        self.found = own.tensor
        people.pred_part_logits = type(own)(self._logits, own.upsample_factor)
        people.scores = people.box_scores

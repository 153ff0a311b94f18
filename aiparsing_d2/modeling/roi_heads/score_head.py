"""Refinement head that predicts the quality of a parsing map (paper, Sec. III-B, Eq. 5)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.utils.registry import Registry
from fvcore.nn import weight_init
from torch import Tensor, nn

PARSING_SCORE_HEAD_REGISTRY = Registry("PARSING_SCORE_HEAD")
PARSING_SCORE_HEAD_REGISTRY.__doc__ = """
Registry for refinement heads, which predict how good a parsing map is.

Called with `obj(cfg, input_shape: ShapeSpec)` of the parsing head's features. The module is called
with these features (R, C, S, S) and the part logits (R, classes, T, T), T a multiple of S, and
returns the predicted mIoUs (R,).
"""


@PARSING_SCORE_HEAD_REGISTRY.register()
class ParsingScoreHead(nn.Module):
    """Regresses each RoI's mean IoU from its features and its parsing logits.

    Two 3x3 convolutions (the second with stride 2), global average pooling and three
    fully-connected layers, the last linear.
    """

    # They cost nothing, and scores rank people.
    layers_in_float32 = ("fc1", "fc2", "predictor")

    @configurable
    def __init__(
        self, *, in_channels: int, num_classes: int, conv_dim: int = 128, fc_dim: int = 256
    ):
        """
        Args:
            in_channels: of the parsing head's features.
            num_classes: C, classes incl. background.
            conv_dim: channels of both convolutions.
            fc_dim: width of the two hidden fully-connected layers.
        """
        super().__init__()
        self.in_channels = in_channels
        self.conv1 = Conv2d(in_channels + num_classes, conv_dim, 3, padding=1, activation=nn.ReLU())
        self.conv2 = Conv2d(conv_dim, conv_dim, 3, stride=2, padding=1, activation=nn.ReLU())
        self.fc1 = nn.Linear(conv_dim, fc_dim)
        self.fc2 = nn.Linear(fc_dim, fc_dim)
        self.predictor = nn.Linear(fc_dim, 1)
        for conv in (self.conv1, self.conv2):
            weight_init.c2_msra_fill(conv)
        for fc in (self.fc1, self.fc2):
            weight_init.c2_xavier_fill(fc)
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        node = cfg.MODEL.ROI_PARSING_HEAD
        return {
            "in_channels": input_shape.channels,
            "num_classes": node.NUM_CLASSES,
            "conv_dim": node.SCORE_CONV_DIM,
            "fc_dim": node.SCORE_FC_DIM,
        }

    def forward(self, features: Tensor, part_logits: Tensor) -> Tensor:
        """
        Args:
            features: (R, in_channels, S, S) of the parsing head.
            part_logits: (R, C, T, T), T a multiple of S; max-pooled to S. Not detached: the score
                trains the parser too.

        Returns:
            (R,) predicted mIoU, not clamped.
        """
        # A trace holds sizes as tensors, which older versions of torch do not pool by.
        pooled = F.max_pool2d(part_logits, int(part_logits.shape[-1] // features.shape[-1]))
        x = torch.cat([features, pooled.to(features.dtype)], dim=1)
        x = self.conv2(self.conv1(x)).mean(dim=(2, 3), dtype=self.fc1.weight.dtype)
        return self.predictor(self.fc2(self.fc1(x).relu()).relu()).squeeze(1)

"""The convolutional head of the anchor-free detector (paper, Sec. III-A; FCOS)."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import Tensor, nn


class Scale(nn.Module):
    """Multiplication by one learnable number."""

    def __init__(self, init_value: float = 1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(init_value)))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; the result has the same."""
        return x * self.scale


class FCOSHead(nn.Module):
    """Classification, box and centre-ness predictions, shared by all feature levels.

    Two towers of 3x3 convolutions (with bias, norm and ReLU) feed the classification logit and,
    from the box tower, the box distances and the centre-ness logit.
    """

    # Rounded to bfloat16, the logarithm of a distance of 100 pixels is off by up to 1.6 pixels.
    layers_in_float32 = ("cls_logits", "box_pred", "centerness", "scales")

    @configurable
    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_convs: int = 4,
        norm: str = "GN",
        prior_prob: float = 0.01,
    ):
        """
        Args:
            input_shape: one per feature level; all with the same number of channels.
            num_convs: convolutions in each tower.
            norm: normalisation in the towers, a name for :func:`detectron2.layers.get_norm`.
            prior_prob: the classifier's bias is set so that every location starts with this
                foreground probability.

        Raises:
            ValueError: the levels' channel counts differ.
        """
        super().__init__()
        channels = {shape.channels for shape in input_shape}
        if len(channels) != 1:
            raise ValueError(
                f"FCOSHead is shared by its levels, but their channels differ: {channels}"
            )
        (channels,) = channels
        self.cls_tower = self._tower(channels, num_convs, norm)
        self.box_tower = self._tower(channels, num_convs, norm)
        self.cls_logits = Conv2d(channels, 1, kernel_size=3, padding=1)
        self.box_pred = Conv2d(channels, 4, kernel_size=3, padding=1)
        self.centerness = Conv2d(channels, 1, kernel_size=3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in input_shape)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - prior_prob) / prior_prob))

    @staticmethod
    def _tower(channels: int, num_convs: int, norm: str) -> nn.Sequential:
        # The convolutions keep their bias although a norm follows: the published weights have it.
        return nn.Sequential(
            *(
                Conv2d(
                    channels,
                    channels,
                    kernel_size=3,
                    padding=1,
                    norm=get_norm(norm, channels),
                    activation=nn.ReLU(),
                )
                for _ in range(num_convs)
            )
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.FCOS_PROPOSALS
        return {
            "input_shape": input_shape,
            "num_convs": node.NUM_CONVS,
            "norm": node.NORM,
            "prior_prob": node.PRIOR_PROB,
        }

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """
        Args:
            features: one (N, C, H_l, W_l) tensor per level.

        Returns:
            Per level: classification logits (N, 1, H_l, W_l); box distances (N, 4, H_l, W_l),
            positive, left/top/right/bottom in input pixels (paper, Eq. 1); centre-ness logits
            (N, 1, H_l, W_l).
        """
        logits, distances, centerness = [], [], []
        for feature, scale in zip(features, self.scales):
            # In a model in half precision, these layers may be in float32.
            dtype = self.box_pred.weight.dtype
            class_features = self.cls_tower(feature).to(dtype)
            box_features = self.box_tower(feature).to(dtype)
            # In bfloat16, steps between distances of more than 55 pixels are 1.5 or 3 %.
            with _without_autocast(feature.device.type):
                logits.append(self.cls_logits(class_features))
                # Half precision would round distances and overflow at exp(11.1).
                distances.append(scale(self.box_pred(box_features)).float().exp())
                centerness.append(self.centerness(box_features))
        return logits, distances, centerness


def _without_autocast(device_type: str) -> AbstractContextManager[None]:
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()

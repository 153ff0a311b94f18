"""The models whose speed is measured, with random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import get_cfg, instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet
from torch import nn

from aiparsing_d2 import model_zoo

from .measuring import Settings

__all__ = [
    "MODELS",
    "REFERENCE",
    "Model",
    "ModelSettings",
    "RoICounter",
    "build",
    "facts",
    "with_small_activations",
]


@dataclass(frozen=True)
class ModelSettings(Settings):
    """Which models are measured beside each other, and how.

    Attributes:
        models: keys of ``MODELS``.
        precisions: of ``PRECISIONS``, in the order in which they are measured.
        image_size: (height, width) in pixels.
        channels_last: memory format of the weights.
    """

    models: Sequence[str]
    precisions: Sequence[str]
    image_size: tuple[int, int]
    channels_last: bool


@dataclass(frozen=True)
class Model:
    """A model that is measured.

    Attributes:
        name: in tables.
        build: makes it on the CPU.
        scale: of its input, in units of the image: AIParsing-light's short side is 600 pixels where
            the others' is 800.
        paper_fps: Table IX, on an RTX 2080 Ti.
    """

    name: str
    build: Callable[[], GeneralizedRCNN]
    scale: float = 1.0
    paper_fps: float | None = None

    def input_size(self, image_size: Sequence[int]) -> tuple[int, int]:
        """(height, width) of its input for an image."""
        height, width = (round(side * self.scale) for side in image_size)
        return height, width


def _build_from_zoo(name: str) -> GeneralizedRCNN:
    return instantiate(model_zoo.get_config(name).model)


def _build_mask_rcnn() -> GeneralizedRCNN:
    """Return Detectron2's Mask R-CNN R-50 FPN for one class.

    Set up here as in its mask_rcnn_R_50_FPN, whose file not every installation has.
    """
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.WEIGHTS = ""
    model.MASK_ON = True
    model.BACKBONE.NAME = "build_resnet_fpn_backbone"
    model.RESNETS.DEPTH = 50
    model.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    model.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    model.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    model.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0, 2.0]]
    model.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    model.RPN.PRE_NMS_TOPK_TRAIN = 2000
    model.RPN.PRE_NMS_TOPK_TEST = 1000
    model.RPN.POST_NMS_TOPK_TRAIN = 1000
    model.RPN.POST_NMS_TOPK_TEST = 1000
    model.ROI_HEADS.NAME = "StandardROIHeads"
    model.ROI_HEADS.NUM_CLASSES = 1
    model.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    model.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    model.ROI_BOX_HEAD.NUM_FC = 2
    model.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    model.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    model.ROI_MASK_HEAD.NUM_CONV = 4
    model.ROI_MASK_HEAD.POOLER_RESOLUTION = 14
    return build_model(cfg)


REFERENCE = "aiparsing"
MODELS = {
    REFERENCE: Model(
        "AIParsing", lambda: _build_from_zoo("cihp/aiparsing_R_50_FPN_cihp_25ep"), paper_fps=8.9
    ),
    "aiparsing-light": Model(
        "AIParsing-light",
        lambda: _build_from_zoo("cihp/aiparsing_light_R_50_FPN_cihp_25ep"),
        scale=600 / 800,
        paper_fps=13.3,
    ),
    "parsing-rcnn": Model(
        "Parsing R-CNN",
        lambda: _build_from_zoo("cihp/parsing_rcnn_R_50_FPN_cihp_25ep"),
        paper_fps=7.4,
    ),
    "mask-rcnn": Model("Mask R-CNN", _build_mask_rcnn),
}


def build(key: str, device: torch.device, channels_last: bool) -> GeneralizedRCNN:
    """Return a model with random weights, always the same."""
    torch.manual_seed(0)
    model = with_small_activations(MODELS[key].build())
    if hasattr(model.proposal_generator, "score_thresh"):
        # As many candidates are decoded and suppressed as may be, as an RPN does; how many random
        # weights put above a threshold says nothing.
        model.proposal_generator.score_thresh = 0.0
    model.to(device)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    return model


def facts(key: str, image_size: Sequence[int]) -> dict[str, Any]:
    """Return what rows say of a model."""
    model = MODELS[key]
    return {"key": key, "model": model.name, "input_size": model.input_size(image_size)}


def with_small_activations(model: GeneralizedRCNN) -> GeneralizedRCNN:
    """Spare half precision the infinities of random weights, which no trained norm holds back."""
    for module in model.modules():
        if isinstance(module, BottleneckBlock) and isinstance(module.conv3.norm, FrozenBatchNorm2d):
            module.conv3.norm.weight.fill_(0.2)
    body = model.backbone.bottom_up
    if isinstance(body, ResNet) and isinstance(body.stem.conv1.norm, FrozenBatchNorm2d):
        body.stem.conv1.norm.weight.fill_(0.02)
    return model


class RoICounter:
    """Counts the people that reach a model's parsing or mask head in a call."""

    def __init__(self, model: GeneralizedRCNN):
        self.count = 0
        heads = model.roi_heads
        head = heads.parsing_head if hasattr(heads, "parsing_head") else heads.mask_head
        head.register_forward_pre_hook(self._note)

    def _note(self, head: nn.Module, args: tuple[Any, ...]) -> None:
        self.count = len(args[0])

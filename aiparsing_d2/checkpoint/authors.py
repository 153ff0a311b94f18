"""Checkpoints that the paper's authors publish, trained with their own code.

Their names and layers are those of maskrcnn-benchmark where it has them. What their numbers mean
differs in two points:

* Their frozen batch normalisation divides by ``sqrt(running_var)``, Detectron2's by
  ``sqrt(running_var + eps)``. Here ``eps`` is taken off ``running_var``, as Detectron2 does itself
  with its own old checkpoints; :func:`absorb_eps` says how small variances keep exact.
* They hold for their conventions of boxes, pooling and images: see ``AUTHORS_SETTINGS``.
"""

from __future__ import annotations

import re
from typing import Any, cast

import torch
from torch import Tensor, nn

from .architecture import check_architecture
from .conversion import Conversion, ConversionError, match_tensors, rename_tensors
from .resnet_names import detectron2_resnet_layer
from .weight_file import WeightFile

# Config keys, and the values with which a model computes what the authors' does. The stride of the
# residual blocks belongs to the stages (stages.stride_in_1x1 is True in ResNet-50 and -101).
AUTHORS_SETTINGS: dict[str, Any] = {
    "model.input_format": "BGR",
    "model.pixel_mean": [102.9801, 115.9465, 122.7717],
    "model.pixel_std": [1.0, 1.0, 1.0],
    # Test images are not padded: the top-down path resizes to whatever size a lateral has.
    "model.backbone._target_": "aiparsing_d2.modeling.BilinearFPN",
    "model.proposal_generator.inclusive_boxes": True,
    "model.proposal_generator.score_thresh": 0.03,
    "model.proposal_generator.nms_thresh": 0.6,
    # Without the half-pixel shift of ROIAlignV2.
    "model.roi_heads.parsing_pooler.pooler_type": "ROIAlign",
    "model.roi_heads.parsing_pooler.sampling_ratio": 2,
    # Part logits of 256x256.
    "model.roi_heads.parsing_head.upsample_factor": 4,
    "model.roi_heads.parsing_head.clamp_mious": False,
    "dataloader.test.mapper.image_format": "BGR",
    "dataloader.test.mapper.augmentations.0._target_": (
        "aiparsing_d2.data.transforms.FloatResizeShortestEdge"
    ),
    "test_time_augmentation.wrapper.mapper._target_": (
        "aiparsing_d2.data.transforms.FloatDatasetMapperTTA"
    ),
}

_DETECTOR = "proposal_generator.head"
_HEAD = "roi_heads.parsing_head"

_LAYERS = {
    "backbone.fpn.top_blocks.p6": "backbone.top_block.p6",
    "backbone.fpn.top_blocks.p7": "backbone.top_block.p7",
    "rpn.head.cls_logits": f"{_DETECTOR}.cls_logits",
    "rpn.head.bbox_pred": f"{_DETECTOR}.box_pred",
    "rpn.head.centerness": f"{_DETECTOR}.centerness",
    "ParsingHead.Head.PGEC.conv1.0": f"{_HEAD}.context.conv",
    "ParsingHead.Head.PGEC.bottleneck.0.0": f"{_HEAD}.context.merge",
    "ParsingHead.Head.feat.0.theta": f"{_HEAD}.non_local.theta",
    "ParsingHead.Head.feat.0.phi": f"{_HEAD}.non_local.phi",
    "ParsingHead.Head.feat.0.g": f"{_HEAD}.non_local.g",
    "ParsingHead.Head.feat.0.out": f"{_HEAD}.non_local.out",
    "ParsingHead.Head.feat.0.gn": f"{_HEAD}.non_local.norm",
    "ParsingHead.Output.parsing_score_lowres": f"{_HEAD}.parsing_predictor",
    "ParsingHead.Output.edge_score_lowres": f"{_HEAD}.edge_predictor",
    "ParsingHead.ParsingIoU.Head.convx.0.0": f"{_HEAD}.score_head.conv1",
    "ParsingHead.ParsingIoU.Head.convx.1.0": f"{_HEAD}.score_head.conv2",
    "ParsingHead.ParsingIoU.Head.parsingiou_fc1": f"{_HEAD}.score_head.fc1",
    "ParsingHead.ParsingIoU.Head.parsingiou_fc2": f"{_HEAD}.score_head.fc2",
    "ParsingHead.ParsingIoU.Output.parsingiou": f"{_HEAD}.score_head.predictor",
}
_BODY = re.compile(r"backbone\.body\.(?:stem\.)?(.+)")
# Levels count the body's stages from layer1: 2 is layer2, which is C3.
_FPN_LAYER = re.compile(r"backbone\.fpn\.fpn_(inner|layer)([234])")
_TOWER_LAYER = re.compile(r"rpn\.head\.(cls|bbox)_tower\.(\d+)")
_SCALE = re.compile(r"rpn\.head\.(scales\.\d+)")
# Branches count from 1: conv1 is the 3x3 convolution, conv2 the unit of extent H.
_PYRAMID_LAYER = re.compile(r"ParsingHead\.Head\.PGEC\.conv([2-5])\.(0\.gather\.\d+|1)")
_SHARED_LAYER = re.compile(r"ParsingHead\.Head\.conv_after\.(\d+)")

_NOT_PARAMETERS = re.compile(r".*\.num_batches_tracked|(.*\.)?anchor_generator\..*")


def convert_authors(file: WeightFile, model: nn.Module) -> tuple[Conversion, list[str]]:
    """Put a checkpoint of the authors under the names of this project's model.

    Args:
        file: their checkpoint, of any of their backbones, numbers of classes, or the light model.
        model: built from the config that the checkpoint is for; its tensors may be on the meta
            device.

    Returns:
        Weights for all of the model's tensors, and a line for each property of the architecture.

    Raises:
        ConversionError: the file is of another architecture, tensors are missing, left over or of
            other shapes, or a norm's ``running_var`` is not positive.
    """
    expected = model.state_dict()
    sources, dropped, problems = rename_tensors(
        file, _name_in_model, lambda name: bool(_NOT_PARAMETERS.fullmatch(name))
    )
    architecture = check_architecture(
        file,
        {target: file.tensors[source].shape for target, source in sources.items()},
        {name: tensor.shape for name, tensor in expected.items()},
    )
    weights = match_tensors(file, sources, expected, problems)
    for name in expected:
        norm, _, kind = name.rpartition(".")
        if kind != "running_var":
            continue
        if not (weights[name] > 0).all():
            raise ConversionError(
                f"{file.path}: {sources[name]} is not positive everywhere, so the layer's output "
                "is not finite"
            )
        weight = f"{norm}.weight"
        weights[weight], weights[name] = absorb_eps(
            weights[weight], weights[name], cast(float, model.get_submodule(norm).eps)
        )
    return Conversion(weights, sources, (*dropped, *file.other_entries)), architecture


def absorb_eps(weight: Tensor, running_var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Make a norm with ``eps`` compute what one without it did.

    ``running_var - eps`` alone would do in exact arithmetic; where ``running_var`` is smaller than
    ``eps``, that is negative and loses its digits when ``eps`` is added again. There it becomes 0
    and the weight takes up the rest.

    Args:
        weight: (C,) of a norm without ``eps``.
        running_var: (C,), positive.
        eps: that the new norm adds to ``running_var``.

    Returns:
        The new norm's weight and running_var, with weight' / sqrt(running_var' + eps) =
        weight / sqrt(running_var) to rounding and running_var' >= 0.
    """
    variance = running_var.double()
    shifted = (variance - eps).clamp(min=0)
    factor = torch.sqrt((shifted + eps) / variance)
    return (weight * factor).to(weight.dtype), shifted.to(running_var.dtype)


def _name_in_model(name: str) -> str | None:
    layer, _, kind = name.rpartition(".")
    layer = _layer_in_model(layer)
    return None if layer is None else f"{layer}.{kind}"


def _layer_in_model(layer: str) -> str | None:
    if layer in _LAYERS:
        return _LAYERS[layer]
    if match := _BODY.fullmatch(layer):
        layer = detectron2_resnet_layer(match[1])
        return None if layer is None else f"backbone.bottom_up.{layer}"
    if match := _FPN_LAYER.fullmatch(layer):
        kind = {"inner": "lateral", "layer": "output"}[match[1]]
        return f"backbone.fpn_{kind}{int(match[2]) + 1}"
    if match := _TOWER_LAYER.fullmatch(layer):
        # Convolution, norm, ReLU, and so on.
        conv, place = divmod(int(match[2]), 3)
        suffix = ("", ".norm", None)[place]
        tower = {"cls": "cls_tower", "bbox": "box_tower"}[match[1]]
        return None if suffix is None else f"{_DETECTOR}.{tower}.{conv}{suffix}"
    if match := _SCALE.fullmatch(layer):
        return f"{_DETECTOR}.{match[1]}"
    if match := _PYRAMID_LAYER.fullmatch(layer):
        return f"{_HEAD}.context.pyramid.{int(match[1]) - 2}.{match[2]}"
    if match := _SHARED_LAYER.fullmatch(layer):
        # Convolution, ReLU, and so on; the last convolution is followed by its norm.
        conv, is_norm = divmod(int(match[1]), 2)
        return f"{_HEAD}.convs.{conv}" + (".norm" if is_norm else "")
    return None

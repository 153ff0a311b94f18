"""ImageNet weights of torchvision's ResNets and ResNeXts, as backbones."""

from __future__ import annotations

import re
from typing import Any

from detectron2.modeling.backbone import ResNet
from torch import nn

from .conversion import Conversion, ConversionError, match_tensors, rename_tensors
from .resnet_names import detectron2_resnet_layer
from .weight_file import WeightFile

# Config keys, and the values that the weights were trained with. The stride belongs to the stages
# (stages.stride_in_1x1 is to be False).
TORCHVISION_SETTINGS: dict[str, Any] = {
    "model.input_format": "RGB",
    "model.pixel_mean": [123.675, 116.28, 103.53],
    "model.pixel_std": [58.395, 57.12, 57.375],
    "dataloader.train.mapper.image_format": "RGB",
    "dataloader.test.mapper.image_format": "RGB",
}

_NOT_OF_THE_BODY = re.compile(r"fc\.(weight|bias)|.*\.num_batches_tracked")


def convert_torchvision(file: WeightFile, model: nn.Module) -> Conversion:
    """Put a torchvision ResNet under the names of a model's backbone.

    Args:
        file: a ``state_dict`` of a torchvision ResNet, ResNeXt or wide ResNet.
        model: with one Detectron2 ``ResNet`` in it; its tensors may be on the meta device.

    Returns:
        Weights of the backbone by the model's full names; the classifier is dropped.

    Raises:
        ConversionError: the model has no ResNet or several, or tensors are missing, left over or
            of other shapes.
    """
    bodies = {name: body for name, body in model.named_modules() if isinstance(body, ResNet)}
    if len(bodies) != 1:
        raise ConversionError(
            "torchvision's weights are for a model with one ResNet; the model of the config has "
            f"{len(bodies)}"
        )
    ((prefix, body),) = bodies.items()
    prefix = f"{prefix}." if prefix else ""

    def name_in_model(name: str) -> str | None:
        layer, _, kind = name.rpartition(".")
        layer = detectron2_resnet_layer(layer)
        return None if layer is None else f"{prefix}{layer}.{kind}"

    sources, dropped, problems = rename_tensors(
        file, name_in_model, lambda name: bool(_NOT_OF_THE_BODY.fullmatch(name))
    )
    expected = {prefix + name: tensor for name, tensor in body.state_dict().items()}
    weights = match_tensors(file, sources, expected, problems)
    return Conversion(weights, sources, (*dropped, *file.other_entries))

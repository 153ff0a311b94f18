"""Names of ResNet layers in torchvision and the code bases that follow it, and in Detectron2."""

from __future__ import annotations

import re

_BLOCK_LAYER = re.compile(r"layer([1-4])\.(\d+)\.(conv|bn)([123])")
_SHORTCUT_LAYER = re.compile(r"layer([1-4])\.(\d+)\.downsample\.([01])")


def detectron2_resnet_layer(name: str) -> str | None:
    """Detectron2's name of a layer of a ResNet or ResNeXt.

    Args:
        name: ``conv1``, ``bn1``, ``layer{1..4}.{block}.{conv,bn}{1,2,3}`` or
            ``layer{1..4}.{block}.downsample.{0,1}``.

    Returns:
        The name relative to Detectron2's ``ResNet``, where norms belong to their convolutions, or
        None for any other layer.
    """
    if name == "conv1":
        return "stem.conv1"
    if name == "bn1":
        return "stem.conv1.norm"
    if match := _BLOCK_LAYER.fullmatch(name):
        stage, block, kind, index = match.groups()
        layer = f"res{int(stage) + 1}.{block}.conv{index}"
        return layer if kind == "conv" else f"{layer}.norm"
    if match := _SHORTCUT_LAYER.fullmatch(name):
        stage, block, index = match.groups()
        layer = f"res{int(stage) + 1}.{block}.shortcut"
        return layer if index == "0" else f"{layer}.norm"
    return None

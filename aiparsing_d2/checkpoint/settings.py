"""Whether a config treats images and boxes as the weights expect it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from torch import nn


def differing_settings(config: DictConfig, wanted: Mapping[str, Any]) -> list[str]:
    """Keys of a config that have other values than wanted.

    Args:
        config: a LazyConfig.
        wanted: values by dotted key. Keys below nodes that the config does not have do not count;
            a key that a node does not have is at the default of the class that the node builds.

    Returns:
        For each such key the override that mends it, ``key=value``, and what it is now.
    """
    lines = []
    for key, value in wanted.items():
        node, _, leaf = key.rpartition(".")
        node = OmegaConf.select(config, node)
        if not isinstance(node, DictConfig):
            continue
        now = node[leaf] if leaf in node else _default(node, leaf)
        if leaf == "_target_":
            same = _as_object(now) is _as_object(value)
        else:
            same = now == value
        if not same:
            text = str(value).replace(" ", "")
            lines.append(f"{key}={text} (is {now if now is not None else 'not set'})")
    return lines


def differing_stride(model: nn.Module, in_1x1: bool, grouped: bool = True) -> list[str]:
    """As :func:`differing_settings`, for the convolution that halves the resolution in a ResNet.

    Args:
        model: with bottleneck blocks; without, nothing differs.
        in_1x1: whether it is the first 1x1 convolution of a block, not the 3x3 one.
        grouped: whether ResNeXt blocks count.
    """
    halving = [
        block
        for block in model.modules()
        if isinstance(block, BottleneckBlock)
        and block.stride > 1
        and (grouped or block.conv2.groups == 1)
    ]
    if all((block.conv1.stride[0] > 1) == in_1x1 for block in halving):
        return []
    return [f"model.backbone.bottom_up.stages.stride_in_1x1={in_1x1} (is {not in_1x1})"]


def _default(node: DictConfig, argument: str) -> Any:
    """Default of an argument of what a node builds; None if it has none or is not known."""
    if "_target_" not in node:
        return None
    parameter = inspect.signature(_as_object(node._target_)).parameters.get(argument)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _as_object(target: Any) -> Any:
    return locate(target) if isinstance(target, str) else target

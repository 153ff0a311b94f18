"""Settings that weights were trained with: giving them to a config, and telling what differs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from torch import nn


def apply_settings(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Give the keys of a config the wanted values, in place.

    Args:
        config: a LazyConfig, or its nodes by name.
        wanted: see :func:`differing_settings`. What is so by default is not written.
    """
    for key, value, _ in _differences(config, wanted):
        root, _, rest = key.partition(".")
        OmegaConf.update(config[root], rest, value)


def differing_settings(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Keys of a config that have other values than wanted.

    Args:
        config: a LazyConfig, or its nodes by name.
        wanted: values by dotted key. Keys below nodes that the config does not have do not count;
            a key that a node does not have is at the default of the class that the node builds.

    Returns:
        For each such key the override that mends it, ``key=value``, and what it is now.
    """
    lines = []
    for key, value, now in _differences(config, wanted):
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


def _differences(
    config: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Return the keys that differ, with the wanted value and the present one."""
    for key, value in wanted.items():
        parent, _, leaf = key.rpartition(".")
        root, _, rest = parent.partition(".")
        node = config.get(root)
        if rest and node is not None:
            node = OmegaConf.select(node, rest)
        if not isinstance(node, DictConfig):
            continue
        now = node[leaf] if leaf in node else _default(node, leaf)
        same = _as_object(now) is _as_object(value) if leaf == "_target_" else now == value
        if not same:
            yield key, value, now


def _default(node: DictConfig, argument: str) -> Any:
    """Default of an argument of what a node builds; None if it has none or is not known."""
    if "_target_" not in node:
        return None
    parameter = inspect.signature(_as_object(node._target_)).parameters.get(argument)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _as_object(target: Any) -> Any:
    return locate(target) if isinstance(target, str) else target

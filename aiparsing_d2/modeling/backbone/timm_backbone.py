"""Bodies from timm: any of its models that gives feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["TimmBackbone", "build_timm_backbone", "timm_pixel_mean", "timm_pixel_std"]


class TimmBackbone(Backbone):
    """A timm model as the body of an FPN.

    Feature maps are named as those of Detectron2's ResNet: "resK" has stride 2^K, and is the
    deepest one of that stride. The body reads images that are normalised by
    :func:`timm_pixel_mean` and :func:`timm_pixel_std`, in RGB.

    Frozen layers get no gradient, and their norms keep their statistics also in training mode.
    """

    def __init__(
        self,
        model_name: str,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        freeze_at: int = 0,
        freeze_norms: bool = True,
        pretrained: bool = False,
        **timm_options: Any,
    ):
        """
        Args:
            model_name: of timm, e.g. "tf_efficientnet_lite0" or "convnext_tiny.fb_in1k".
            out_features: names of the feature maps to return, finest first.
            freeze_at: K freezes all layers up to the feature map of stride 2^K, so 2 the stem and
                the stage of stride 4; 0 freezes none.
            freeze_norms: whether all batch norms keep their statistics and affine parameters, as is
                usual with small batches. Other norms are trained.
            pretrained: whether timm may download its weights. Weights in a file are what a config
                starts from (``train.init_checkpoint``).
            **timm_options: further arguments of ``timm.create_model``, e.g.
                ``dynamic_img_size=True``, which Swin and ViT need to read images of any size.

        Raises:
            ValueError: the model has no feature map of such a name or up to which to freeze.
        """
        # It takes a second, which commands without such a body need not wait.
        import timm

        super().__init__()
        # timm knows no sequences of omegaconf.
        timm_options = {
            name: tuple(value)
            if isinstance(value, Sequence) and not isinstance(value, str)
            else value
            for name, value in timm_options.items()
        }
        with torch.device("meta"):
            extractor: Any = timm.create_model(model_name, features_only=True, **timm_options)
        info = extractor.feature_info
        # A model may have several feature maps of a stride; the deepest comes last.
        indices = {
            f"res{(stride - 1).bit_length()}": i
            for i, stride in zip(info.out_indices, info.reduction())
        }
        unknown = [name for name in out_features if name not in indices]
        if unknown or not out_features:
            raise ValueError(
                f"{model_name} has the feature maps {', '.join(indices)}; got {list(out_features)}"
            )
        self.model_name = model_name
        self.timm_options = timm_options
        self._out_features = list(out_features)
        out_indices = [indices[name] for name in out_features]
        self._out_feature_channels = dict(zip(out_features, info.channels(out_indices)))
        self._out_feature_strides = dict(zip(out_features, info.reduction(out_indices)))
        self.net = timm.create_model(
            model_name,
            features_only=True,
            pretrained=pretrained,
            out_indices=out_indices,
            **timm_options,
        )
        self._is_channels_last = str(getattr(self.net, "output_fmt", "")).endswith("NHWC")

        frozen: list[nn.Module] = []
        if freeze_at > 0:
            if f"res{freeze_at}" not in indices:
                raise ValueError(
                    f"freeze_at={freeze_at}: {model_name} has the feature maps {', '.join(indices)}"
                )
            frozen = _modules_up_to(self.net, info.module_name(indices[f"res{freeze_at}"]))
        for module in frozen:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        self._frozen_norms = [
            module
            for module in (self.net.modules() if freeze_norms else frozen)
            if isinstance(module, _BatchNorm)
        ]
        for norm in self._frozen_norms:
            norm.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode)
        # Frozen norms stay what they are rather than become FrozenBatchNorm2d: timm's do the
        # activation too, and this way they are a single operation in any precision.
        for norm in self._frozen_norms:
            norm.eval()
        return self

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: (N, 3, H, W) normalised images.

        Returns:
            Feature map (N, C, h, w) per name.
        """
        features = self.net(x)
        if self._is_channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return dict(zip(self._out_features, features))


def timm_pixel_mean(model_name: str) -> list[float]:
    """Mean of the images that timm's weights of a model were trained on: 0 to 255, RGB."""
    return [255.0 * value for value in _pretrained_cfg(model_name).mean]


def timm_pixel_std(model_name: str) -> list[float]:
    """Return the standard deviation, as :func:`timm_pixel_mean`."""
    return [255.0 * value for value in _pretrained_cfg(model_name).std]


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Return the body named by ``cfg.MODEL.TIMM.NAME``, with the feature maps that the FPN reads.

    Raises:
        ValueError: the config normalises images otherwise than the body's weights ask for.
    """
    node = cfg.MODEL.TIMM
    wanted = {
        "MODEL.PIXEL_MEAN": (cfg.MODEL.PIXEL_MEAN, timm_pixel_mean(node.NAME)),
        "MODEL.PIXEL_STD": (cfg.MODEL.PIXEL_STD, timm_pixel_std(node.NAME)),
    }
    if cfg.INPUT.FORMAT != "RGB":
        raise ValueError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT}, but timm's models read RGB")
    for key, (value, expected) in wanted.items():
        if not torch.allclose(torch.tensor(value), torch.tensor(expected), atol=0.01):
            raise ValueError(
                f"{key} is {list(value)}, but {node.NAME} reads images normalised by "
                f"{[round(v, 3) for v in expected]}"
            )
    return TimmBackbone(
        node.NAME,
        out_features=cfg.MODEL.FPN.IN_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        freeze_norms=node.FREEZE_NORMS,
        **node.OPTIONS,
    )


def _pretrained_cfg(model_name: str) -> Any:
    import timm

    cfg = timm.models.get_pretrained_cfg(model_name)
    if cfg is None:
        raise ValueError(f"timm has no settings of the weights of a model {model_name!r}")
    return cfg


def _modules_up_to(net: nn.Module, last: str) -> list[nn.Module]:
    """Modules in the order of their registration, which in timm is that of execution.

    Args:
        net: a feature extractor. It may flatten the model's "stages.0" to "stages_0", or hold the
            model as "model".
        last: name of a module of the model; with all that is in it the last one to return.
    """
    last = last.replace(".", "_")
    modules, end = [], 0
    for name, module in net.named_modules():
        modules.append(module)
        if f"{name.removeprefix('model.').replace('.', '_')}_".startswith(f"{last}_"):
            end = len(modules)
    return modules[:end]

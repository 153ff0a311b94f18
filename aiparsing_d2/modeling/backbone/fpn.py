"""Feature pyramid P3-P7 (paper, Sec. III and Fig. 3)."""

from __future__ import annotations

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, Backbone, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import Tensor

from .timm_backbone import build_timm_backbone


class BilinearFPN(FPN):
    """FPN whose top-down path resizes bilinearly to each lateral's exact size.

    Detectron2's FPN doubles by nearest neighbour, which needs inputs padded to a multiple of the
    coarsest stride. This one takes any input size, so images are not padded.
    """

    @property
    def size_divisibility(self) -> int:
        return 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: (N, 3, H, W) normalised images.

        Returns:
            Feature map per name, finest first.
        """
        bottom_up_features = self.bottom_up(x)
        results = []
        merged = None
        # Laterals and outputs are stored coarsest first.
        for name, lateral_conv, output_conv in zip(
            reversed(self.in_features), self.lateral_convs, self.output_convs
        ):
            lateral = lateral_conv(bottom_up_features[name])
            if merged is None:
                merged = lateral
            else:
                merged = lateral + F.interpolate(
                    merged, size=lateral.shape[-2:], mode="bilinear", align_corners=False
                )
                if self._fuse_type == "avg":
                    merged = merged / 2
            results.insert(0, output_conv(merged))
        if self.top_block is not None:
            source = bottom_up_features.get(self.top_block.in_feature)
            if source is None:
                source = results[self._out_features.index(self.top_block.in_feature)]
            results.extend(self.top_block(source))
        return dict(zip(self._out_features, results))


@BACKBONE_REGISTRY.register()
def build_aiparsing_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """ResNet with P3-P5 from C3-C5 and P6, P7 by stride-2 convolutions from P5."""
    return _build_fpn(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_aiparsing_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Return the same on a body of timm, see :func:`build_timm_backbone`."""
    return _build_fpn(cfg, build_timm_backbone(cfg, input_shape))


def _build_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    out_channels = cfg.MODEL.FPN.OUT_CHANNELS
    fpn_class = BilinearFPN if cfg.MODEL.FPN.BILINEAR_TOP_DOWN else FPN
    return fpn_class(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=out_channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelP6P7(out_channels, out_channels, in_feature="p5"),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )

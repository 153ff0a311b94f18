from .fpn import (
    BilinearFPN,
    build_aiparsing_resnet_fpn_backbone,
    build_aiparsing_timm_fpn_backbone,
)
from .timm_backbone import TimmBackbone, build_timm_backbone, timm_pixel_mean, timm_pixel_std

__all__ = [
    "BilinearFPN",
    "TimmBackbone",
    "build_aiparsing_resnet_fpn_backbone",
    "build_aiparsing_timm_fpn_backbone",
    "build_timm_backbone",
    "timm_pixel_mean",
    "timm_pixel_std",
]

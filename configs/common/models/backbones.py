"""Deeper bodies than the models' ResNet-50.

Each function sets the body, the input normalisation its ImageNet weights were trained with, and
these weights as the ones to start from.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock


def use_resnet_101(model, train):
    """ResNet-101 (MSRA)."""
    model.backbone.bottom_up.stages.depth = 101
    train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"


def use_resnext_101_32x8d(model, train):
    """ResNeXt-101-32x8d (FAIR), whose stride is in the 3x3 convolutions."""
    model.backbone.bottom_up.stages = [
        L(ResNet.make_stage)(
            block_class=BottleneckBlock,
            num_blocks=num_blocks,
            stride_per_block=[first_stride] + [1] * (num_blocks - 1),
            in_channels=in_channels,
            bottleneck_channels=out_channels,  # 32 groups of 8 channels in the first stage
            out_channels=out_channels,
            num_groups=32,
            stride_in_1x1=False,
            norm="FrozenBN",
        )
        for num_blocks, in_channels, out_channels, first_stride in [
            (3, 64, 256, 1),
            (4, 256, 512, 2),
            (23, 512, 1024, 2),
            (3, 1024, 2048, 2),
        ]
    ]
    model.pixel_std = [57.375, 57.120, 58.395]
    train.init_checkpoint = "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl"

"""A small AIParsing on drawn scenes: from random weights to a trained parser on two CPU cores.

Every module is the full model's; channels, depth, RoI and image size are smaller. Nothing is
pre-trained, so the backbone and the FPN normalise over the batch and no stage is frozen.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock

from ..common.data.drawn_cihp import dataloader
from ..common.models.aiparsing_fpn import model
from ..common.optim import AdamW as optimizer
from ..common.schedule import cosine_schedule
from ..common.train import train
from ..common.tta import demo as test_time_augmentation

# A ResNet-18 of half the width.
_backbone = model.backbone
_backbone.bottom_up.stem = L(BasicStem)(in_channels=3, out_channels=32, norm="BN")
_backbone.bottom_up.stages = [
    L(ResNet.make_stage)(
        block_class=BasicBlock,
        num_blocks=2,
        stride_per_block=[first_stride, 1],
        in_channels=in_channels,
        out_channels=out_channels,
        norm="BN",
    )
    for in_channels, out_channels, first_stride in [
        (32, 32, 1),
        (32, 64, 2),
        (64, 128, 2),
        (128, 256, 2),
    ]
]
_backbone.bottom_up.freeze_at = 0
_backbone.out_channels = 64
_backbone.norm = "BN"
# The parsing branch pools from a level finer than the detector's finest: images are a quarter of
# the usual size, so P2 shows a person in as many cells as P3 does there.
_backbone.bottom_up.out_features = ["res2", "res3", "res4", "res5"]
_backbone.in_features = ["res2", "res3", "res4", "res5"]
_fcos = model.proposal_generator
_fcos.head.num_convs = 2

_roi_heads = model.roi_heads
_roi_heads.parsing_in_features = ["p2"]
_roi_heads.parsing_pooler.scales = [1.0 / 4]
_roi_heads.parsing_pooler.output_size = 24
# A bin is hardly larger than a cell of P2 here.
_roi_heads.parsing_pooler.sampling_ratio = 1
_roi_heads.parsing_batch_size_per_image = 2
_head = _roi_heads.parsing_head
_head.context.out_channels = 64
_head.conv_dims = [64, 64]
_head.score_head.in_channels = 64
_head.score_head.conv_dim = 16
_head.score_head.fc_dim = 64
# Logits of 48 x 48: interpolating them before the losses would teach little more at several times
# the cost.
_head.upsample_factor = 1
# Edges as wide as those of 256 x 256; 4 pixels of 48 would mark half of a RoI.
_head.edge_size = 256
# A patch of a part that is not there costs a person more than most other mistakes.
_head.min_part_probability = 0.6
model.pixel_std = [57.375, 57.120, 58.395]

dataloader.train.total_batch_size = 4
# Small images are read faster than they pass from one process to another.
dataloader.train.num_workers = 0
dataloader.test.num_workers = 1
dataloader.train.mapper.augmentations[0].short_edge_length = (192, 192)
dataloader.train.mapper.augmentations[0].max_size = 288
dataloader.test.mapper.augmentations[0].short_edge_length = 192
dataloader.test.mapper.augmentations[0].max_size = 288

train.max_iter = 1800
optimizer.lr = 2e-3
optimizer.weight_decay = 0.05
optimizer.fused = True
lr_multiplier = cosine_schedule(train.max_iter, warmup_iters=50)

# Convolutions this small are hardly faster in bfloat16.
train.amp.enabled = False
train.seed = 1
train.output_dir = "./output/train_demo"
train.checkpointer = dict(period=450, max_to_keep=2)
train.eval_period = 1800
train.log_period = 20

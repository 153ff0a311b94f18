"""AIParsing R-50 on LV-MHP-v2, 75 epochs (paper, Table II)."""

from ..common.data.lv_mhp_v2 import dataloader
from ..common.models.aiparsing_fpn import model
from ..common.optim import SGD as optimizer
from ..common.schedule import LV_MHP_V2_IMAGES, paper_schedule, set_epochs
from ..common.train import train
from ..common.tta import lv_mhp_v2 as test_time_augmentation

# Background and 58 parts.
model.roi_heads.parsing_head.num_classes = 59

dataloader.train.total_batch_size = 8
optimizer.lr = 0.005
# 15,403 images / 8 a batch = 1,925 iterations an epoch; 75 epochs = 144,375.
# The rate drops at epochs 50 (96,250) and 65 (125,125); 500 iterations of warm-up at a third.
set_epochs(train, LV_MHP_V2_IMAGES, epochs=75)
lr_multiplier = paper_schedule(train.max_iter)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "./output/aiparsing_R_50_FPN_lv_mhp_v2_75ep"

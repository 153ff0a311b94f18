"""AIParsing R-50 on CIHP, 75 epochs (paper, Table I; Table VI, "3x"; Table IX)."""

from ..common.data.cihp import dataloader
from ..common.models.aiparsing_fpn import model
from ..common.optim import SGD as optimizer
from ..common.schedule import CIHP_IMAGES, paper_schedule, set_epochs
from ..common.train import train
from ..common.tta import cihp as test_time_augmentation

dataloader.train.total_batch_size = 8
optimizer.lr = 0.005
# 28,280 images / 8 a batch = 3,535 iterations an epoch; 75 epochs = 265,125.
# The rate drops at epochs 50 (176,750) and 65 (229,775); 500 iterations of warm-up at a third.
set_epochs(train, CIHP_IMAGES, epochs=75)
lr_multiplier = paper_schedule(train.max_iter)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "./output/aiparsing_R_50_FPN_cihp_75ep"

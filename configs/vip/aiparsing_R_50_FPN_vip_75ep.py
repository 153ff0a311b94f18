"""AIParsing R-50 on VIP, 75 epochs (paper, Table III, which does not name the body)."""

from ..common.data.vip import dataloader
from ..common.models.aiparsing_fpn import model
from ..common.optim import SGD as optimizer
from ..common.schedule import VIP_IMAGES, paper_schedule, set_epochs
from ..common.train import train
from ..common.tta import vip as test_time_augmentation

dataloader.train.total_batch_size = 8
optimizer.lr = 0.005
# 16,024 frames / 8 a batch = 2,003 iterations an epoch; 75 epochs = 150,225.
# The rate drops at epochs 50 (100,150) and 65 (130,195); 500 iterations of warm-up at a third.
set_epochs(train, VIP_IMAGES, epochs=75)
lr_multiplier = paper_schedule(train.max_iter)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "./output/aiparsing_R_50_FPN_vip_75ep"

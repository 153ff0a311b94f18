"""AIParsing R-50 on CIHP, 75 epochs (paper, Table I: mIoU 59.7, APp_vol 59.2, APp_50 73.1)."""

from ..common.data.cihp import dataloader
from ..common.models.aiparsing_fpn import model
from ..common.optim import SGD as optimizer
from ..common.schedule import step_schedule
from ..common.train import train

dataloader.train.total_batch_size = 8
optimizer.lr = 0.005

# 28,280 images / 8 a batch = 3,535 iterations an epoch; 75 epochs = 265,125.
# The rate drops at epochs 50 (176,750) and 65 (229,775); 500 iterations of warm-up at a third.
iters_per_epoch = 28280 // 8
train.max_iter = 75 * iters_per_epoch
lr_multiplier = step_schedule(
    train.max_iter, drop_iters=(50 * iters_per_epoch, 65 * iters_per_epoch), warmup_iters=500
)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "./output/aiparsing_R_50_FPN_cihp_75ep"
# Every 5 epochs.
train.eval_period = 5 * iters_per_epoch
train.checkpointer.period = iters_per_epoch

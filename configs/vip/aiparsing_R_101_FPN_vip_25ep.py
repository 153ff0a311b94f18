"""AIParsing R-101 on VIP, 25 epochs."""

from ..common.schedule import VIP_IMAGES, epoch_schedule
from .aiparsing_R_101_FPN_vip_75ep import (
    dataloader,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

# 25 epochs of 2,003 iterations = 50,075; the rate drops at 33,383 and 43,398.
lr_multiplier = epoch_schedule(train, VIP_IMAGES, epochs=25)
train.output_dir = "./output/aiparsing_R_101_FPN_vip_25ep"

"""AIParsing X-101-32x8d on CIHP, 25 epochs."""

from ..common.schedule import CIHP_IMAGES, epoch_schedule
from .aiparsing_X_101_32x8d_FPN_cihp_75ep import (
    dataloader,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

# 25 epochs of 3,535 iterations = 88,375; the rate drops at 58,917 and 76,592.
lr_multiplier = epoch_schedule(train, CIHP_IMAGES, epochs=25)
train.output_dir = "./output/aiparsing_X_101_32x8d_FPN_cihp_25ep"

"""AIParsing R-50 on LV-MHP-v2, 25 epochs."""

from ..common.schedule import LV_MHP_V2_IMAGES, epoch_schedule
from .aiparsing_R_50_FPN_lv_mhp_v2_75ep import (
    dataloader,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

# 25 epochs of 1,925 iterations = 48,125; the rate drops at 32,083 and 41,708.
lr_multiplier = epoch_schedule(train, LV_MHP_V2_IMAGES, epochs=25)
train.output_dir = "./output/aiparsing_R_50_FPN_lv_mhp_v2_25ep"

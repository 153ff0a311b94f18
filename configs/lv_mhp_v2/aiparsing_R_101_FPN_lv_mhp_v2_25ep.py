"""AIParsing R-101 on LV-MHP-v2, 25 epochs."""

from ..common.schedule import LV_MHP_V2_IMAGES, paper_schedule, set_epochs
from .aiparsing_R_101_FPN_lv_mhp_v2_75ep import (
    dataloader,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

# 25 epochs of 1,925 iterations = 48,125; the rate drops at 32,083 and 41,708.
set_epochs(train, LV_MHP_V2_IMAGES, epochs=25)
lr_multiplier = paper_schedule(train.max_iter)
train.output_dir = "./output/aiparsing_R_101_FPN_lv_mhp_v2_25ep"

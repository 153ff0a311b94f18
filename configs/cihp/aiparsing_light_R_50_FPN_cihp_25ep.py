"""AIParsing-light R-50 on CIHP, 25 epochs."""

from ..common.schedule import CIHP_IMAGES, paper_schedule, set_epochs
from .aiparsing_light_R_50_FPN_cihp_75ep import (
    dataloader,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

# 25 epochs of 3,535 iterations = 88,375; the rate drops at 58,917 and 76,592.
set_epochs(train, CIHP_IMAGES, epochs=25)
lr_multiplier = paper_schedule(train.max_iter)
train.output_dir = "./output/aiparsing_light_R_50_FPN_cihp_25ep"

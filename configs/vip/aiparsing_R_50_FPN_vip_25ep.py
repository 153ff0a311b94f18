"""AIParsing R-50 on VIP, 25 epochs."""

from ..common.schedule import VIP_IMAGES, paper_schedule, set_epochs
from .aiparsing_R_50_FPN_vip_75ep import dataloader, model, optimizer, test_time_augmentation, train

# 25 epochs of 2,003 iterations = 50,075; the rate drops at 33,383 and 43,398.
set_epochs(train, VIP_IMAGES, epochs=25)
lr_multiplier = paper_schedule(train.max_iter)
train.output_dir = "./output/aiparsing_R_50_FPN_vip_25ep"

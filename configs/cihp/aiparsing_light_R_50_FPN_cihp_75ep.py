"""AIParsing-light R-50 on CIHP, 75 epochs (paper, Table IX)."""

from ..common.models.aiparsing_light_fpn import model
from .aiparsing_R_50_FPN_cihp_75ep import (
    dataloader,
    lr_multiplier,
    optimizer,
    test_time_augmentation,
    train,
)

_train_resize = dataloader.train.mapper.augmentations[0]
_train_resize.short_edge_length = (580, 600)
_train_resize.max_size = 1000
_test_resize = dataloader.test.mapper.augmentations[0]
_test_resize.short_edge_length = 600
_test_resize.max_size = 1000

train.output_dir = "./output/aiparsing_light_R_50_FPN_cihp_75ep"

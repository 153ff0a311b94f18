"""AIParsing R-101 on CIHP, 75 epochs (paper, Table I)."""

from ..common.models.backbones import use_resnet_101
from .aiparsing_R_50_FPN_cihp_75ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

use_resnet_101(model, train)
train.output_dir = "./output/aiparsing_R_101_FPN_cihp_75ep"

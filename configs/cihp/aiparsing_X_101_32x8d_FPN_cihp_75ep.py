"""AIParsing X-101-32x8d on CIHP, 75 epochs (paper, Table I)."""

from ..common.models.backbones import use_resnext_101_32x8d
from .aiparsing_R_50_FPN_cihp_75ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

use_resnext_101_32x8d(model, train)
train.output_dir = "./output/aiparsing_X_101_32x8d_FPN_cihp_75ep"

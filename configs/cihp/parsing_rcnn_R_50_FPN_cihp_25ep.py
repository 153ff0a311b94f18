"""Parsing R-CNN R-50 on CIHP, 25 epochs (paper, Table IV), trained like AIParsing."""

from ..common.models.parsing_rcnn_fpn import model
from .aiparsing_R_50_FPN_cihp_25ep import (
    dataloader,
    lr_multiplier,
    optimizer,
    test_time_augmentation,
    train,
)

train.output_dir = "./output/parsing_rcnn_R_50_FPN_cihp_25ep"

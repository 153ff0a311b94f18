"""Parsing R-CNN R-50 on LV-MHP-v2, 75 epochs (paper, Table II), trained like AIParsing."""

from ..common.models.parsing_rcnn_fpn import model
from .aiparsing_R_50_FPN_lv_mhp_v2_75ep import (
    dataloader,
    lr_multiplier,
    optimizer,
    test_time_augmentation,
    train,
)

# Background and 58 parts.
model.roi_heads.parsing_head.num_classes = 59
train.output_dir = "./output/parsing_rcnn_R_50_FPN_lv_mhp_v2_75ep"

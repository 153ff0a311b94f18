"""Table VII, "Parsing R-CNN (w/ FCOS)", 75 epochs."""

from ...cihp.aiparsing_R_50_FPN_cihp_75ep import (
    dataloader,
    lr_multiplier,
    optimizer,
    test_time_augmentation,
    train,
)
from ...common.models.parsing_rcnn_fcos_fpn import model

train.output_dir = "./output/ablations/table_vii/parsing_rcnn_fcos"

"""Table IV, "Anchor-free-parsing": FCOS finds the people for Parsing R-CNN's branch."""

from ...cihp.aiparsing_R_50_FPN_cihp_25ep import (
    dataloader,
    lr_multiplier,
    optimizer,
    test_time_augmentation,
    train,
)
from ...common.models.parsing_rcnn_fcos_fpn import model

train.output_dir = "./output/ablations/table_iv/anchor_free_parsing"

"""Table IV, "RPN-parsing": Parsing R-CNN, which finds people by RPN and a box head."""

from ...cihp.parsing_rcnn_R_50_FPN_cihp_25ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

train.output_dir = "./output/ablations/table_iv/rpn_parsing"

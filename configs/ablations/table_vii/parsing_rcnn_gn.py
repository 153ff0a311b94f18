"""Table VII, "Parsing R-CNN (w/ GN)": GN after the last convolution, as in AIParsing."""

from ...cihp.parsing_rcnn_R_50_FPN_cihp_75ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

model.roi_heads.parsing_head.norm = "GN"
train.output_dir = "./output/ablations/table_vii/parsing_rcnn_gn"

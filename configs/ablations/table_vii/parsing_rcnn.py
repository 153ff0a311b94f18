"""Table VII, "Parsing R-CNN", 75 epochs."""

from ...cihp.parsing_rcnn_R_50_FPN_cihp_75ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

train.output_dir = "./output/ablations/table_vii/parsing_rcnn"

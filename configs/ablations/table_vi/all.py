"""Table VI, row 9: everything, 25 epochs."""

from ...cihp.aiparsing_R_50_FPN_cihp_25ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

train.output_dir = "./output/ablations/table_vi/all"

"""Table VI, row 10: everything, 75 epochs."""

from ...cihp.aiparsing_R_50_FPN_cihp_75ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

train.output_dir = "./output/ablations/table_vi/all_3x"

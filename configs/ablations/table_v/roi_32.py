"""Table V, 32 x 32: the same run as the fourth row of Table VI."""

from ..table_vi.pgec_non_local import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

train.output_dir = "./output/ablations/table_v/roi_32"

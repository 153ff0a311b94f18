"""Table VI, row 2: PGEC only."""

from .pgec_non_local import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

model.roi_heads.parsing_head.non_local = None
train.output_dir = "./output/ablations/table_vi/pgec"

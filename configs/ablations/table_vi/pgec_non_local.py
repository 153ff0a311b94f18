"""Table VI, row 4: PGEC and non-local."""

from .pgec_non_local_edge import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

model.roi_heads.parsing_head.edge_on = False
train.output_dir = "./output/ablations/table_vi/pgec_non_local"

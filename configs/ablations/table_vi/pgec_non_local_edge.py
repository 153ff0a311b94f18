"""Table VI, row 5: PGEC, non-local and edges."""

from .pgec_non_local_edge_gn import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

model.roi_heads.parsing_head.norm = ""
train.output_dir = "./output/ablations/table_vi/pgec_non_local_edge"

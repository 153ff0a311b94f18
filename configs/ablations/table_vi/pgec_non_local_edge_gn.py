"""Table VI, row 6: PGEC, non-local, edges and GN."""

from .pgec_non_local_edge_gn_miou_loss import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

model.roi_heads.parsing_head.miou_loss_weight = 0.0
train.output_dir = "./output/ablations/table_vi/pgec_non_local_edge_gn"

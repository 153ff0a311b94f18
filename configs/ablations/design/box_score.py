"""People ranked by the box score alone; as row 7 of Table VI."""

from ..table_vi.pgec_non_local_edge_gn_miou_loss import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

train.output_dir = "./output/ablations/design/box_score"

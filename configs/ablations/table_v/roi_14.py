"""Table V, 14 x 14: the fourth row of Table VI at this size of the RoIs."""

from ..table_vi.pgec_non_local import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

model.roi_heads.parsing_pooler.output_size = 14
train.output_dir = "./output/ablations/table_v/roi_14"

"""Table VIII, ASPP: the fourth row of Table VI with ASPP in place of PGEC."""

from aiparsing_d2.modeling.roi_heads import ASPP

from ..table_vi.pgec_non_local import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

model.roi_heads.parsing_head.context._target_ = ASPP
train.output_dir = "./output/ablations/table_viii/aspp"

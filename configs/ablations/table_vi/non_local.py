"""Table VI, row 3: non-local only, on the RoI features themselves."""

from .pgec_non_local import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

_head = model.roi_heads.parsing_head
_head.context = None
_head.non_local.channels = "${..in_channels}"
train.output_dir = "./output/ablations/table_vi/non_local"

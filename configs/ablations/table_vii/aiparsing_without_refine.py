"""Table VII, "AIParsing (w/o refine)": the sixth row of Table VI, for 75 epochs."""

from ...cihp.aiparsing_R_50_FPN_cihp_75ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

_head = model.roi_heads.parsing_head
_head.miou_loss_weight = 0.0
_head.score_head = None
train.output_dir = "./output/ablations/table_vii/aiparsing_without_refine"

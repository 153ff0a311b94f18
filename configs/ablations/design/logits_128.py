"""Part logits of 128x128 rather than 256x256: cheaper; what Parsing R-CNN learns from."""

from ...cihp.aiparsing_R_50_FPN_cihp_25ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

model.roi_heads.parsing_head.upsample_factor = 2
train.output_dir = "./output/ablations/design/logits_128"

"""AIParsing R-101 on VIP, from weights trained on CIHP, which labels the same parts.

With --eval-only these weights are tested as they are: "AIParsing*" of the paper's Table III.
"""

from .aiparsing_R_101_FPN_vip_25ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

train.init_checkpoint = "output/aiparsing_R_101_FPN_cihp_75ep/model_final.pth"
train.output_dir = "./output/aiparsing_R_101_FPN_vip_25ep_from_cihp"

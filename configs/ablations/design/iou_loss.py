"""IoU loss for the boxes, which the paper names; the authors' code has GIoU."""

from ...cihp.aiparsing_R_50_FPN_cihp_25ep import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    test_time_augmentation,
    train,
)

model.proposal_generator.box_loss_type = "iou"
train.output_dir = "./output/ablations/design/iou_loss"

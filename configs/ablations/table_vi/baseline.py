"""Table VI, row 1: no context; four convolutions on the RoI features."""

from .pgec import dataloader, lr_multiplier, model, optimizer, test_time_augmentation, train

model.roi_heads.parsing_head.context = None
train.output_dir = "./output/ablations/table_vi/baseline"

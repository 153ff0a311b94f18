"""Table VI, row 8: PGEC, non-local, edges, GN and the mIoU score, without the mIoU loss."""

from .all import dataloader, lr_multiplier, model, optimizer, test_time_augmentation, train

model.roi_heads.parsing_head.miou_loss_weight = 0.0
train.output_dir = "./output/ablations/table_vi/pgec_non_local_edge_gn_miou_score"

"""Table VI, row 7: PGEC, non-local, edges, GN and the mIoU loss, without the mIoU score."""

from .all import dataloader, lr_multiplier, model, optimizer, test_time_augmentation, train

model.roi_heads.parsing_head.score_head = None
train.output_dir = "./output/ablations/table_vi/pgec_non_local_edge_gn_miou_loss"

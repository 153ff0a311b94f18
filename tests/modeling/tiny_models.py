"""AIParsing with a few channels, built in both of Detectron2's config systems, and its inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig

from aiparsing_d2.config import add_aiparsing_config
from aiparsing_d2.structures import PartMaps

CONFIGS = Path(__file__).parents[2] / "configs"
NUM_CLASSES = 5


def tiny_lazy_model() -> DictConfig:
    """The common model config with few channels, 8x8 RoIs and 32x32 part logits."""
    model = LazyConfig.load(str(CONFIGS / "common/models/aiparsing_fpn.py")).model
    model.backbone.bottom_up.stem.out_channels = 8
    widths = [8, 16, 32, 64, 128]
    model.backbone.bottom_up.stages = [
        L(ResNet.make_stage)(
            block_class=BottleneckBlock,
            num_blocks=num_blocks,
            stride_per_block=[1 if i == 0 else 2] + [1] * (num_blocks - 1),
            in_channels=widths[i],
            bottleneck_channels=widths[i + 1] // 4,
            out_channels=widths[i + 1],
            stride_in_1x1=True,
            norm="FrozenBN",
        )
        for i, num_blocks in enumerate([3, 4, 6, 3])
    ]
    model.backbone.out_channels = 64
    model.proposal_generator.head.num_convs = 1
    model.roi_heads.parsing_pooler.output_size = 8
    head = model.roi_heads.parsing_head
    head.num_classes = NUM_CLASSES
    head.context.out_channels = 32
    head.conv_dims = [32, 32]
    head.score_head.in_channels = 32
    head.score_head.conv_dim = 8
    head.score_head.fc_dim = 8
    head.upsample_factor = 2
    return model


def tiny_yacs_config() -> CfgNode:
    """The same model in yacs."""
    cfg = get_cfg()
    add_aiparsing_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "AIParsing"
    set_tiny_backbone(cfg)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "FCOSProposalGenerator"
    cfg.MODEL.FCOS_PROPOSALS.NUM_CONVS = 1
    cfg.MODEL.ROI_HEADS.NAME = "OneStageParsingROIHeads"
    set_tiny_parsing_head(cfg)
    return cfg


def set_tiny_backbone(cfg: CfgNode) -> None:
    cfg.MODEL.BACKBONE.NAME = "build_aiparsing_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 64


def set_tiny_parsing_head(cfg: CfgNode) -> None:
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    head = cfg.MODEL.ROI_PARSING_HEAD
    head.NUM_CLASSES = NUM_CLASSES
    head.POOLER_RESOLUTION = 8
    head.CONV_DIM = 32
    head.NUM_CONV = 2
    head.UPSAMPLE_FACTOR = 2
    head.SCORE_CONV_DIM = 8
    head.SCORE_FC_DIM = 8


def make_person_instances(
    image_size: tuple[int, int], boxes: list[list[float]], ignored: bool = False
) -> Instances:
    """Ground truth: in each box a person of parts one above the other, or of ignored pixels."""
    maps = np.zeros((len(boxes), *image_size), dtype=np.uint8)
    for part_map, box in zip(maps, boxes):
        x0, y0, x1, y1 = (max(int(side), 0) for side in box)
        region = part_map[y0:y1, x0:x1]
        bands = 1 + np.arange(len(region)) * (NUM_CLASSES - 1) // max(len(region), 1)
        region[:] = 255 if ignored else bands[:, None]
    return Instances(
        image_size,
        gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_classes=torch.zeros(len(boxes), dtype=torch.int64),
        gt_part_maps=PartMaps.from_full(maps),
    )


def make_input(
    height: int, width: int, boxes: list[list[float]] | None = None, seed: int = 0, **kwargs
) -> dict:
    """One image as the mapper gives it; with ``boxes`` it has ground truth."""
    generator = torch.Generator().manual_seed(seed)
    record = {"image": torch.randint(0, 256, (3, height, width), generator=generator).byte()}
    if boxes is not None:
        record["instances"] = make_person_instances((height, width), boxes, **kwargs)
    return record

"""Parsing R-CNN with ResNet-50 FPN, 20 classes: "RPN-parsing" of the paper's Table IV, [2].

Faster R-CNN on P2-P6 finds the people; the parsing branch reads P2 only, at 32x32 a RoI. What
differs from parsing_rcnn_fcos_fpn.py is the detector and, with its pyramid, the finest level.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, FastRCNNOutputLayers

from aiparsing_d2.modeling import ParsingROIHeads

from .parsing_rcnn_fcos_fpn import model

model.backbone.bottom_up.out_features = ["res2", "res3", "res4", "res5"]
model.backbone.in_features = ["res2", "res3", "res4", "res5"]
model.backbone.top_block = L(LastLevelMaxPool)()

model.proposal_generator = L(RPN)(
    in_features=["p2", "p3", "p4", "p5", "p6"],
    head=L(StandardRPNHead)(in_channels="${...backbone.out_channels}", num_anchors=3),
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=[[32], [64], [128], [256], [512]],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[4, 8, 16, 32, 64],
        offset=0.0,
    ),
    anchor_matcher=L(Matcher)(
        thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
    ),
    box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
    batch_size_per_image=256,
    positive_fraction=0.5,
    # Proposals: while training, at test.
    pre_nms_topk=(2000, 1000),
    post_nms_topk=(1000, 1000),
    nms_thresh=0.7,
)

model.roi_heads.update(
    _target_=ParsingROIHeads,
    batch_size_per_image=512,
    positive_fraction=0.25,
    box_in_features=["p2", "p3", "p4", "p5"],
    box_pooler=L(ROIPooler)(
        output_size=7,
        scales=[1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32],
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
    ),
    box_head=L(FastRCNNConvFCHead)(
        input_shape=L(ShapeSpec)(
            channels="${....backbone.out_channels}",
            height="${...box_pooler.output_size}",
            width="${...box_pooler.output_size}",
        ),
        conv_dims=[],
        fc_dims=[1024, 1024],
    ),
    box_predictor=L(FastRCNNOutputLayers)(
        input_shape=L(ShapeSpec)(channels="${...box_head.fc_dims[1]}"),
        box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
        num_classes="${..num_classes}",
        test_score_thresh=0.05,
        test_nms_thresh=0.5,
        test_topk_per_image=100,
    ),
    parsing_in_features=["p2"],
)
model.roi_heads.parsing_pooler.scales = [1.0 / 4]

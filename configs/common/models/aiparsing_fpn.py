"""AIParsing with ResNet-50 FPN, 20 classes (paper, Sec. III and Fig. 3)."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler

from aiparsing_d2.modeling import (
    AIParsing,
    EdgeGuidedParsingHead,
    FCOSHead,
    FCOSProposalGenerator,
    OneStageParsingROIHeads,
    ParsingScoreHead,
)
from aiparsing_d2.modeling.roi_heads import PGEC, NonLocalBlock

model = L(AIParsing)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),
            out_features=["res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features=["res3", "res4", "res5"],
        out_channels=256,
        # P6 from P5, P7 from ReLU(P6).
        top_block=L(LastLevelP6P7)(
            in_channels="${..out_channels}", out_channels="${..out_channels}", in_feature="p5"
        ),
    ),
    proposal_generator=L(FCOSProposalGenerator)(
        in_features=["p3", "p4", "p5", "p6", "p7"],
        strides=[8, 16, 32, 64, 128],
        head=L(FCOSHead)(
            input_shape=[L(ShapeSpec)(channels="${.....backbone.out_channels}")] * 5,
            num_convs=4,
            norm="GN",
        ),
        box_loss_type="giou",
        # Detections per image: while training, at test.
        post_nms_topk=(100, 50),
    ),
    roi_heads=L(OneStageParsingROIHeads)(
        num_classes=1,
        # Positives only, at most 16 per image: what the batch is filled up with is dropped again.
        batch_size_per_image="${.parsing_batch_size_per_image}",
        positive_fraction=1.0,
        proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1]),
        parsing_batch_size_per_image=16,
        parsing_in_features=["p3"],
        parsing_pooler=L(ROIPooler)(
            output_size=32, scales=[1.0 / 8], sampling_ratio=2, pooler_type="ROIAlignV2"
        ),
        parsing_head=L(EdgeGuidedParsingHead)(
            in_channels="${...backbone.out_channels}",
            num_classes=20,
            context=L(PGEC)(
                in_channels="${..in_channels}",
                out_channels=512,
                roi_size="${...parsing_pooler.output_size}",
            ),
            non_local=L(NonLocalBlock)(channels="${..context.out_channels}"),
            conv_dims=[512, 512, 512, 512],
            norm="GN",
            edge_on=True,
            score_head=L(ParsingScoreHead)(
                in_channels=512, num_classes="${..num_classes}", conv_dim=128, fc_dim=256
            ),
            # 32 -> 64 by the predictors, -> 256 by interpolation.
            upsample_factor=4,
        ),
    ),
    # BGR, ImageNet statistics of Detectron2's MSRA weights.
    pixel_mean=[103.53, 116.28, 123.675],
    pixel_std=[1.0, 1.0, 1.0],
    input_format="BGR",
)

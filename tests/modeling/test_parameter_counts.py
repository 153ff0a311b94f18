"""Sizes of the full model, against figures counted from the layers' shapes by hand."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from fvcore.nn import FlopCountAnalysis
from tiny_models import CONFIGS

from aiparsing_d2.modeling.roi_heads import PGEC


def load_model_config():
    return LazyConfig.load(str(CONFIGS / "common/models/aiparsing_fpn.py")).model


def make_light(model):
    """Half the channels and serial convolutions outside the backbone (paper, Table IX)."""
    model.backbone.out_channels = 128
    model.proposal_generator.head.num_convs = 2
    head = model.roi_heads.parsing_head
    head.context.out_channels = 256
    head.conv_dims = [256, 256]
    head.score_head.in_channels = 256
    head.score_head.conv_dim = 64
    head.score_head.fc_dim = 128
    return model


def build_without_memory(model):
    with torch.device("meta"):
        return instantiate(model)


def count(module, trainable_only=False):
    parameters = module.parameters()
    return sum(p.numel() for p in parameters if p.requires_grad or not trainable_only)


def count_blocks(model):
    backbone, fcos = model.backbone, model.proposal_generator.head
    head = model.roi_heads.parsing_head
    pgec = head.context
    return {
        "FPN laterals": sum(map(count, backbone.lateral_convs)),
        "FPN 3x3": sum(map(count, backbone.output_convs)),
        "P6, P7": count(backbone.top_block),
        "FCOS towers": count(fcos.cls_tower) + count(fcos.box_tower),
        "FCOS outputs and scales": sum(
            map(count, (fcos.cls_logits, fcos.box_pred, fcos.centerness, fcos.scales))
        ),
        "PGEC depth-wise": sum(count(branch[0]) for branch in pgec.pyramid),
        "PGEC 1x1": sum(count(branch[1]) for branch in pgec.pyramid),
        "PGEC 3x3": count(pgec.conv),
        "PGEC merge": count(pgec.merge),
        "non-local": count(head.non_local),
        "shared convolutions": count(head.convs),
        "parsing predictor": count(head.parsing_predictor),
        "edge predictor": count(head.edge_predictor),
        "score head": count(head.score_head),
    }


def test_resnet_50():
    model = build_without_memory(load_model_config())
    assert count_blocks(model) == {
        "FPN laterals": 918_272,
        "FPN 3x3": 1_770_240,
        "P6, P7": 1_180_160,
        "FCOS towers": 4_724_736,
        "FCOS outputs and scales": 13_835,
        "PGEC depth-wise": 35_840,
        "PGEC 1x1": 263_168,
        "PGEC 3x3": 590_080,
        "PGEC merge": 5_898_752,
        "non-local": 1_051_648,
        "shared convolutions": 9_440_256,
        "parsing predictor": 163_860,
        "edge predictor": 4_098,
        "score head": 859_649,
    }
    # Nothing has parameters but these blocks and ResNet-50 without its classifier.
    assert count(model) - sum(count_blocks(model).values()) == 23_454_912
    assert count(model, trainable_only=True) == 50_147_106  # the paper's 50.2 M
    assert count(model) == 50_369_506
    frozen = {n.split(".")[2] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "res2"}


def test_light():
    model = build_without_memory(make_light(load_model_config()))
    assert count_blocks(model) == {
        "FPN laterals": 459_136,
        "FPN 3x3": 442_752,
        "P6, P7": 295_168,
        "FCOS towers": 591_360,
        "FCOS outputs and scales": 6_923,
        "PGEC depth-wise": 17_920,
        "PGEC 1x1": 66_048,
        "PGEC 3x3": 147_584,
        "PGEC merge": 1_474_816,
        "non-local": 263_680,
        "shared convolutions": 1_180_672,
        "parsing predictor": 81_940,
        "edge predictor": 2_050,
        "score head": 220_929,
    }
    assert count(model, trainable_only=True) / 1e6 == pytest.approx(28.483, abs=5e-4)
    assert count(model) / 1e6 == pytest.approx(28.706, abs=5e-4)  # the paper's 28.5 M, trainable


def test_resnet_101():
    model = load_model_config()
    model.backbone.bottom_up.stages.depth = 101
    assert count(build_without_memory(model)) / 1e6 == pytest.approx(69.31, abs=5e-3)


def test_resnext_101_32x8d():
    model = load_model_config()
    model.backbone.bottom_up.stages = [
        L(ResNet.make_stage)(
            block_class=BottleneckBlock,
            num_blocks=num_blocks,
            stride_per_block=[first_stride] + [1] * (num_blocks - 1),
            in_channels=in_channels,
            bottleneck_channels=out_channels,
            out_channels=out_channels,
            num_groups=32,
            norm="FrozenBN",
        )
        for num_blocks, in_channels, out_channels, first_stride in [
            (3, 64, 256, 1),
            (4, 256, 512, 2),
            (23, 512, 1024, 2),
            (3, 1024, 2048, 2),
        ]
    ]
    assert count(build_without_memory(model)) / 1e6 == pytest.approx(113.45, abs=5e-3)


@pytest.mark.parametrize(
    "roi_size, dense, gather_convs",
    [(14, 1.232, 4), (32, 6.438, 5), (48, 14.484, 6)],
)
def test_pgec_multiply_adds(roi_size, dense, gather_convs):
    """Per RoI in units of 2**30 (paper, Table V: 1.2, 6.4 and 14.5).

    ``dense`` leaves out the depth-wise convolutions, which add less than 0.05 %.
    """
    pgec = PGEC(in_channels=256, roi_size=roi_size)
    assert len(pgec.pyramid[0][0].gather[::2]) == gather_convs
    analysis = FlopCountAnalysis(pgec, torch.zeros(1, 256, roi_size, roi_size))
    analysis.unsupported_ops_warnings(False)
    convolutions = {name: ops["conv"] for name, ops in analysis.by_module_and_operator().items()}
    depth_wise = sum(convolutions[f"pyramid.{i}.0"] for i in range(4))
    # 3x3, four 1x1 and the merging 3x3 at every position.
    per_position = 256 * 256 * 9 + 4 * 256 * 256 + 5 * 256 * 512 * 9
    assert convolutions[""] - depth_wise == per_position * roi_size**2
    assert (convolutions[""] - depth_wise) / 2**30 == pytest.approx(dense, abs=5.001e-4)
    assert depth_wise / convolutions[""] < 5e-4

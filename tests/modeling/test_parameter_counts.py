"""Sizes of the full models, against figures counted from the layers' shapes by hand."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from fvcore.nn import FlopCountAnalysis
from tiny_models import CONFIGS

from aiparsing_d2.modeling.roi_heads import PGEC

MODELS = CONFIGS / "common/models"


def load_model_config(name):
    return LazyConfig.load(str(MODELS / f"{name}.py")).model


def with_body(use_body):
    """AIParsing and its training settings, after the function of that name in backbones.py."""
    model = load_model_config("aiparsing_fpn")
    train = LazyConfig.load(str(CONFIGS / "common/train.py")).train
    LazyConfig.load(str(MODELS / "backbones.py"), use_body)(model, train)
    return model, train


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
    model = build_without_memory(load_model_config("aiparsing_fpn"))
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
    model = build_without_memory(load_model_config("aiparsing_light_fpn"))
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
    config, train = with_body("use_resnet_101")
    model = build_without_memory(config)
    assert count(model) / 1e6 == pytest.approx(69.31, abs=5e-3)
    # What Detectron2's MSRA weights were trained with.
    assert train.init_checkpoint.endswith("MSRA/R-101.pkl")
    assert config.pixel_std == [1.0, 1.0, 1.0]
    assert model.backbone.bottom_up.res4[0].conv1.stride == (2, 2)


def test_resnext_101_32x8d():
    config, train = with_body("use_resnext_101_32x8d")
    model = build_without_memory(config)
    assert count(model) / 1e6 == pytest.approx(113.45, abs=5e-3)
    # What Detectron2's FAIR weights were trained with.
    assert train.init_checkpoint.endswith("FAIR/X-101-32x8d.pkl")
    assert config.pixel_std == [57.375, 57.120, 58.395]
    (first, *_), body = model.backbone.bottom_up.res4, model.backbone.bottom_up
    assert (first.conv1.stride, first.conv2.stride) == ((1, 1), (2, 2))
    assert [len(stage) for stage in body.stages] == [3, 4, 23, 3]
    assert {name.split(".")[0] for name, p in body.named_parameters() if not p.requires_grad} == {
        "stem",
        "res2",
    }


def test_parsing_rcnn():
    model = build_without_memory(load_model_config("parsing_rcnn_fpn"))
    head = model.roi_heads.parsing_head
    blocks = {
        "FPN laterals": sum(map(count, model.backbone.lateral_convs)),
        "FPN 3x3": sum(map(count, model.backbone.output_convs)),
        "RPN": count(model.proposal_generator),
        "box head": count(model.roi_heads.box_head),
        "box predictor": count(model.roi_heads.box_predictor),
        "ASPP": count(head.context),
        "non-local": count(head.non_local),
        "shared convolutions": count(head.convs),
        "parsing predictor": count(head.parsing_predictor),
    }
    assert blocks == {
        "FPN laterals": 984_064,  # 256 * (256 + 512 + 1024 + 2048) + 4 * 256
        "FPN 3x3": 2_360_320,  # 4 * 590,080
        "RPN": 593_935,  # 590,080 + 3 anchors * (1 + 4) * 257
        "box head": 13_895_680,  # 256 * 7 * 7 * 1024 + 1024, 1024 * 1024 + 1024
        "box predictor": 6_150,  # (2 classes + 4 sides) * 1025
        "ASPP": 2_557_696,  # 2 * 65,792 + 3 * 590,080 + 655,872
        "non-local": 1_051_648,
        "shared convolutions": 9_439_232,  # 4 * 2,359,808
        "parsing predictor": 163_860,
    }
    # Nothing has parameters but these blocks and ResNet-50 without its classifier.
    assert count(model) - sum(blocks.values()) == 23_454_912
    assert count(model, trainable_only=True) == 54_285_097  # the paper's 54.3 M


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

"""The three ways to build each class, and its parts in other people's detectors."""

import inspect

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
    build_model,
)
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage
from tiny_models import (
    NUM_CLASSES,
    make_input,
    set_tiny_backbone,
    set_tiny_parsing_head,
    tiny_lazy_model,
    tiny_yacs_config,
)
from torch import nn

import aiparsing_d2.data.datasets  # noqa: F401  registers the splits
from aiparsing_d2.config import add_aiparsing_config
from aiparsing_d2.modeling import (
    PARSING_CONTEXT_REGISTRY,
    PARSING_NON_LOCAL_REGISTRY,
    PARSING_SCORE_HEAD_REGISTRY,
    ROI_PARSING_HEAD_REGISTRY,
    AIParsing,
    AIParsingWithTTA,
    BilinearFPN,
    EdgeGuidedParsingHead,
    FCOSHead,
    FCOSProposalGenerator,
    OneStageParsingROIHeads,
    ParsingROIHeads,
    ParsingScoreHead,
    parsing_postprocess,
)
from aiparsing_d2.modeling.roi_heads import PGEC, NonLocalBlock
from aiparsing_d2.structures import PartMaps

PEOPLE = [[10.0, 10.0, 60.0, 90.0], [50.0, 20.0, 110.0, 95.0]]
FPN_SHAPE = {f"p{i}": ShapeSpec(channels=64, stride=2**i) for i in range(3, 8)}
ROI_SHAPE = ShapeSpec(channels=64, height=8, width=8)


def parsing_head_arguments():
    return {
        "in_channels": 64,
        "num_classes": NUM_CLASSES,
        "context": PGEC(in_channels=64, out_channels=32, roi_size=8),
        "non_local": NonLocalBlock(32),
        "conv_dims": [32, 32],
        "score_head": ParsingScoreHead(
            in_channels=32, num_classes=NUM_CLASSES, conv_dim=8, fc_dim=8
        ),
        "upsample_factor": 2,
    }


def parsing_branch_arguments():
    return {
        "num_classes": 1,
        "batch_size_per_image": 16,
        "positive_fraction": 1.0,
        "proposal_matcher": Matcher([0.5], [0, 1]),
        "parsing_in_features": ["p3"],
        "parsing_pooler": ROIPooler(8, [1 / 8], sampling_ratio=2, pooler_type="ROIAlignV2"),
        "parsing_head": EdgeGuidedParsingHead(**parsing_head_arguments()),
    }


def stock_box_head_arguments(cfg):
    arguments = ParsingROIHeads.from_config(cfg, FPN_SHAPE)
    return {name: arguments[name] for name in arguments if name.startswith("box_")}


BUILDS = {
    "FCOSHead": (
        FCOSHead,
        list(FPN_SHAPE.values()),
        lambda cfg: {"input_shape": list(FPN_SHAPE.values()), "num_convs": 1},
    ),
    "FCOSProposalGenerator": (
        FCOSProposalGenerator,
        FPN_SHAPE,
        lambda cfg: {
            "in_features": list(FPN_SHAPE),
            "head": FCOSHead(input_shape=list(FPN_SHAPE.values()), num_convs=1),
        },
    ),
    "PGEC": (
        PGEC,
        ROI_SHAPE,
        lambda cfg: {"in_channels": 64, "out_channels": 32, "roi_size": 8},
    ),
    "NonLocalBlock": (NonLocalBlock, ROI_SHAPE, lambda cfg: {"channels": 64}),
    "ParsingScoreHead": (
        ParsingScoreHead,
        ROI_SHAPE,
        lambda cfg: {"in_channels": 64, "num_classes": NUM_CLASSES, "conv_dim": 8, "fc_dim": 8},
    ),
    "EdgeGuidedParsingHead": (
        EdgeGuidedParsingHead,
        ROI_SHAPE,
        lambda cfg: parsing_head_arguments(),
    ),
    "ParsingROIHeads": (
        ParsingROIHeads,
        FPN_SHAPE,
        lambda cfg: {**parsing_branch_arguments(), **stock_box_head_arguments(cfg)},
    ),
    "OneStageParsingROIHeads": (
        OneStageParsingROIHeads,
        FPN_SHAPE,
        lambda cfg: parsing_branch_arguments(),
    ),
}


def small_config():
    cfg = tiny_yacs_config()
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p3", "p4"]
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 2
    return cfg


def shapes_of(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def plain_settings(module):
    """Numbers, strings and tuples that steer a module and its parts, by attribute path."""
    return {
        f"{path}.{name}": value
        for path, part in module.named_modules()
        if type(part).__module__.startswith("aiparsing_d2")
        for name, value in vars(part).items()
        if isinstance(value, (bool, int, float, str, tuple, dict)) and not name.startswith("_")
    }


@pytest.mark.parametrize("name", BUILDS)
def test_three_ways_to_build(name):
    cls, input_shape, make_arguments = BUILDS[name]
    cfg = small_config()
    from_yacs = cls(cfg, input_shape)
    from_keywords = cls(**make_arguments(cfg))
    from_lazy = instantiate(L(cls)(**make_arguments(cfg)))
    assert shapes_of(from_yacs) == shapes_of(from_keywords) == shapes_of(from_lazy)
    assert len(shapes_of(from_yacs)) > 0
    expected = plain_settings(from_keywords)
    assert plain_settings(from_lazy) == expected
    # yacs' own sample sizes (512 boxes, a quarter positive) are the box head's.
    for settings in (from_yacs_settings := plain_settings(from_yacs), expected):
        settings.pop(".batch_size_per_image", None)
        settings.pop(".positive_fraction", None)
    assert from_yacs_settings == expected


def test_registered_names():
    assert META_ARCH_REGISTRY.get("AIParsing") is AIParsing
    assert PROPOSAL_GENERATOR_REGISTRY.get("FCOSProposalGenerator") is FCOSProposalGenerator
    assert ROI_HEADS_REGISTRY.get("ParsingROIHeads") is ParsingROIHeads
    assert ROI_HEADS_REGISTRY.get("OneStageParsingROIHeads") is OneStageParsingROIHeads
    assert ROI_PARSING_HEAD_REGISTRY.get("EdgeGuidedParsingHead") is EdgeGuidedParsingHead
    assert PARSING_CONTEXT_REGISTRY.get("PGEC") is PGEC
    assert PARSING_NON_LOCAL_REGISTRY.get("NonLocalBlock") is NonLocalBlock
    assert PARSING_SCORE_HEAD_REGISTRY.get("ParsingScoreHead") is ParsingScoreHead


def test_yacs_names_the_parts_of_the_parsing_head():
    @PARSING_NON_LOCAL_REGISTRY.register()
    class OwnRelations(nn.Conv2d):
        def __init__(self, cfg, input_shape):
            super().__init__(input_shape.channels, input_shape.channels, 1)

    @PARSING_SCORE_HEAD_REGISTRY.register()
    class OwnScoreHead(nn.Linear):
        def __init__(self, cfg, input_shape):
            super().__init__(input_shape.channels, 1)
            self.shape = input_shape

    cfg = small_config()
    node = cfg.MODEL.ROI_PARSING_HEAD
    node.NON_LOCAL, node.SCORE_HEAD = "OwnRelations", "OwnScoreHead"
    try:
        head = EdgeGuidedParsingHead(cfg, ShapeSpec(channels=8, height=16, width=16))
    finally:
        del PARSING_NON_LOCAL_REGISTRY._obj_map["OwnRelations"]
        del PARSING_SCORE_HEAD_REGISTRY._obj_map["OwnScoreHead"]
    assert type(head.non_local) is OwnRelations and type(head.score_head) is OwnScoreHead
    shape = head.score_head.shape
    assert (shape.channels, shape.height, shape.width) == (node.CONV_DIM, 16, 16)
    node.NON_LOCAL = node.SCORE_HEAD = ""
    head = EdgeGuidedParsingHead(cfg, ShapeSpec(channels=8, height=16, width=16))
    assert isinstance(head.non_local, nn.Identity) and head.score_head is None


def test_switches_that_became_names_are_refused_with_the_new_key():
    cfg = get_cfg()
    add_aiparsing_config(cfg)
    with pytest.raises(KeyError, match="renamed to MODEL.ROI_PARSING_HEAD.SCORE_HEAD"):
        cfg.merge_from_list(["MODEL.ROI_PARSING_HEAD.SCORE_ON", False])


def test_adding_the_config_twice_changes_nothing():
    cfg = get_cfg()
    before = cfg.clone()
    add_aiparsing_config(cfg)
    # Detectron2's own keys keep their values.
    for key, value in before.items():
        if key not in ("MODEL", "TEST"):
            assert cfg[key] == value
    for key, value in before.TEST.items():
        assert ({k: cfg.TEST[key][k] for k in value} if key == "AUG" else cfg.TEST[key]) == value
    for key, value in before.MODEL.items():
        assert (
            {k: cfg.MODEL[key][k] for k in value} == value
            if key == "FPN"
            else (cfg.MODEL[key] == value)
        )
    cfg.MODEL.FCOS_PROPOSALS.NMS_THRESH = 0.5
    cfg.MODEL.ROI_PARSING_HEAD.NUM_CLASSES = 59
    cfg.TEST.AUG.NMS_THRESH = 0.75
    changed = cfg.clone()
    add_aiparsing_config(cfg)
    assert cfg == changed


def test_yacs_defaults_are_the_lazy_configs():
    """Each key's default equals the keyword's, so the two systems describe one model."""
    cfg = get_cfg()
    add_aiparsing_config(cfg)
    cfg.DATASETS.TEST = ("cihp_val",)
    shapes = {name: ShapeSpec(channels=256, stride=s.stride) for name, s in FPN_SHAPE.items()}
    for cls, arguments in [
        (FCOSProposalGenerator, FCOSProposalGenerator.from_config(cfg, shapes)),
        (FCOSHead, FCOSHead.from_config(cfg, list(shapes.values()))),
        (PGEC, PGEC.from_config(cfg, ShapeSpec(channels=256, height=32, width=32))),
        (
            EdgeGuidedParsingHead,
            EdgeGuidedParsingHead.from_config(cfg, ShapeSpec(channels=256, height=32, width=32)),
        ),
        (AIParsingWithTTA, AIParsingWithTTA.from_config(cfg, model=None)),
    ]:
        parameters = inspect.signature(inspect.unwrap(cls.__init__)).parameters
        compared = 0
        for name, value in arguments.items():
            default = parameters[name].default
            if default is inspect.Parameter.empty or default is None:
                continue
            as_tuple = tuple(value) if isinstance(value, (list, tuple)) else value
            assert as_tuple == default, f"{cls.__name__}.{name}"
            compared += 1
        assert compared >= 2


def test_lazy_and_yacs_models_are_one():
    torch.manual_seed(0)
    lazy = instantiate(tiny_lazy_model()).eval()
    yacs = build_model(tiny_yacs_config()).eval()
    assert type(yacs) is type(lazy) is AIParsing
    assert shapes_of(yacs) == shapes_of(lazy)
    yacs.load_state_dict(lazy.state_dict())
    for model in (lazy, yacs):
        model.proposal_generator.score_thresh = 0.0
    with torch.no_grad():
        (theirs,), (ours,) = lazy([make_input(96, 128)]), yacs([make_input(96, 128)])
    theirs, ours = theirs["instances"], ours["instances"]
    assert len(ours) == len(theirs) > 0
    for name in ("scores", "box_scores", "pred_mious", "pred_part_scores"):
        assert torch.equal(ours.get(name), theirs.get(name))
    assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    assert torch.equal(ours.pred_part_maps.to_full(), theirs.pred_part_maps.to_full())


def test_bilinear_top_down_by_key():
    cfg = tiny_yacs_config()
    cfg.MODEL.FPN.BILINEAR_TOP_DOWN = True
    model = build_model(cfg).eval()
    assert isinstance(model.backbone, BilinearFPN)
    with torch.no_grad():
        (output,) = model([make_input(93, 71)])
    assert output["instances"].image_size == (93, 71)


def check_training_step(model, batch):
    """Losses by name, after checking that every trainable parameter has a finite gradient."""
    model.train()
    model.zero_grad(set_to_none=True)
    with EventStorage():
        losses = model(batch)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    return losses


def test_parsing_branch_in_a_stock_two_stage_detector():
    cfg = get_cfg()
    add_aiparsing_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    set_tiny_backbone(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    features = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.RPN.IN_FEATURES = features
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 50
    cfg.MODEL.ROI_HEADS.NAME = "ParsingROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = features[:4]
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
    set_tiny_parsing_head(cfg)
    cfg.MODEL.ROI_PARSING_HEAD.IN_FEATURES = ["p2"]
    torch.manual_seed(0)
    model = build_model(cfg)

    for batch in ([make_input(96, 128, PEOPLE), make_input(64, 96, [])], [make_input(96, 128, [])]):
        losses = check_training_step(model, batch)
        assert set(losses) == {
            "loss_rpn_cls",
            "loss_rpn_loc",
            "loss_cls",
            "loss_box_reg",
            "loss_parsing",
            "loss_edge",
            "loss_miou",
            "loss_miou_score",
        }

    model.eval()
    with torch.no_grad():
        (raw,) = model.inference([make_input(96, 128)], do_postprocess=False)
    instances = parsing_postprocess(raw, 192, 256)
    assert len(instances) > 0
    assert set(instances.get_fields()) == {
        "pred_boxes",
        "scores",
        "box_scores",
        "pred_classes",
        "pred_mious",
        "pred_part_maps",
        "pred_part_scores",
        "pred_masks",
    }
    assert instances.pred_part_maps.image_size == (192, 256)
    # The stock model itself postprocesses boxes only.
    with torch.no_grad():
        (stock,) = model([make_input(96, 128)])
    assert stock["instances"].has("pred_part_logits")


def test_fcos_proposals_feed_a_stock_mask_head():
    cfg = tiny_yacs_config()
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.FCOS_PROPOSALS.SCORE_THRESH = 0.0
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 1
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
    torch.manual_seed(0)
    model = build_model(cfg)

    batch = [make_input(96, 128, PEOPLE)]
    part_maps = batch[0]["instances"].gt_part_maps
    assert isinstance(part_maps, PartMaps)
    batch[0]["instances"].gt_masks = BitMasks(part_maps.to_full() > 0)
    losses = check_training_step(model, batch)
    assert set(losses) == {
        "loss_fcos_cls",
        "loss_fcos_box",
        "loss_fcos_centerness",
        "loss_cls",
        "loss_box_reg",
        "loss_mask",
    }
    with torch.no_grad():
        (output,) = model.eval()([make_input(96, 128)])
    instances = output["instances"]
    assert len(instances) > 0
    assert instances.pred_masks.shape == (len(instances), 96, 128)
    assert np.isfinite(instances.scores.numpy()).all()

"""A pyramid without the feature maps that a part reads: the error says what to set."""

import pytest
import torch
from detectron2 import model_zoo as detectron2_zoo
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model
from tiny_models import tiny_lazy_model

from aiparsing_d2.config import add_aiparsing_config


def mask_rcnn():
    cfg = get_cfg()
    add_aiparsing_config(cfg)
    name = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    cfg.merge_from_file(detectron2_zoo.get_config_file(name))
    cfg.MODEL.DEVICE = "meta"
    return cfg


def test_fcos_in_mask_rcnn():
    cfg = mask_rcnn()
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "FCOSProposalGenerator"
    with torch.device("meta"), pytest.raises(ValueError) as error:
        build_model(cfg)
    message = str(error.value)
    assert "FCOSProposalGenerator reads the feature maps p3, p4, p5, p6, p7" in message
    assert "gives p2, p3, p4, p5, p6: there is no p7." in message
    assert "MODEL.FCOS_PROPOSALS.IN_FEATURES" in message and "model.proposal_generator" in message
    cfg.MODEL.FCOS_PROPOSALS.IN_FEATURES = ["p3", "p4", "p5", "p6"]
    with torch.device("meta"), pytest.raises(ValueError, match="SIZES_OF_INTEREST"):
        build_model(cfg)


def test_parsing_branch_in_yacs():
    cfg = mask_rcnn()
    cfg.MODEL.ROI_HEADS.NAME = "ParsingROIHeads"
    cfg.MODEL.ROI_PARSING_HEAD.IN_FEATURES = ["p1"]
    with torch.device("meta"), pytest.raises(ValueError, match="no p1.*ROI_PARSING_HEAD.IN_FEAT"):
        build_model(cfg)


@pytest.mark.parametrize(
    "part, key, match",
    [
        ("proposal_generator", "in_features", "no p2.*model.proposal_generator.in_features"),
        ("roi_heads", "parsing_in_features", "no p2.*model.roi_heads.parsing_in_features"),
    ],
)
def test_lazy_config(part, key, match):
    config = tiny_lazy_model()
    config[part][key][0] = "p2"
    model = instantiate(config).eval()
    with torch.no_grad(), pytest.raises(ValueError, match=match):
        model([{"image": torch.zeros(3, 64, 64)}])

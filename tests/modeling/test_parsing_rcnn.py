"""Parsing R-CNN and its FCOS variant, the two sides of the paper's Table IV."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.proposal_generator import RPN
from detectron2.utils.events import EventStorage
from tiny_models import CONFIGS, NUM_CLASSES, make_input, tiny_lazy_model

from aiparsing_d2.modeling import (
    AIParsing,
    FCOSProposalGenerator,
    OneStageParsingROIHeads,
    optimize_for_inference,
)
from aiparsing_d2.modeling.roi_heads import ASPP, ParsingROIHeads

PEOPLE = [[10.0, 10.0, 60.0, 90.0], [50.0, 20.0, 110.0, 95.0]]
DETECTION_LOSSES = {
    "parsing_rcnn_fpn": {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"},
    "parsing_rcnn_fcos_fpn": {"loss_fcos_cls", "loss_fcos_box", "loss_fcos_centerness"},
}


def tiny_model_config(name):
    """The common config with few channels, 8x8 RoIs and 2x2 box features."""
    model = LazyConfig.load(str(CONFIGS / f"common/models/{name}.py")).model
    tiny = tiny_lazy_model()
    model.backbone.bottom_up.stem = tiny.backbone.bottom_up.stem
    model.backbone.bottom_up.stages = tiny.backbone.bottom_up.stages
    model.backbone.out_channels = tiny.backbone.out_channels
    model.roi_heads.parsing_pooler.output_size = 8
    head = model.roi_heads.parsing_head
    head.num_classes = NUM_CLASSES
    head.context.out_channels = 32
    head.conv_dims = [32, 32]
    if "box_head" in model.roi_heads:
        model.roi_heads.box_head.fc_dims = [8, 8]
        model.roi_heads.box_pooler.output_size = 2
        model.roi_heads.box_predictor.test_score_thresh = 0.0
        model.proposal_generator.post_nms_topk = (50, 50)
    else:
        model.proposal_generator.head.num_convs = 1
        model.proposal_generator.score_thresh = 0.0
    return model


@pytest.fixture(scope="module", params=DETECTION_LOSSES)
def named_model(request):
    torch.manual_seed(0)
    return request.param, instantiate(tiny_model_config(request.param))


@pytest.mark.parametrize("people", [PEOPLE, []], ids=["two people", "nobody"])
def test_training_step(named_model, people):
    name, model = named_model
    model.train()
    model.zero_grad(set_to_none=True)
    with EventStorage():
        losses = model([make_input(96, 128, people)])
    assert set(losses) == DETECTION_LOSSES[name] | {"loss_parsing"}
    assert (losses["loss_parsing"] > 0) == bool(people)
    sum(losses.values()).backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), parameter_name


def test_inference(named_model):
    _, model = named_model
    model.eval()
    with torch.no_grad():
        (output,) = model([{**make_input(96, 128), "height": 192, "width": 256}])
    instances = output["instances"]
    assert len(instances) > 0
    # No refinement head: the person score is the box score.
    assert set(instances.get_fields()) == {
        "pred_boxes",
        "scores",
        "box_scores",
        "pred_classes",
        "pred_part_maps",
        "pred_part_scores",
        "pred_masks",
    }
    assert torch.equal(instances.scores, instances.box_scores)
    assert instances.pred_part_maps.image_size == (192, 256)


@torch.no_grad()
def test_inference_in_half_precision(named_model):
    """Boxes are decoded in float32, by Detectron2's RPN too, which suppresses in what it is
    given.
    """
    _, model = named_model
    image = make_input(96, 128)
    half = optimize_for_inference(model.eval(), "bf16")
    generator = half.proposal_generator
    head = generator.rpn_head if isinstance(generator, RPN) else generator.head
    assert next(head.parameters()).dtype == torch.bfloat16
    inputs = half.preprocess_image([image])
    (proposals,), _ = generator(inputs, half.backbone(inputs.tensor), None)
    assert proposals.proposal_boxes.tensor.dtype == torch.float32
    assert proposals.objectness_logits.dtype == torch.float32
    instances = half([image])[0]["instances"]
    assert len(instances) > 0
    assert instances.pred_boxes.tensor.dtype == instances.scores.dtype == torch.float32


def test_what_the_two_sides_share_and_what_not():
    with torch.device("meta"):
        rpn, fcos = (
            instantiate(LazyConfig.load(str(CONFIGS / f"common/models/{name}.py")).model)
            for name in DETECTION_LOSSES
        )
    assert type(rpn) is type(fcos) is AIParsing
    assert str(rpn.roi_heads.parsing_head) == str(fcos.roi_heads.parsing_head)
    for model in (rpn, fcos):
        head = model.roi_heads.parsing_head
        assert type(head.context) is ASPP
        assert (head.edge_predictor, head.score_head, head.miou_loss_weight) == (None, None, 0)
        assert head.convs[-1].norm is None
        assert model.roi_heads.parsing_batch_size_per_image == 16
        assert model.roi_heads.parsing_pooler.output_size == (32, 32)
    assert str(rpn.backbone.bottom_up) == str(fcos.backbone.bottom_up)

    assert (type(rpn.proposal_generator), type(rpn.roi_heads)) == (RPN, ParsingROIHeads)
    assert type(fcos.proposal_generator) is FCOSProposalGenerator
    assert type(fcos.roi_heads) is OneStageParsingROIHeads
    # Each reads its pyramid's finest level only.
    for model, level, stride in ((rpn, "p2", 4), (fcos, "p3", 8)):
        assert model.roi_heads.parsing_in_features == [level]
        (pooler,) = model.roi_heads.parsing_pooler.level_poolers
        assert pooler.spatial_scale == 1 / stride
        shapes = model.backbone.output_shape()
        assert min(shape.stride for shape in shapes.values()) == shapes[level].stride == stride

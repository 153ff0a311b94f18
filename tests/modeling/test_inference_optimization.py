"""Copies of models for inference: what they give, and that their origin stays as it is."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.structures import Boxes, pairwise_iou
from torch import nn

from aiparsing_d2 import model_zoo
from aiparsing_d2.inference import ParsingPredictor
from aiparsing_d2.modeling import best_precision, inference_optimization, optimize_for_inference
from tests.modeling.tiny_models import make_input, tiny_lazy_model

NORMS = (FrozenBatchNorm2d, nn.modules.batchnorm._BatchNorm)


def with_random_norms(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, NORMS):
            for tensor, low in (
                (module.running_mean, -0.3),
                (module.running_var, 0.5),
                (module.weight.data, 0.5),
                (module.bias.data, -0.3),
            ):
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    if hasattr(model, "roi_heads"):
        model.roi_heads.parsing_head.clamp_mious = False  # random ones may all be clipped
    return model.eval()


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    model = instantiate(tiny_lazy_model())
    model.proposal_generator.score_thresh = 0.0
    return with_random_norms(model)


@pytest.fixture(scope="module")
def timm_model():
    torch.manual_seed(0)
    return with_random_norms(
        instantiate(model_zoo.get_config("demo/aiparsing_tiny_FPN_drawn_cihp").model)
    )


def norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, NORMS)]


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.float() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", ["resnet", "timm_model"])
@pytest.mark.parametrize("channels_last", [False, True])
@torch.no_grad()
def test_float32_gives_the_same_without_norms(name, channels_last, request):
    model = request.getfixturevalue(name)
    before = copy.deepcopy(model.state_dict())
    assert norms(model)
    image = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(2))
    expected = model.backbone(image)
    fast = optimize_for_inference(model, "fp32", channels_last=channels_last)
    assert norms(fast) == []
    got = fast.backbone(image)
    assert got.keys() == expected.keys()
    assert max(relative_error(got[k], expected[k]) for k in got) < 1e-4
    levels = list(expected.values())
    heads = zip(fast.proposal_generator.head(levels), model.proposal_generator.head(levels))
    assert all(relative_error(a, b) < 1e-4 for x, y in heads for a, b in zip(x, y))
    side = model.roi_heads.parsing_pooler.output_size[0]
    roi = torch.randn(9, levels[0].shape[1], side, side)
    got, expected = (m.roi_heads.parsing_head.predict(roi) for m in (fast, model))
    assert all(relative_error(got[k], expected[k]) < 1e-4 for k in expected)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_convolution_that_something_else_reads_keeps_its_norm():
    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return {"x": x + self.norm(x)}

    body = with_random_norms(Body())
    inference_optimization._fold_norms(body, 3)
    assert isinstance(body.norm, nn.BatchNorm2d)


@torch.no_grad()
def test_half_precision_computes_boxes_and_scores_in_float32(resnet):
    fast = optimize_for_inference(resnet, "bf16")
    assert fast.inference_precision == "bf16"
    assert fast.backbone.bottom_up.stem.conv1.weight.dtype == torch.bfloat16
    parsing_head = fast.roi_heads.parsing_head
    assert parsing_head.convs[0].weight.dtype == torch.bfloat16
    head = fast.proposal_generator.head
    exact = (head.box_pred, head.cls_logits, head.centerness, parsing_head.parsing_predictor)
    for layer in (*exact, parsing_head.score_head.predictor):
        assert layer.weight.dtype == torch.float32
    outputs = fast([make_input(96, 128)])[0]["instances"]
    assert len(outputs) > 0
    for tensor in (outputs.pred_boxes.tensor, outputs.scores, outputs.box_scores):
        assert tensor.dtype == torch.float32
    # Numbers of 8 bits would all equal their own rounding.
    boxes = outputs.pred_boxes.tensor
    assert not torch.equal(boxes, boxes.bfloat16().float())


def test_a_model_cast_as_a_whole_runs(resnet):
    model = copy.deepcopy(resnet).to(torch.bfloat16)
    with torch.no_grad():
        outputs = model([make_input(96, 128)])[0]["instances"]
    assert len(outputs) > 0
    assert outputs.scores.isfinite().all()


@torch.no_grad()
def test_distances_are_not_rounded(resnet):
    """From the same features of the tower: bfloat16 would be off by a percent."""
    head = optimize_for_inference(resnet, "bf16").proposal_generator.head
    x = torch.randn(1, 64, 9, 11, generator=torch.Generator().manual_seed(3)).bfloat16()
    _, (distances,), _ = head([x])
    exact = resnet.proposal_generator.head
    expected = exact.scales[0](exact.box_pred(head.box_tower(x).float())).exp()
    torch.testing.assert_close(distances, expected, rtol=1e-5, atol=0)


def test_bfloat16_finds_the_person_of_float32_with_the_shipped_weights():
    picture = Path(__file__).parents[2] / "docs/images/astronaut.jpg"
    exact, half = (ParsingPredictor(device="cpu", precision=x)(picture) for x in ("fp32", "bf16"))
    assert len(exact) == len(half) == 1
    (a,), (b,) = exact, half
    boxes = (torch.as_tensor(np.array([x.box]), dtype=torch.float32) for x in (a, b))
    assert pairwise_iou(*map(Boxes, boxes)).item() > 0.97
    assert abs(a.score - b.score) < 0.02
    labels = a.part_map()
    assert (labels == b.part_map())[labels > 0].mean() > 0.97


@pytest.mark.parametrize("feature", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_auto_is_bfloat16_where_the_cpu_computes_in_it(feature, monkeypatch, resnet):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert best_precision("cpu") == "fp32"
    assert optimize_for_inference(resnet).inference_precision == "fp32"
    monkeypatch.setattr(torch.cpu, feature, lambda: True)
    assert best_precision("cpu") == "bf16"
    assert best_precision("cuda") == "fp32"


@pytest.mark.parametrize(
    "precision, message", [("int8", "auto, fp32, bf16, fp16"), ("fp16", "for GPUs")]
)
def test_what_it_refuses(precision, message, resnet):
    with pytest.raises(ValueError, match=message):
        optimize_for_inference(resnet, precision)


@pytest.fixture
def compilations(monkeypatch):
    """What is compiled, by what arguments; without the minutes of generating code."""
    calls = []
    compile = torch.compile

    def record(call, **kwargs):
        calls.append((type(call.__self__).__name__, kwargs))
        return compile(call, backend="eager")

    monkeypatch.setattr(torch, "compile", record)
    return calls


@torch.no_grad()
def test_a_compiled_model_finds_the_same_people(compilations, resnet):
    inputs = [make_input(96, 128)]
    (expected,) = optimize_for_inference(resnet).inference(inputs, do_postprocess=False)
    fast = optimize_for_inference(resnet, compile=True)
    (got,) = fast.inference(inputs, do_postprocess=False)
    assert len(expected) and torch.equal(got.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(got.pred_part_logits.tensor, expected.pred_part_logits.tensor)
    names = [name for name, _ in compilations]
    assert {"FPN", "FCOSHead", "EdgeGuidedParsingHead"} <= set(names)
    assert all(kwargs == {"mode": None} for _, kwargs in compilations)


def test_graphs_are_of_what_does_not_change_with_people(compilations, resnet, monkeypatch):
    monkeypatch.setattr(type(resnet), "device", torch.device("cuda"))
    optimize_for_inference(resnet, "fp32", compile=True, cuda_graphs=True)
    modes = {name: kwargs["mode"] for name, kwargs in compilations}
    assert modes["FPN"] == modes["FCOSHead"] == "reduce-overhead"
    assert modes["EdgeGuidedParsingHead"] is None


def test_graphs_need_a_gpu_and_compilation(resnet):
    with pytest.raises(ValueError, match="give compile too"):
        optimize_for_inference(resnet, cuda_graphs=True)
    with pytest.raises(ValueError, match="the model is on cpu"):
        optimize_for_inference(resnet, compile=True, cuda_graphs=True)

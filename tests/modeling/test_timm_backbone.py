"""Bodies from timm, of families that differ in layout, norms and strides."""

import copy

import pytest
import timm
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, instantiate
from detectron2.config import LazyCall as L
from detectron2.modeling import build_model
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.utils.events import EventStorage
from tiny_models import make_input, tiny_lazy_model, tiny_yacs_config
from torch import nn

from aiparsing_d2.modeling import BilinearFPN, TimmBackbone
from aiparsing_d2.modeling.backbone import timm_pixel_mean, timm_pixel_std

# Depths and widths as small as each family allows.
BODIES = {
    "lite": {"model_name": "tf_efficientnet_lite0"},
    "convnext": {
        "model_name": "convnext_atto",
        "depths": (1, 1, 2, 1),
        "dims": (8, 16, 24, 32),
    },
    "swin": {
        "model_name": "swin_tiny_patch4_window7_224",
        "dynamic_img_size": True,
        "depths": (1, 1, 2, 1),
        "embed_dim": 12,
        "num_heads": (1, 2, 4, 8),
    },
}
CHANNELS = {"lite": [24, 40, 112, 320], "convnext": [8, 16, 24, 32], "swin": [12, 24, 48, 96]}
FINEST_FIRST = ["res2", "res3", "res4", "res5"]


@pytest.fixture(params=BODIES)
def family(request):
    return request.param


def make_body(family, **kwargs):
    torch.manual_seed(0)
    return TimmBackbone(**BODIES[family], **kwargs)


def test_channels_and_strides_are_what_it_says(family):
    body = make_body(family, out_features=FINEST_FIRST).eval()
    shapes = body.output_shape()
    assert list(shapes) == FINEST_FIRST
    assert [shape.stride for shape in shapes.values()] == [4, 8, 16, 32]
    assert [shape.channels for shape in shapes.values()] == CHANNELS[family]
    with torch.no_grad():
        features = body(torch.randn(2, 3, 64, 96))
    for name, shape in shapes.items():
        size = (64 // shape.stride, 96 // shape.stride)
        assert features[name].shape == (2, shape.channels, *size)


def test_the_features_are_those_of_timms_own_extractor(family):
    body = make_body(family, out_features=["res3", "res5"]).eval()
    torch.manual_seed(0)
    theirs = timm.create_model(**BODIES[family], features_only=True).eval()
    theirs.load_state_dict(body.net.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        ours, expected = body(x), theirs(x)
    reductions = theirs.feature_info.reduction()
    for name, stride in (("res3", 8), ("res5", 32)):
        feature = expected[reductions.index(stride)]
        if family == "swin":  # channels last
            feature = feature.permute(0, 3, 1, 2)
        torch.testing.assert_close(ours[name], feature)


@pytest.mark.parametrize("fpn_class", [FPN, BilinearFPN])
def test_an_fpn_takes_images_that_no_stride_divides(family, fpn_class):
    # BilinearFPN does not pad, and timm's Swin needs whole patches of 4x4 pixels.
    size = (84, 100) if family == "swin" and fpn_class is BilinearFPN else (83, 101)
    model = tiny_lazy_model()
    model.backbone._target_ = fpn_class
    model.backbone.bottom_up = L(TimmBackbone)(**BODIES[family])
    model = instantiate(model).eval()
    with torch.no_grad():
        (output,) = model([make_input(*size)])
    assert output["instances"].image_size == size


@pytest.mark.parametrize("freeze_at", [0, 2, 3])
def test_a_training_step_trains_what_is_not_frozen(family, freeze_at):
    model = tiny_lazy_model()
    model.backbone.bottom_up = L(TimmBackbone)(**BODIES[family], freeze_at=freeze_at)
    torch.manual_seed(0)
    model = instantiate(model).train()
    body = model.backbone.bottom_up
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    with EventStorage():
        losses = model([make_input(64, 96, [[10.0, 8.0, 60.0, 60.0]])])
    assert {"loss_parsing", "loss_fcos_box"} <= set(losses)
    sum(losses.values()).backward()
    optimizer.step()

    norms = {
        f"{name}.{kind}"
        for name, module in body.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for kind in module.state_dict()
    }
    assert bool(norms) == (family == "lite")
    after = body.state_dict()
    unchanged = {k for k in after if after[k].equal(before[f"backbone.bottom_up.{k}"])}
    assert norms <= unchanged
    # Up to which layer, written out: the last one of the stage of that stride, the next one.
    last, following = {
        ("lite", 2): ("blocks.1.1.conv_pwl.weight", "blocks.2.0.conv_pw.weight"),
        ("lite", 3): ("blocks.2.1.conv_pwl.weight", "blocks.3.0.conv_pw.weight"),
        ("convnext", 2): ("stages_0.blocks.0.mlp.fc2.bias", "stages_1.downsample.1.weight"),
        ("convnext", 3): ("stages_1.blocks.0.mlp.fc2.bias", "stages_2.downsample.1.weight"),
        ("swin", 2): ("layers_0.blocks.0.mlp.fc2.bias", "layers_1.downsample.reduction.weight"),
        ("swin", 3): ("layers_1.blocks.0.mlp.fc2.bias", "layers_2.downsample.reduction.weight"),
    }.get((family, freeze_at), (None, next(iter(dict(body.net.named_parameters())))))
    names = [name for name in after if name not in norms]
    parameters = dict(body.named_parameters())
    count = 0 if last is None else names.index(f"net.{last}") + 1
    for name in names[:count]:
        if name in parameters:
            assert parameters[name].grad is None and name in unchanged, name
    assert all(parameters[n].grad is not None for n in names[count:] if n in parameters)
    assert f"net.{following}" not in unchanged


def test_norms_stay_frozen_and_do_not_look_at_the_batch():
    body = make_body("lite", freeze_at=2).train()
    norms = [m for m in body.modules() if isinstance(m, nn.BatchNorm2d)]
    assert body.training and not any(norm.training for norm in norms)
    x = torch.randn(2, 3, 64, 64)
    both, alone = body(x)["res5"], body(x[:1])["res5"]
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-5)

    trained = make_body("lite", freeze_norms=False, freeze_at=2).train()
    frozen = {name for name, m in trained.net.named_modules() if m in set(trained._frozen_norms)}
    assert frozen and all(name == "bn1" or name[:8] in ("blocks.0", "blocks.1") for name in frozen)
    last = trained.net.blocks[6][0].bn3
    assert last.training and last.weight.requires_grad


def test_checkpoints_are_saved_and_loaded(family, tmp_path):
    body, other = make_body(family), make_body(family)
    with torch.no_grad():
        for tensor in body.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    DetectionCheckpointer(body, str(tmp_path)).save("body")
    DetectionCheckpointer(other).load(str(tmp_path / "body.pth"))
    for name, tensor in other.state_dict().items():
        assert tensor.equal(body.state_dict()[name]), name
    # A copy, as an average of the weights is, has norms of its own that are frozen.
    duplicate = copy.deepcopy(body).train()
    assert not {id(n) for n in duplicate._frozen_norms} & {id(n) for n in body._frozen_norms}
    assert not any(norm.training for norm in duplicate._frozen_norms)


def test_of_feature_maps_of_one_stride_it_is_the_deepest():
    options = {"img_size": 32, "depth": 3, "embed_dim": 24, "num_heads": 3}
    body = TimmBackbone("vit_tiny_patch16_224", out_features=["res4"], **options).eval()
    assert body.output_shape()["res4"].stride == 16
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        _, _, expected = body.net.model.forward_intermediates(
            x, indices=3, norm=False, intermediates_only=True
        )
        torch.testing.assert_close(body(x)["res4"], expected)


@pytest.mark.parametrize(
    "options", [{"out_features": ["res1"]}, {"out_features": []}, {"freeze_at": 1}]
)
def test_a_feature_map_that_is_not_there_is_told(options):
    with pytest.raises(ValueError, match="convnext_atto has the feature maps res2, res3"):
        make_body("convnext", **options)


def test_pixels_are_normalised_as_timm_says():
    assert timm_pixel_mean("tf_efficientnet_lite0") == [127.5] * 3
    assert timm_pixel_std("tf_efficientnet_lite0") == [127.5] * 3
    # ImageNet's statistics, red first.
    assert timm_pixel_mean("convnext_atto") == pytest.approx([123.675, 116.28, 103.53])
    assert timm_pixel_std("convnext_atto") == pytest.approx([58.395, 57.12, 57.375])
    with pytest.raises(ValueError, match="resnet_of_nobody"):
        timm_pixel_mean("resnet_of_nobody")


def yacs_config():
    cfg = tiny_yacs_config()
    cfg.MODEL.BACKBONE.NAME = "build_aiparsing_timm_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    cfg.MODEL.TIMM.NAME = "convnext_atto"
    cfg.merge_from_other_cfg(CfgNode({"MODEL": {"TIMM": {"OPTIONS": {"depths": [1, 1, 2, 1]}}}}))
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]
    cfg.INPUT.FORMAT = "RGB"
    return cfg


def test_yacs_builds_what_plain_python_does():
    backbone = build_model(yacs_config()).backbone
    expected = FPN(
        TimmBackbone("convnext_atto", freeze_at=2, depths=[1, 1, 2, 1]),
        ["res3", "res4", "res5"],
        64,
        top_block=LastLevelP6P7(64, 64, in_feature="p5"),
    )
    assert str(backbone) == str(expected)
    assert [(n, p.shape, p.requires_grad) for n, p in backbone.named_parameters()] == [
        (n, p.shape, p.requires_grad) for n, p in expected.named_parameters()
    ]


@pytest.mark.parametrize(
    "key, value",
    [
        ("MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675]),
        ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0]),
        ("INPUT.FORMAT", "BGR"),
    ],
)
def test_yacs_refuses_images_that_the_body_does_not_know(key, value):
    cfg = yacs_config()
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=key):
        build_model(cfg)

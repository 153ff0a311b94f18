"""The authors' checkpoints: names, strictness, and the same outputs as under their own names."""

import re

import pytest
import torch
from authors_forward import STRIDES, AuthorsNetwork
from authors_layout import (
    AUTHORS_CONFIG,
    LIGHT,
    RESNET_50,
    RESNET_101,
    RESNEXT_101,
    TINY,
    TINY_GROUPED,
    authors_shapes,
    random_weights,
    tiny_authors_config,
    weightless,
)
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.structures import Boxes
from naive_conventions import detections
from torch import nn

from aiparsing_d2 import cli
from aiparsing_d2.checkpoint import (
    ConversionError,
    WeightFile,
    convert_authors,
    read_weights,
    write_weights,
)
from aiparsing_d2.checkpoint.authors import absorb_eps


def build_without_memory(model_config):
    with torch.device("meta"):
        return instantiate(model_config)


def weight_file(tensors):
    return WeightFile("theirs.pth", tensors)


@pytest.fixture(scope="module")
def tiny_model():
    return build_without_memory(tiny_authors_config(**TINY).model)


@pytest.fixture
def tensors():
    return random_weights(authors_shapes(**TINY))


def published_model(blocks=(3, 4, 6, 3), groups=1, light=False, classes=20):
    model = LazyConfig.load(str(AUTHORS_CONFIG)).model
    bottom_up, head = model.backbone.bottom_up, model.roi_heads.parsing_head
    if groups == 1:
        bottom_up.stages.depth = {6: 50, 23: 101}[blocks[2]]
    else:
        bottom_up.stages = [
            L(ResNet.make_stage)(
                block_class=BottleneckBlock,
                num_blocks=num_blocks,
                stride_per_block=[1 if i == 0 else 2] + [1] * (num_blocks - 1),
                in_channels=128 * 2**i if i else 64,
                bottleneck_channels=256 * 2**i,
                out_channels=256 * 2**i,
                num_groups=groups,
                norm="FrozenBN",
            )
            for i, num_blocks in enumerate(blocks)
        ]
    head.num_classes = classes
    if light:
        model.backbone.out_channels = 128
        model.proposal_generator.head.num_convs = 2
        head.context.out_channels = 256
        head.conv_dims = [256, 256]
        head.score_head.in_channels = 256
        head.score_head.conv_dim = 64
        head.score_head.fc_dim = 128
    return build_without_memory(model)


@pytest.mark.parametrize(
    "layout, model_arguments, parameters",
    [
        (RESNET_50, {}, 50_369_506),
        (RESNET_101, {"blocks": (3, 4, 23, 3)}, 69_310_000),
        (RESNEXT_101, {"blocks": (3, 4, 23, 3), "groups": 32}, 113_450_000),
        (LIGHT, {"light": True}, 28_706_000),
        # 39 more classes: a transposed 4x4 convolution's, and inputs of the score head.
        ({"classes": 59}, {"classes": 59}, 50_369_506 + 39 * (512 * 16 + 1 + 128 * 9)),
    ],
    ids=["R-50", "R-101", "X-101-32x8d", "light", "59 classes"],
)
def test_every_published_architecture_is_filled_completely(layout, model_arguments, parameters):
    shapes = authors_shapes(**layout)
    # The layout itself is as large as the published models.
    frozen = re.compile(r".*\.(bn\d|downsample\.1)\.\w+")
    counted = sum(torch.Size(s).numel() for n, s in shapes.items() if not frozen.fullmatch(n))
    assert counted == pytest.approx(parameters, abs=5_000)

    model = published_model(**model_arguments)
    conversion, architecture = convert_authors(weight_file(weightless(shapes)), model)
    assert set(conversion.sources.values()) == set(shapes)
    assert {n: t.shape for n, t in conversion.weights.items()} == {
        n: t.shape for n, t in model.state_dict().items()
    }
    assert conversion.dropped == ()
    text = "\n".join(architecture)
    assert f"LV-MHP-v2: 59): {layout.get('classes', 20)}" in text
    assert ", ".join(map(str, layout.get("blocks", (3, 4, 6, 3)))) in text


@pytest.fixture(scope="module", params=[TINY, TINY_GROUPED], ids=["ResNet", "ResNeXt"])
def both(request, tmp_path_factory):
    """The converted model, read back from a file, and the network under the authors' names."""
    tensors = random_weights(authors_shapes(**request.param))
    config = tiny_authors_config(**request.param)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(
        {"model": {f"module.{n}": t for n, t in tensors.items()}, "iteration": 5},
        folder / "theirs.pth",
    )
    model = instantiate(config.model).eval()
    conversion, _ = convert_authors(read_weights(folder / "theirs.pth"), model)
    assert conversion.dropped == ("iteration",)
    write_weights(folder / "ours.pth", conversion.weights)
    incompatible = DetectionCheckpointer(model).load(str(folder / "ours.pth"))
    assert incompatible == {}
    return model, AuthorsNetwork(tensors, stride_in_1x1="groups" not in request.param)


@pytest.fixture(scope="module")
def image():
    """Of a size that no stride divides, as test images are not padded."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 9, 13, generator=generator) * 255
    return nn.functional.interpolate(coarse, size=(101, 141), mode="bicubic")[0].clamp(0, 255)


def assert_close(ours, theirs):
    """To 1e-4 of the largest value."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@torch.no_grad()
def test_outputs_are_those_of_the_authors_network(both, image):
    model, theirs = both
    batch = model.preprocess_image([{"image": image}])
    assert batch.tensor.shape == (1, 3, 101, 141)
    mean = torch.tensor([102.9801, 115.9465, 122.7717])
    their_features = theirs.features(image[None] - mean[:, None, None])
    features = model.backbone(batch.tensor)
    for ours, expected in zip(features.values(), their_features):
        assert_close(ours, expected)

    their_predictions = theirs.detector(their_features)
    predictions = model.proposal_generator.head(list(features.values()))
    for ours, expected in zip(zip(*predictions), their_predictions):
        for a, b in zip(ours, expected):
            assert_close(a, b)

    boxes, scores = detections(
        [[x[0].squeeze(0).numpy() for x in level] for level in their_predictions],
        STRIDES,
        101,
        141,
    )
    assert 5 < len(boxes) <= 50
    (proposals,), _ = model.proposal_generator(batch, features)
    torch.testing.assert_close(
        proposals.proposal_boxes.tensor.double(), torch.tensor(boxes), rtol=1e-4, atol=1e-3
    )
    torch.testing.assert_close(
        proposals.objectness_logits.sigmoid().double(), torch.tensor(scores), rtol=1e-3, atol=1e-5
    )

    boxes = torch.tensor(boxes[:3]).float()
    their_pooled = theirs.pool(their_features[0], boxes)
    roi_heads = model.roi_heads
    pooled = roi_heads.parsing_pooler([features["p3"]], [Boxes(boxes)])
    assert_close(pooled, their_pooled)
    part_logits, edge_logits, mious = theirs.parse(their_pooled)
    (parsed,) = roi_heads.parsing_head(pooled, [proposals[:3]])
    assert_close(parsed.pred_part_logits.probabilities(), part_logits.softmax(1))
    assert_close(parsed.pred_edge_logits.probabilities(), edge_logits.softmax(1))
    assert part_logits.shape == (3, 5, 256, 256) and edge_logits.shape == (3, 2, 256, 256)
    assert (0 < mious).all() and (mious < 1).all()
    torch.testing.assert_close(parsed.pred_mious, mious, rtol=1e-4, atol=1e-4)
    # The parts are not all alike, so equality says something.
    assert len(part_logits.argmax(1).unique()) > 2


def test_the_command(tensors, tmp_path, capsys):
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.pth"
    torch.save({"model": tensors, "optimizer": {}, "iteration": 1}, theirs)
    config = tiny_authors_config(**TINY)
    config.model.roi_heads.parsing_pooler.pooler_type = "ROIAlignV2"
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    command = ["convert-weights", "authors", str(theirs), str(ours), "--config-file"]
    assert cli.main([*command, str(tmp_path / "config.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "classes including background (CIHP, VIP: 20, LV-MHP-v2: 59): 5\n" in printed
    assert "not carried over: optimizer, iteration\n" in printed
    # The only setting that is not the authors'.
    assert printed.endswith(
        "set\n  model.roi_heads.parsing_pooler.pooler_type=ROIAlign (is ROIAlignV2)\n"
    )
    model = instantiate(config.model)
    model.load_state_dict(read_weights(ours).tensors)
    weight = model.roi_heads.parsing_head.context.pyramid[3][0].gather[6].weight
    assert torch.equal(weight, tensors["ParsingHead.Head.PGEC.conv5.0.gather.6.weight"])


def test_a_missing_tensor_is_named(tiny_model, tensors):
    del tensors["ParsingHead.Head.feat.0.gn.bias"]
    with pytest.raises(ConversionError, match="nothing in the file fills") as error:
        convert_authors(weight_file(tensors), tiny_model)
    assert "roi_heads.parsing_head.non_local.norm.bias: shape (64,)" in str(error.value)
    assert "theirs.pth" in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "ParsingHead.Head.PGEC.conv6.1.weight",
        "rpn.head.cls_tower.2.weight",  # a ReLU's place
        "backbone.body.layer5.0.conv1.weight",
        "backbone.fpn.fpn_inner1.weight",
        "roi_heads.box.feature_extractor.fc6.weight",
    ],
)
def test_an_unknown_tensor_is_an_error(tiny_model, tensors, name):
    tensors[name] = torch.zeros(3)
    with pytest.raises(ConversionError, match=f"{re.escape(name)}: not known"):
        convert_authors(weight_file(tensors), tiny_model)


def test_a_tensor_the_model_has_no_place_for_is_an_error(tensors):
    config = tiny_authors_config(**TINY)
    config.model.roi_heads.parsing_head.score_head = None
    with pytest.raises(ConversionError, match=r"Tensors without a place \(10\)") as error:
        convert_authors(weight_file(tensors), build_without_memory(config.model))
    assert (
        "ParsingHead.ParsingIoU.Head.convx.0.0.weight: the model of the config has no "
        "roi_heads.parsing_head.score_head.conv1.weight"
    ) in str(error.value)


def test_two_tensors_for_one_parameter_are_an_error(tiny_model, tensors):
    tensors["backbone.body.conv1.weight"] = tensors["backbone.body.stem.conv1.weight"]
    with pytest.raises(ConversionError, match="is for backbone.bottom_up.stem.conv1.weight, as is"):
        convert_authors(weight_file(tensors), tiny_model)


def test_a_tensor_of_another_shape_is_named_with_both(tiny_model, tensors):
    name = "ParsingHead.ParsingIoU.Head.convx.0.0.weight"
    tensors[name] = torch.zeros(8, 70, 3, 3)
    with pytest.raises(ConversionError, match=r"Tensors of another shape \(1\)") as error:
        convert_authors(weight_file(tensors), tiny_model)
    assert f"{name}: shape (8, 70, 3, 3), expected (8, 69, 3, 3) for roi_heads" in str(error.value)


def test_a_tensor_of_the_right_size_but_another_shape_is_not_reshaped(tiny_model, tensors):
    name = "ParsingHead.ParsingIoU.Head.parsingiou_fc1.weight"
    tensors[name] = tensors[name].flatten()
    with pytest.raises(ConversionError, match="Tensors of another shape"):
        convert_authors(weight_file(tensors), tiny_model)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": 59}, r"background.*: 59 in the file, 5 by.*parsing_head\.num_classes"),
        ({"blocks": (2, 1, 4, 1)}, r"2, 1, 4, 1 in the file, 2, 1, 2, 1 by.*bottom_up\.stages"),
        ({"groups": 2}, r"groups .*: 2 in the file, 1 by"),
        ({"fpn": 64}, r"FPN .*: 64 in the file, 32 by the config's model\.backbone\.out_channels"),
        ({"towers": 3}, r"32, 32, 32 in the file, 32, 32 by.*head\.num_convs"),
        ({"trunk": 32}, r"context module: 32 in the file, 64 by.*context\.out_channels"),
        ({"shared": 2}, r"64, 64 in the file, 64, 64, 64 by.*parsing_head\.conv_dims"),
    ],
    ids=str,
)
def test_another_architecture_is_named_with_the_key_to_change(tiny_model, change, message):
    shapes = authors_shapes(**{**TINY, **change})
    with pytest.raises(ConversionError, match="another architecture") as error:
        convert_authors(weight_file(weightless(shapes)), tiny_model)
    assert re.search(message, str(error.value))


def test_what_is_no_parameter_is_dropped_by_name(tiny_model, tensors):
    tensors["rpn.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    tensors["backbone.body.stem.bn1.num_batches_tracked"] = torch.tensor(7)
    file = WeightFile("theirs.pth", tensors, ("optimizer", "scheduler", "iteration"))
    conversion, _ = convert_authors(file, tiny_model)
    assert conversion.dropped == (
        "rpn.anchor_generator.cell_anchors.0",
        "backbone.body.stem.bn1.num_batches_tracked",
        "optimizer",
        "scheduler",
        "iteration",
    )


def test_half_precision_becomes_single(tiny_model, tensors):
    halves = {n: t if n.endswith("var") else t.half() for n, t in tensors.items()}
    conversion, _ = convert_authors(weight_file(halves), tiny_model)
    assert {t.dtype for t in conversion.weights.values()} == {torch.float32}


def test_a_variance_of_zero_is_an_error(tiny_model, tensors):
    tensors["backbone.body.layer1.0.bn2.running_var"][1] = 0
    with pytest.raises(ConversionError, match=r"layer1\.0\.bn2\.running_var is not positive"):
        convert_authors(weight_file(tensors), tiny_model)


def test_absorbed_eps_reproduces_any_variance():
    variance = torch.logspace(-12, 4, 200)
    weight = torch.linspace(-2, 2, 200)
    new_weight, new_variance = absorb_eps(weight, variance, 1e-5)
    assert new_weight.dtype == new_variance.dtype == torch.float32
    assert (new_variance >= 0).all()
    # In single precision, as the norm computes it.
    torch.testing.assert_close(
        new_weight * (new_variance + 1e-5).rsqrt(), weight * variance.rsqrt(), rtol=1e-6, atol=0
    )
    usual = variance > 1.1e-5
    assert torch.equal(new_weight[usual], weight[usual])
    # Detectron2's own weights without statistics: a variance of 1 becomes 1 - eps.
    assert absorb_eps(torch.ones(1), torch.ones(1), 1e-5)[1].item() == pytest.approx(1 - 1e-5)

"""The whole model, with few channels: degenerate batches, output fields and batching."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from tiny_models import NUM_CLASSES, make_input, tiny_lazy_model
from torch import nn

from aiparsing_d2.modeling import parsing_postprocess
from aiparsing_d2.modeling.proposal_generator.fcos_targets import feature_locations
from aiparsing_d2.structures import PartMaps, ROIPartLogits

LOSSES = {
    "loss_fcos_cls",
    "loss_fcos_box",
    "loss_fcos_centerness",
    "loss_parsing",
    "loss_edge",
    "loss_miou",
    "loss_miou_score",
}
PEOPLE = [[10.0, 10.0, 60.0, 90.0], [50.0, 20.0, 110.0, 95.0]]


def build():
    torch.manual_seed(0)
    return instantiate(tiny_lazy_model())


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def detecting_model():
    """Untrained, but with clearly different predictions for different pixels."""
    model = build().eval()
    head = model.proposal_generator.head
    for conv, std in ((head.cls_logits, 0.5), (head.centerness, 0.5), (head.box_pred, 0.05)):
        nn.init.normal_(conv.weight, std=std)
    nn.init.constant_(head.box_pred.bias, 3.0)  # distances around 20 px
    nn.init.normal_(model.roi_heads.parsing_head.parsing_predictor.weight, std=0.2)
    nn.init.constant_(model.roi_heads.parsing_head.score_head.predictor.bias, 0.5)
    return model


def train_step(model, batch):
    model.train()
    model.zero_grad(set_to_none=True)
    with EventStorage():
        losses = model(batch)
    assert set(losses) == LOSSES
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    return {name: loss.item() for name, loss in losses.items()}


@pytest.mark.parametrize(
    "batch",
    [
        [make_input(96, 128, PEOPLE)],
        [make_input(96, 128, PEOPLE), make_input(130, 75, [[5.0, 5.0, 70.0, 120.0]], seed=1)],
        [make_input(96, 128, PEOPLE), make_input(96, 128, [])],
    ],
    ids=["one image", "different sizes", "an image without people"],
)
def test_training_on_people(model, batch):
    losses = train_step(model, batch)
    assert all(loss > 0 for loss in losses.values())


def test_training_on_exactly_one_roi(model):
    seen = []
    hook = model.roi_heads.parsing_head.register_forward_pre_hook(
        lambda _, args: seen.append(args[0])
    )
    losses = train_step(model, [make_input(96, 128, PEOPLE[:1])])
    hook.remove()
    assert [len(pooled) for pooled in seen] == [1]
    assert all(loss > 0 for loss in losses.values())


PARSING_LOSSES = LOSSES - {"loss_fcos_cls", "loss_fcos_box", "loss_fcos_centerness"}


@pytest.mark.parametrize(
    "batch",
    [
        [make_input(96, 128, [])],
        [make_input(96, 128, []), make_input(64, 64, [])],
        [make_input(96, 128, [[20.0, 20, 20, 60], [30.0, 30, 30, 30]])],
        [make_input(96, 128, [[200.0, 200, 260, 300], [-90.0, -90, -20, -10]])],
    ],
    ids=["nobody", "nobody in two images", "boxes without area", "boxes outside the image"],
)
def test_training_without_anybody_to_parse(model, batch):
    losses = train_step(model, batch)
    assert losses["loss_fcos_cls"] > 0
    # A box outside the image is its own proposal; there is nothing to see but background.
    outside = len(batch[0]["instances"]) and batch[0]["instances"].gt_boxes.area().all()
    if not outside:
        assert all(losses[name] == 0 for name in PARSING_LOSSES)


def test_training_with_nothing_but_ignored_pixels(model):
    losses = train_step(model, [make_input(96, 128, PEOPLE, ignored=True)])
    assert losses["loss_fcos_box"] > 0
    everything = make_input(96, 128, [[0.0, 0.0, 128.0, 96.0]], ignored=True)
    losses = train_step(model, [everything])
    assert all(losses[name] == 0 for name in PARSING_LOSSES)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_gives_the_losses_of_full_precision(model, dtype):
    batch = [make_input(96, 128, PEOPLE), make_input(96, 128, [])]
    expected = train_step(model, batch)
    with torch.autocast("cpu", dtype=dtype):
        losses = train_step(model, batch)
    # The predicted mIoU starts near 0, so its small squared error is compared absolutely.
    assert losses == pytest.approx(expected, rel=0.01, abs=0.001)


class NearlyRightHead(nn.Module):
    """Detects one known person from every location inside, each box a little off."""

    def __init__(self, box, strides):
        super().__init__()
        self.box, self.strides = box, strides
        self.offset = nn.Parameter(torch.zeros(4))

    def forward(self, features):
        logits, distances, centerness = [], [], []
        for feature, stride in zip(features, self.strides):
            n, _, height, width = feature.shape
            x, y = feature_locations(height, width, stride, feature.device).unbind(1)
            x0, y0, x1, y1 = self.box
            sides = torch.stack([x - x0, y - y0, x1 - x, y1 - y], dim=1)
            inside = sides.amin(dim=1) > 0
            noise = torch.linspace(0, 9, len(x))[:, None] * torch.tensor([1.0, -1.0, -1.0, 1.0])
            predicted = (sides + noise + self.offset).clamp(min=0.1)
            shape = (n, -1, height, width)
            logits.append(torch.where(inside, 3.0, -9.0).expand(n, 1, -1).reshape(shape))
            distances.append(predicted.T.expand(n, 4, -1).reshape(shape))
            centerness.append(torch.zeros_like(logits[-1]) + self.offset.sum())
        return logits, distances, centerness


def test_a_working_detectors_boxes_train_the_parsing_branch():
    model = build().train()
    generator = model.proposal_generator
    generator.nms_thresh = 0.99
    box = [10.0, 10.0, 100.0, 90.0]
    generator.head = NearlyRightHead(box, generator.strides)
    seen = []
    model.roi_heads.parsing_head.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    with EventStorage():
        losses = model([make_input(96, 128, [box])])
    ((sampled,),) = seen
    boxes = sampled.proposal_boxes.tensor
    assert len(boxes) == 16
    assert not boxes.requires_grad
    assert (boxes != torch.tensor(box)).any(dim=1).sum() >= 15
    assert sampled.objectness_logits.requires_grad is False
    # The parsing losses do not move the boxes.
    parsing = sum(losses[name] for name in PARSING_LOSSES)
    assert torch.autograd.grad(parsing, generator.head.offset, allow_unused=True) == (None,)
    assert torch.autograd.grad(losses["loss_fcos_box"], generator.head.offset)[0].any()


FIELDS = {
    "pred_boxes",
    "scores",
    "box_scores",
    "pred_classes",
    "pred_mious",
    "pred_part_maps",
    "pred_part_scores",
    "pred_masks",
}


def check_fields(instances, image_size):
    n = len(instances)
    assert instances.image_size == image_size
    assert set(instances.get_fields()) == FIELDS
    assert isinstance(instances.pred_boxes, Boxes)
    assert instances.pred_boxes.tensor.shape == (n, 4)
    for name in ("scores", "box_scores", "pred_mious"):
        assert instances.get(name).shape == (n,)
        assert instances.get(name).dtype == torch.float32
    assert instances.pred_classes.dtype == torch.int64
    assert isinstance(instances.pred_part_maps, PartMaps)
    assert instances.pred_part_maps.image_size == image_size
    assert instances.pred_part_maps.to_full().shape == (n, *image_size)
    assert instances.pred_part_scores.shape == (n, NUM_CLASSES)


@torch.no_grad()
def test_no_detections(model):
    # The prior of 0.01 is below the threshold of 0.03.
    outputs = model.eval()([make_input(96, 128), make_input(64, 70, seed=1)])
    for output, size in zip(outputs, [(96, 128), (64, 70)]):
        assert len(output["instances"]) == 0
        check_fields(output["instances"], size)


@torch.no_grad()
def test_outputs_are_at_the_original_size(detecting_model):
    image = make_input(96, 128)
    (plain,) = detecting_model([image])
    (scaled,) = detecting_model([{**image, "height": 192, "width": 384}])
    plain, scaled = plain["instances"], scaled["instances"]
    check_fields(plain, (96, 128))
    check_fields(scaled, (192, 384))
    assert 0 < len(plain) <= 50
    torch.testing.assert_close(
        scaled.pred_boxes.tensor, plain.pred_boxes.tensor * torch.tensor([3.0, 2.0, 3.0, 2.0])
    )
    torch.testing.assert_close(scaled.scores, plain.scores)
    torch.testing.assert_close(
        plain.scores, (plain.box_scores * plain.pred_mious).sqrt(), rtol=1e-6, atol=0
    )
    assert plain.pred_part_maps.to_full().unique().numel() > 2
    # No person's map leaves the pixels that the box touches.
    for window, box in zip(scaled.pred_part_maps.windows, scaled.pred_boxes.tensor):
        assert torch.all(window[:2] <= box[:2]) and torch.all(window[:2] > box[:2] - 1)
        assert torch.all(window[2:] >= box[2:]) and torch.all(window[2:] < box[2:] + 1)


def assert_equal_instances(actual, expected):
    assert len(actual) == len(expected)
    for name in FIELDS - {"pred_boxes", "pred_part_maps", "pred_part_scores", "pred_masks"}:
        torch.testing.assert_close(actual.get(name), expected.get(name), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        actual.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-4, atol=1e-3
    )
    different = actual.pred_part_maps.to_full() != expected.pred_part_maps.to_full()
    assert different.float().mean() < 1e-4  # rounding where two classes tie
    torch.testing.assert_close(
        actual.pred_part_scores, expected.pred_part_scores, rtol=1e-3, atol=1e-3
    )


@torch.no_grad()
def test_a_batch_of_one_size_equals_its_images_alone(detecting_model):
    images = [make_input(96, 128, seed=i) for i in range(3)]
    alone = [detecting_model([image])[0]["instances"] for image in images]
    assert len({len(instances) for instances in alone} | {0}) > 1
    together = detecting_model(images)
    for output, expected in zip(together, alone):
        assert_equal_instances(output["instances"], expected)


@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other(detecting_model):
    """Of different sizes: the largest needs no padding, a smaller one is padded with the mean."""
    large, small = make_input(96, 128, seed=0), make_input(70, 90, seed=1)
    (alone,) = detecting_model([large])
    first, second = detecting_model([large, small])
    assert_equal_instances(first["instances"], alone["instances"])
    check_fields(second["instances"], (70, 90))
    assert len(second["instances"]) > 0
    _, beside_another = detecting_model([make_input(96, 128, seed=2), small])
    assert_equal_instances(beside_another["instances"], second["instances"])


@torch.no_grad()
def test_raw_outputs_can_be_completed_later(detecting_model):
    image = make_input(96, 128)
    (raw,) = detecting_model.inference([image], do_postprocess=False)
    assert isinstance(raw.pred_part_logits, ROIPartLogits)
    boxes = raw.pred_boxes.tensor.clone()
    parsing_postprocess(raw, 50, 60)
    assert torch.equal(raw.pred_boxes.tensor, boxes)
    (expected,) = detecting_model([{**image, "height": 192, "width": 384}])
    assert_equal_instances(parsing_postprocess(raw, 192, 384), expected["instances"])


@torch.no_grad()
def test_given_boxes_can_be_parsed(detecting_model):
    given = Instances(
        (96, 128),
        pred_boxes=Boxes(torch.tensor(PEOPLE)),
        pred_classes=torch.zeros(2, dtype=torch.int64),
        scores=torch.tensor([0.9, 0.5]),
    )
    (output,) = detecting_model.inference([make_input(96, 128)], detected_instances=[given])
    check_fields(output["instances"], (96, 128))
    assert output["instances"].pred_boxes.tensor.tolist() == PEOPLE
    torch.testing.assert_close(output["instances"].box_scores, torch.tensor([0.9, 0.5]))


@torch.no_grad()
def test_edges_on_request():
    config = tiny_lazy_model()
    config.roi_heads.parsing_head.edges_at_test = True
    config.proposal_generator.score_thresh = 0.0
    torch.manual_seed(0)
    model = instantiate(config).eval()
    (output,) = model([make_input(96, 128)])
    edges = output["instances"].pred_edges
    assert isinstance(edges, PartMaps) and len(edges) == len(output["instances"]) > 0
    assert set(edges.to_full().unique().tolist()) <= {0, 1}
    assert not output["instances"].has("pred_edge_logits")


def test_empty_boxes_are_dropped_by_postprocessing():
    instances = Instances(
        (96, 128),
        pred_boxes=Boxes(
            torch.tensor([[10.0, 10, 10, 20], [10.0, 10, 30, 40], [200.0, 0, 210, 9]])
        ),
        scores=torch.tensor([0.1, 0.2, 0.3]),
        pred_part_logits=ROIPartLogits(torch.randn(3, NUM_CLASSES, 4, 4)),
    )
    result = parsing_postprocess(instances, 96, 128)
    assert result.scores.tolist() == pytest.approx([0.2])
    assert len(result.pred_part_maps) == 1


def test_boxes_are_moved_toward_where_the_parts_end():
    """A side of 4 cells in a box 20 wide: columns have their centres at 2.5, 7.5, 12.5, 17.5."""
    background = torch.tensor([0.9, 0.4, 0.2, 1.0])  # of each column of the first person
    logits = torch.full((2, NUM_CLASSES, 4, 4), -20.0)
    logits[0, 0] = background.log()
    logits[0, 1:3] = ((1 - background) / 2 + 1e-9).log()  # neither part alone exceeds one half
    logits[1, 0] = 20  # nowhere
    instances = Instances(
        (96, 128),
        pred_boxes=Boxes(torch.tensor([[10.0, 10, 30, 50], [50.0, 10, 70, 50]])),
        scores=torch.tensor([0.2, 0.1]),
        pred_part_logits=ROIPartLogits(logits),
    )
    result = parsing_postprocess(instances, 96, 128, part_box_weight=0.5)
    left = 10 + 2.5 + 5 * 0.8  # 0.1 at the first column, 0.6 at the second: 0.5 at 0.8 of the way
    right = 10 + 12.5 + 5 * 0.375  # from 0.8 down to 0
    expected = [[(10 + left) / 2, 10, (30 + right) / 2, 50], [50, 10, 70, 50]]
    torch.testing.assert_close(result.pred_boxes.tensor, torch.tensor(expected))
    as_paper = parsing_postprocess(instances, 96, 128)
    assert torch.equal(as_paper.pred_boxes.tensor, instances.pred_boxes.tensor)
    assert torch.equal(as_paper.pred_part_maps.to_full(), result.pred_part_maps.to_full())
    inclusive = parsing_postprocess(instances, 96, 128, inclusive_boxes=True, part_box_weight=1)
    assert inclusive.pred_boxes.tensor[0, 0] == pytest.approx(10 + (left - 10) / 20 * 21)


def test_upsampling_keeps_where_people_end():
    """Against the tight box of what is more likely a person at the upsampled resolution."""
    generator = torch.Generator().manual_seed(0)
    x, y, x_radius, y_radius = (torch.rand(4, 20, 1, 1, generator=generator) * 2 + 2).unbind()
    cells = torch.arange(9.0)
    logits = torch.zeros(20, 2, 9, 9)
    logits[:, 1] = 1 - ((cells - x) / x_radius) ** 2 - ((cells[:, None] - y) / y_radius) ** 2
    part_logits = ROIPartLogits(logits, upsample_factor=8)
    likely = part_logits.probabilities()[:, 1] > 0.5
    boxes = torch.tensor([[0.0, 0, 72, 72]]).repeat(20, 1)
    for person, found in zip(likely, part_logits.person_boxes(boxes)):
        ys, xs = person.nonzero(as_tuple=True)
        tight = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert (found - tight).abs().max() < 2  # of 72 cells


@torch.no_grad()
def test_weight_of_the_parts_ends_is_a_key(monkeypatch):
    config = tiny_lazy_model()
    config.proposal_generator.score_thresh = 0.0
    config.part_box_weight = 0.5
    monkeypatch.setattr(ROIPartLogits, "person_boxes", lambda self, boxes: boxes + 2)
    model = instantiate(config).eval()
    image = make_input(96, 128)
    moved = model([image])[0]["instances"].pred_boxes.tensor
    (raw,) = model.inference([image], do_postprocess=False)
    assert len(moved) > 0
    torch.testing.assert_close(moved, raw.pred_boxes.tensor + 1)
    config.part_box_weight = 1.5
    with pytest.raises(ValueError, match=r"part_box_weight must be in 0\.\.1, got 1\.5"):
        instantiate(config)

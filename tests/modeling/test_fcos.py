"""The proposal generator: head, losses over a batch, and decoding."""

import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage
from tiny_models import make_person_instances
from torch import nn

from aiparsing_d2.modeling import FCOSHead, FCOSProposalGenerator


class FixedHead(nn.Module):
    """Gives the same predictions whatever the features are."""

    def __init__(self, logits, distances, centerness):
        super().__init__()
        self.predictions = nn.ParameterList([*logits, *distances, *centerness])
        self.num_levels = len(logits)

    def forward(self, features):
        n = self.num_levels
        p = list(self.predictions)
        return p[:n], p[n : 2 * n], p[2 * n :]


def make_generator(logits, distances, centerness, **kwargs):
    """Two levels of stride 8 and 16 over a 32 x 48 image."""
    defaults = {
        "in_features": ["p3", "p4"],
        "strides": [8, 16],
        "size_ranges": [(-1.0, 16.0), (16.0, math.inf)],
    }
    generator = FCOSProposalGenerator(
        head=FixedHead(logits, distances, centerness), **{**defaults, **kwargs}
    )
    return generator.eval()


def blank_predictions(num_images=1):
    """No location reaches the threshold; every box is 8 x 8 around its location."""
    shapes = [(4, 6), (2, 3)]
    logits = [torch.full((num_images, 1, *s), -10.0) for s in shapes]
    distances = [torch.full((num_images, 4, *s), 4.0) for s in shapes]
    centerness = [torch.zeros((num_images, 1, *s)) for s in shapes]
    return logits, distances, centerness


def propose(generator, num_images=1, image_size=(32, 48)):
    images = ImageList(torch.zeros(num_images, 3, 32, 48), [image_size] * num_images)
    features = {"p3": torch.zeros(num_images, 1, 4, 6), "p4": torch.zeros(num_images, 1, 2, 3)}
    return generator(images, features)[0]


def logit(p):
    return math.log(p / (1 - p))


def test_a_location_decodes_to_its_box_and_product_score():
    logits, distances, centerness = blank_predictions()
    logits[0][0, 0, 2, 3] = logit(0.8)  # at (28, 20)
    distances[0][0, :, 2, 3] = torch.tensor([3.0, 5.0, 7.0, 9.0])
    centerness[0][0, 0, 2, 3] = logit(0.5)
    logits[1][0, 0, 0, 1] = logit(0.6)  # at (24, 8)
    centerness[1][0, 0, 0, 1] = logit(0.9)
    (proposals,) = propose(make_generator(logits, distances, centerness))
    torch.testing.assert_close(
        proposals.proposal_boxes.tensor, torch.tensor([[20.0, 4, 28, 12], [25.0, 15, 35, 29]])
    )
    torch.testing.assert_close(
        proposals.objectness_logits, torch.tensor([logit(0.54), logit(0.4)]), rtol=1e-4, atol=1e-4
    )
    assert proposals.image_size == (32, 48)


def test_threshold_comes_before_centerness():
    logits, distances, centerness = blank_predictions()
    logits[0][0, 0, 1, 1] = logit(0.031)
    centerness[0][0, 0, 1, 1] = logit(0.01)
    logits[0][0, 0, 3, 4] = logit(0.029)
    centerness[0][0, 0, 3, 4] = logit(0.999)
    (proposals,) = propose(make_generator(logits, distances, centerness))
    assert proposals.proposal_boxes.tensor.tolist() == [[8, 8, 16, 16]]
    assert proposals.objectness_logits.sigmoid().item() == pytest.approx(0.00031, rel=1e-4)


def test_each_level_keeps_its_best_by_the_product():
    logits, distances, centerness = blank_predictions()
    for column, (cls, ctr) in enumerate([(0.9, 0.1), (0.5, 0.8), (0.6, 0.5), (0.4, 0.9)]):
        logits[0][0, 0, 0, column] = logit(cls)
        centerness[0][0, 0, 0, column] = logit(ctr)
    logits[1][0, 0, 1, 2] = logit(0.05)
    (proposals,) = propose(make_generator(logits, distances, centerness, pre_nms_topk=2))
    scores = proposals.objectness_logits.sigmoid()
    torch.testing.assert_close(scores, torch.tensor([0.40, 0.36, 0.025]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("second_width, kept", [(16.6, 1), (16.7, 2)])
def test_nms_suppresses_above_its_threshold(second_width, kept):
    # Boxes of the same corner and height, widths 10 and w: IoU = 10 / w, 0.6 at w = 16.67.
    logits, distances, centerness = blank_predictions()
    for column, width, p in [(0, 10.0, 0.9), (1, second_width, 0.8)]:
        x = 4 + 8 * column
        logits[0][0, 0, 0, column] = logit(p)
        distances[0][0, :, 0, column] = torch.tensor([x, 4, width - x, 6])
    (proposals,) = propose(make_generator(logits, distances, centerness))
    assert len(proposals) == kept


def test_number_of_proposals_differs_between_training_and_test():
    logits, distances, centerness = blank_predictions()
    logits[0] = torch.linspace(0.0, 1.0, 24).view(1, 1, 4, 6)
    generator = make_generator(logits, distances, centerness, post_nms_topk=(5, 3))
    (at_test,) = propose(generator)
    assert len(at_test) == 3
    assert at_test.proposal_boxes.tensor[0].tolist() == [40, 24, 48, 32]  # the last location
    generator.train()
    with EventStorage():
        (training,), _ = generator(
            ImageList(torch.zeros(1, 3, 32, 48), [(32, 48)]),
            {"p3": torch.zeros(1, 1, 4, 6), "p4": torch.zeros(1, 1, 2, 3)},
            [make_person_instances((32, 48), [])],
        )
    assert len(training) == 5
    assert not training.proposal_boxes.tensor.requires_grad
    assert not training.objectness_logits.requires_grad
    assert FCOSProposalGenerator(in_features=["p"] * 5, head=nn.Identity()).post_nms_topk == (
        100,
        50,
    )


def test_boxes_are_clipped_and_those_outside_dropped():
    logits, distances, centerness = blank_predictions()
    logits[0][0, 0, 0, 0] = 0.0
    distances[0][0, :, 0, 0] = 1000.0
    logits[0][0, 0, 3, 5] = 1.0  # at (44, 28), in the padding of a 24 x 40 image
    (proposals,) = propose(make_generator(logits, distances, centerness), image_size=(24, 40))
    assert proposals.proposal_boxes.tensor.tolist() == [[0, 0, 40, 24]]


def test_inclusive_boxes_end_at_the_last_pixel_and_are_never_empty():
    logits, distances, centerness = blank_predictions()
    logits[0][0, 0, 0, 0] = 0.0
    distances[0][0, :, 0, 0] = 1000.0
    logits[0][0, 0, 3, 5] = 1.0  # at (44, 28), in the padding of a 24 x 40 image
    generator = make_generator(logits, distances, centerness, inclusive_boxes=True)
    (proposals,) = propose(generator, image_size=(24, 40))
    assert proposals.proposal_boxes.tensor.tolist() == [[39, 23, 39, 23], [0, 0, 39, 23]]


@pytest.mark.parametrize("second_width, kept", [(17.3, 1), (17.4, 2)])
def test_nms_of_inclusive_boxes_counts_their_last_pixels(second_width, kept):
    # Boxes of the same corner and height, widths 10 + 1 and w + 1: IoU 0.6 at w = 17.33.
    logits, distances, centerness = blank_predictions()
    for column, width, p in [(0, 10.0, 0.9), (1, second_width, 0.8)]:
        x = 4 + 8 * column
        logits[0][0, 0, 0, column] = logit(p)
        distances[0][0, :, 0, column] = torch.tensor([x, 4, width - x, 6])
    generator = make_generator(logits, distances, centerness, inclusive_boxes=True)
    (proposals,) = propose(generator)
    assert len(proposals) == kept


def test_images_of_a_batch_are_decoded_apart():
    logits, distances, centerness = blank_predictions(num_images=3)
    logits[0][0, 0, 1, 1] = 0.0
    logits[0][2, 0, 2, 2] = 0.0
    first, second, third = propose(make_generator(logits, distances, centerness), num_images=3)
    assert first.proposal_boxes.tensor.tolist() == [[8, 8, 16, 16]]
    assert len(second) == 0
    assert second.proposal_boxes.tensor.shape == (0, 4)
    assert second.objectness_logits.shape == (0,)
    assert third.proposal_boxes.tensor.tolist() == [[16, 16, 24, 24]]


@pytest.mark.parametrize("inclusive, right, bottom", [(False, 48, 32), (True, 47, 31)])
def test_a_distance_that_overflowed_reaches_the_border(inclusive, right, bottom):
    logits, distances, centerness = blank_predictions()
    logits[0][0, 0, 1, 1] = 2.0  # at (12, 12)
    distances[0][0, :, 1, 1] = torch.tensor([5.0, 7, math.inf, 4])
    logits[1][0, 0, 0, 2] = 1.0
    distances[1][0, :, 0, 2] = math.inf
    generator = make_generator(logits, distances, centerness, inclusive_boxes=inclusive)
    (proposals,) = propose(generator)
    assert proposals.proposal_boxes.tensor.tolist() == [[7, 5, right, 16], [0, 0, right, bottom]]


@pytest.mark.parametrize("training", [False, True])
def test_a_box_that_is_not_a_number_is_dropped(training):
    logits, distances, centerness = blank_predictions()
    logits[0][0, 0, :3, 0] = 2.0
    distances[0][0, 2, 0, 0] = math.nan
    centerness[0][0, 0, 2, 0] = math.nan
    generator = make_generator(logits, distances, centerness)
    if not training:
        (proposals,) = propose(generator)
    else:
        with EventStorage():
            (proposals,), _ = generator.train()(
                ImageList(torch.zeros(1, 3, 32, 48), [(32, 48)]),
                {"p3": torch.zeros(1, 1, 4, 6), "p4": torch.zeros(1, 1, 2, 3)},
                [make_person_instances((32, 48), [])],
            )
    assert proposals.proposal_boxes.tensor.tolist() == [[0, 8, 8, 16]]


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_distance_that_is_not_finite_shows_in_the_losses(value):
    """A training names the batch by them, and decides in all its processes what to do."""
    logits, distances, centerness = blank_predictions()
    for level in logits:
        level.fill_(2.0)
    for level in distances:
        level.fill_(value)
    generator = make_generator(logits, distances, centerness).train()
    with EventStorage():
        (proposals,), losses = generator(
            ImageList(torch.zeros(1, 3, 32, 48), [(32, 48)]),
            {"p3": torch.zeros(1, 1, 4, 6), "p4": torch.zeros(1, 1, 2, 3)},
            [make_person_instances((32, 48), [[4, 4, 40, 28]])],
        )
    assert proposals.proposal_boxes.tensor.isfinite().all()
    assert not losses["loss_fcos_box"].isfinite()


def batch_losses(boxes_per_image, seed=0, num_ignored=(), **kwargs):
    """``num_ignored`` tells how many of an image's boxes, the last ones, are of class -1."""
    n = len(boxes_per_image)
    ground_truth = [make_person_instances((32, 48), boxes) for boxes in boxes_per_image]
    for instances, num in zip(ground_truth, num_ignored):
        instances.gt_classes[len(instances) - num :] = -1
    torch.manual_seed(seed)
    shapes = [(4, 6), (2, 3)]
    predictions = (
        [torch.randn(n, 1, *s) for s in shapes],
        [1 + 20 * torch.rand(n, 4, *s) for s in shapes],
        [torch.randn(n, 1, *s) for s in shapes],
    )
    generator = make_generator(*predictions, **kwargs).train()
    images = ImageList(torch.zeros(n, 3, 32, 48), [(32, 48)] * n)
    features = {"p3": torch.zeros(n, 1, 4, 6), "p4": torch.zeros(n, 1, 2, 3)}
    with EventStorage():
        _, losses = generator(images, features, ground_truth)
    return losses, predictions, generator


def test_losses_of_a_batch_by_hand():
    """An image with two people and an empty one; locations assigned by hand."""
    # (4, 4, 18, 18): of stride 8, only (12, 12) is strictly inside, at most 8 px from a side; of
    # stride 16, (8, 8) is, but its 10 px are below that level's 16.
    # (8, 0, 48, 32), at least 20 px from one side everywhere, too far for stride 8: of stride 16,
    # (24, 8), (40, 8), (24, 24) and (40, 24) are inside, within 24 px of the centre (28, 16).
    losses, (logits, distances, centerness), _ = batch_losses(
        [[[4, 4, 18, 18], [8, 0, 48, 32]], []]
    )
    assigned = {
        (0, 1, 1): (4, 4, 18, 18),
        (1, 0, 1): (8, 0, 48, 32),
        (1, 0, 2): (8, 0, 48, 32),
        (1, 1, 1): (8, 0, 48, 32),
        (1, 1, 2): (8, 0, 48, 32),
    }
    focal = center = box = weights = 0.0
    for image in range(2):
        for level, stride in ((0, 8), (1, 16)):
            for row in range(4 // (level + 1)):
                for column in range(6 // (level + 1)):
                    cell = (image, slice(None), row, column)
                    p = torch.sigmoid(logits[level][cell]).item()
                    person = assigned.get((level, row, column)) if image == 0 else None
                    if person is None:
                        focal -= 0.75 * p**2 * math.log(1 - p)
                        continue
                    focal -= 0.25 * (1 - p) ** 2 * math.log(p)
                    x, y = (s * stride + stride // 2 for s in (column, row))
                    l, t, r, b = (  # noqa: E741
                        x - person[0],
                        y - person[1],
                        person[2] - x,
                        person[3] - y,
                    )
                    target = math.sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))
                    c = torch.sigmoid(centerness[level][cell]).item()
                    center -= target * math.log(c) + (1 - target) * math.log(1 - c)
                    pl, pt, pr, pb = distances[level][cell].tolist()
                    shared = (min(l, pl) + min(r, pr)) * (min(t, pt) + min(b, pb))
                    union = (l + r) * (t + b) + (pl + pr) * (pt + pb) - shared
                    hull = (max(l, pl) + max(r, pr)) * (max(t, pt) + max(b, pb))
                    box += target * (1 - shared / union + (hull - union) / hull)
                    weights += target
    assert losses["loss_fcos_cls"].item() == pytest.approx(focal / (5 + 2), rel=1e-5)
    assert losses["loss_fcos_box"].item() == pytest.approx(box / weights, rel=1e-5)
    assert losses["loss_fcos_centerness"].item() == pytest.approx(center / 5, rel=1e-5)


@pytest.mark.parametrize(
    "ignore_box, left_out",  # (level, row, column) of the locations strictly inside
    [
        # Of stride 8, x and y of 12, 20 and 28, of which (12, 12) is the person's; of 16, (24, 24).
        (
            [10, 10, 30, 30],
            [(0, r, c) for r in (1, 2, 3) for c in (1, 2, 3) if (r, c) != (1, 1)] + [(1, 1, 1)],
        ),
        ([12, 12, 28, 28], [(0, 2, 2), (1, 1, 1)]),
        ([13, 13, 19, 19], []),
    ],
)
def test_locations_in_ignore_boxes_count_in_no_loss(ignore_box, left_out):
    person = [4, 4, 18, 18]  # has the location (12, 12) of stride 8, as above
    without, (logits, _, _), _ = batch_losses([[person], []])
    losses, _, generator = batch_losses([[person, ignore_box], []], num_ignored=[1])
    probabilities = [torch.sigmoid(logits[level][0, 0, r, c]).item() for level, r, c in left_out]
    left_out_sum = sum(-0.75 * p**2 * math.log(1 - p) for p in probabilities)
    # One positive location and two images, with and without the ignore box.
    expected = without["loss_fcos_cls"].item() - left_out_sum / (1 + 2)
    assert losses["loss_fcos_cls"].item() == pytest.approx(expected, rel=1e-5)
    for name in ("loss_fcos_box", "loss_fcos_centerness"):
        assert losses[name] == without[name]
    losses["loss_fcos_cls"].backward()
    for level, parameter in enumerate(generator.head.predictions[:2]):
        zeros = {(level, r, c) for r, c in (parameter.grad[0, 0] == 0).nonzero().tolist()}
        assert zeros == {cell for cell in left_out if cell[0] == level}
        assert (parameter.grad[1] != 0).all()  # the same places of the other image


def test_an_image_of_ignored_people_only():
    losses, _, _ = batch_losses([[[0, 0, 48, 32]]], num_ignored=[1])
    assert [loss.item() for loss in losses.values()] == [0, 0, 0]


def test_loss_weights():
    boxes = [[[4, 4, 18, 18]]]
    plain, _, _ = batch_losses(boxes)
    tripled, _, _ = batch_losses(boxes, loss_weight=3.0)
    one, _, _ = batch_losses(boxes, loss_weight={"loss_fcos_box": 0.5})
    for name, loss in plain.items():
        assert tripled[name].item() == pytest.approx(3 * loss.item())
        factor = 0.5 if name == "loss_fcos_box" else 1.0
        assert one[name].item() == pytest.approx(factor * loss.item())


def test_weights_of_losses_that_there_are_not():
    with pytest.raises(ValueError, match="names loss_fcos_bbox; .*loss_fcos_box, loss_fcos_cent"):
        batch_losses([[]], loss_weight={"loss_fcos_bbox": 0.5, "loss_fcos_cls": 1.0})


def test_losses_without_people_reach_every_prediction():
    losses, _, generator = batch_losses([[], []])
    assert losses["loss_fcos_box"] == 0 and losses["loss_fcos_centerness"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())


def test_training_needs_ground_truth():
    generator = make_generator(*blank_predictions()).train()
    with pytest.raises(ValueError, match="needs gt_instances"):
        propose(generator)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"strides": [8]}, "one stride and one size range per feature map"),
        ({"size_ranges": [(-1, 64)] * 3}, "one stride and one size range per feature map"),
        ({"box_loss_type": "l1"}, "unknown box loss 'l1'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_generator(*blank_predictions(), **kwargs)


def test_head_starts_at_the_prior_with_unit_scales():
    head = FCOSHead(input_shape=[ShapeSpec(channels=32)] * 2, num_convs=1, prior_prob=0.02)
    logits, distances, centerness = head([torch.zeros(2, 32, 3, 5), torch.zeros(2, 32, 2, 3)])
    assert [tuple(x.shape) for x in logits + distances + centerness] == [
        (2, 1, 3, 5),
        (2, 1, 2, 3),
        (2, 4, 3, 5),
        (2, 4, 2, 3),
        (2, 1, 3, 5),
        (2, 1, 2, 3),
    ]
    # Features of zero leave the biases: probability 0.02, distances exp(0), centre-ness 0.5.
    torch.testing.assert_close(logits[0].sigmoid(), torch.full((2, 1, 3, 5), 0.02))
    assert torch.all(distances[1] == 1) and torch.all(centerness[0] == 0)


def test_head_scales_each_level_before_the_exponential():
    head = FCOSHead(input_shape=[ShapeSpec(channels=32)] * 2, num_convs=1)
    x = torch.randn(1, 32, 3, 5)
    with torch.no_grad():
        head.scales[1].scale.fill_(3.0)
        _, (first, second), _ = head([x, x])
    torch.testing.assert_close(second, first**3)


def test_distances_of_half_precision_predictions_neither_round_nor_overflow():
    """Of a logit of 12 too, as under autocast, which a far side of a large person needs."""
    head = FCOSHead(input_shape=[ShapeSpec(channels=32)], num_convs=0).half()
    with torch.no_grad():
        head.box_pred.bias.copy_(torch.tensor([12.0, 6.0, 1.0, -1.0]))
        _, (distances,), _ = head([torch.zeros(1, 32, 1, 1, dtype=torch.float16)])
    assert distances.dtype == torch.float32
    expected = [math.exp(x) for x in (12, 6, 1, -1)]
    assert distances.flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_distances_are_not_rounded_under_autocast():
    """In bfloat16 5.01 is 5.0, and a side of 150 pixels one of 148."""
    head = FCOSHead(input_shape=[ShapeSpec(channels=32)], num_convs=1)
    with torch.no_grad():
        head.box_pred.weight.zero_()
        head.box_pred.bias.copy_(torch.tensor([5.01, 4.305, 2.003, -1.001]))
        with torch.autocast("cpu", torch.bfloat16):
            logits, (distances,), centerness = head([torch.randn(1, 32, 3, 5)])
            assert torch.is_autocast_enabled("cpu")
    assert {logits[0].dtype, distances.dtype, centerness[0].dtype} == {torch.float32}
    expected = [math.exp(x) for x in (5.01, 4.305, 2.003, -1.001)]
    assert distances[0, :, 1, 2].tolist() == pytest.approx(expected, rel=1e-6)


def test_centerness_is_read_from_the_box_tower():
    head = FCOSHead(input_shape=[ShapeSpec(channels=32)], num_convs=2)
    _, _, (centerness,) = head([torch.randn(1, 32, 3, 5)])
    centerness.sum().backward()
    assert all(p.grad is None for p in head.cls_tower.parameters())
    assert all(p.grad is not None for p in head.box_tower.parameters())


def test_head_refuses_levels_of_different_channels():
    with pytest.raises(ValueError, match="channels differ"):
        FCOSHead(input_shape=[ShapeSpec(channels=32), ShapeSpec(channels=64)])

import math

import pytest
import torch
from torchvision.ops import box_iou, generalized_box_iou

from aiparsing_d2.modeling.proposal_generator.fcos_losses import (
    box_loss,
    centerness_loss,
    classification_loss,
)
from aiparsing_d2.modeling.proposal_generator.fcos_targets import centerness_targets


def test_focal_loss_by_hand():
    logits = torch.tensor([2.0, -1.0, 0.5])
    is_person = torch.tensor([True, False, False])
    p = [1 / (1 + math.exp(-x)) for x in logits.tolist()]
    total = -0.25 * (1 - p[0]) ** 2 * math.log(p[0])
    total += -0.75 * p[1] ** 2 * math.log(1 - p[1])
    total += -0.75 * p[2] ** 2 * math.log(1 - p[2])
    settings = {"alpha": 0.25, "gamma": 2.0}
    all_count = torch.zeros(3, dtype=torch.bool)
    # One positive and two images, or no positive.
    loss = classification_loss(logits, is_person, all_count, 3, **settings)
    assert loss.item() == pytest.approx(total / (1 + 2), rel=1e-5)
    nobody = classification_loss(logits[1:], is_person[1:], all_count[1:], 2, **settings)
    assert nobody.item() > 0  # negatives count without any positive


def test_ignored_locations_are_left_out_of_the_focal_loss_unless_they_are_positive():
    logits = torch.tensor([2.0, -1.0, 0.5], requires_grad=True)
    is_person = torch.tensor([True, False, False])
    is_ignored = torch.tensor([True, True, False])
    p = [1 / (1 + math.exp(-x)) for x in logits.tolist()]
    total = -0.25 * (1 - p[0]) ** 2 * math.log(p[0]) - 0.75 * p[2] ** 2 * math.log(1 - p[2])
    loss = classification_loss(logits, is_person, is_ignored, 3, alpha=0.25, gamma=2.0)
    assert loss.item() == pytest.approx(total / (1 + 2), rel=1e-5)
    loss.backward()
    assert logits.grad[1] == 0 and logits.grad[[0, 2]].abs().min() > 0


@pytest.mark.parametrize(
    "predicted, target, iou_loss, giou_loss",
    [
        # 2x2 inside 4x4.
        ([1.0, 1, 1, 1], [2.0, 2, 2, 2], math.log(4), 0.75),
        # 2x6 across 6x2: intersection 4, union 20, enclosing 36.
        ([1.0, 3, 1, 3], [3.0, 1, 3, 1], math.log(5), 0.8 + 16 / 36),
        ([5.0, 6, 7, 8], [5.0, 6, 7, 8], 0.0, 0.0),
    ],
)
def test_box_losses_by_hand(predicted, target, iou_loss, giou_loss):
    predicted, target = torch.tensor([predicted]), torch.tensor([target])
    weight = torch.tensor([0.5])
    for loss_type, expected in (("iou", iou_loss), ("giou", giou_loss)):
        loss = box_loss(predicted, target, weight, weight.sum(), loss_type)
        assert loss.item() == pytest.approx(expected, abs=1e-6)


def random_distances(n):
    generator = torch.Generator().manual_seed(0)
    predicted, target = 1 + 99 * torch.rand(2, n, 4, generator=generator, dtype=torch.float64)
    x, y = torch.tensor([200.0, 300.0], dtype=torch.float64)
    as_boxes = [
        torch.stack([x - d[:, 0], y - d[:, 1], x + d[:, 2], y + d[:, 3]], dim=1)
        for d in (predicted, target)
    ]
    return predicted, target, *as_boxes


def test_box_losses_equal_torchvision_weighted_by_centerness():
    predicted, target, predicted_boxes, target_boxes = random_distances(50)
    weights = torch.tensor(
        [
            math.sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))
            for l, t, r, b in target.tolist()  # noqa: E741
        ],
        dtype=torch.float64,
    )
    iou = box_iou(predicted_boxes, target_boxes).diagonal()
    giou = generalized_box_iou(predicted_boxes, target_boxes).diagonal()
    for name, losses in (("iou", -iou.log()), ("giou", 1 - giou)):
        expected = (losses * weights).sum() / weights.sum()
        loss = box_loss(predicted, target, centerness_targets(target), weights.sum(), name)
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("loss_type", ["iou", "giou"])
def test_box_loss_stays_finite_at_extreme_predictions(loss_type):
    predicted = torch.tensor([[0.0, 0, 0, 0], [1e-30, 1, 1, 1], [1e8, 1e8, 1e8, 1e8]])
    predicted.requires_grad_()
    loss = box_loss(predicted, torch.full((3, 4), 10.0), torch.ones(3), 3, loss_type)
    loss.backward()
    assert loss.isfinite() and predicted.grad.isfinite().all()


def test_centerness_loss_by_hand():
    logits = torch.tensor([0.3, -2.0])
    distances = torch.tensor([[1.0, 2.0, 3.0, 8.0], [5.0, 7.0, 5.0, 7.0]])
    targets = [math.sqrt(1 / 12), 1.0]
    expected = 0.0
    for x, t in zip(logits.tolist(), targets):
        p = 1 / (1 + math.exp(-x))
        expected -= (t * math.log(p) + (1 - t) * math.log(1 - p)) / 2
    loss = centerness_loss(logits, centerness_targets(distances), 2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_without_positives_the_losses_are_zero_and_connected():
    distances = torch.zeros((0, 4), requires_grad=True)
    logits = torch.zeros(0, requires_grad=True)
    losses = [
        box_loss(distances, torch.zeros(0, 4), torch.zeros(0), 1, "giou"),
        centerness_loss(logits, torch.zeros(0), 1),
    ]
    assert losses == [0, 0]
    sum(losses).backward()
    assert distances.grad is not None and logits.grad is not None


def test_unknown_box_loss():
    with pytest.raises(ValueError, match="unknown box loss 'l1'"):
        box_loss(torch.ones(1, 4), torch.ones(1, 4), torch.ones(1), 1, "l1")

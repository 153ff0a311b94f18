import math

import numpy as np
import pytest
import torch

from aiparsing_d2.modeling.roi_heads import parsing_losses
from aiparsing_d2.modeling.roi_heads.parsing_losses import lovasz_softmax_loss, score_loss


def parsing_loss(logits, target):
    return parsing_losses.parsing_loss(logits, target, (target != 255).sum())


def edge_loss(logits, target):
    return parsing_losses.edge_loss(logits, target, (target == 1).sum(), (target == 0).sum())


LOSSES = [parsing_loss, edge_loss, lovasz_softmax_loss]


def random_case(num_classes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, num_classes, 4, 5, generator=generator, dtype=dtype)
    target = torch.randint(0, num_classes, (3, 4, 5), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return logits, target


def softmax(x):
    exp = [math.exp(v) for v in x]
    return [v / sum(exp) for v in exp]


def counted_pixels(logits, target):
    """(class probabilities, label) of every pixel that counts."""
    pairs = zip(logits.movedim(1, -1).flatten(0, 2).tolist(), target.flatten().tolist())
    return [(softmax(x), label) for x, label in pairs if label != 255]


def test_parsing_loss_is_the_mean_log_likelihood():
    logits, target = random_case(num_classes=4)
    pixels = counted_pixels(logits, target)
    expected = -sum(math.log(p[label]) for p, label in pixels) / len(pixels)
    assert parsing_loss(logits, target).item() == pytest.approx(expected)


def test_edge_loss_by_hand():
    # Four pixels, one of them an edge, and one that does not count: w0 = 1/4, w1 = 3/4.
    probability_of_edge = [0.9, 0.2, 0.5, 0.4, 0.7]
    labels = [1, 0, 0, 0, 255]
    logits = torch.tensor([[0.0, math.log(p / (1 - p))] for p in probability_of_edge])
    loss = edge_loss(logits.T.reshape(1, 2, 1, 5), torch.tensor(labels).view(1, 1, 5))
    total = -3 / 4 * math.log(0.9) - 1 / 4 * (math.log(0.8) + math.log(0.5) + math.log(0.6))
    assert loss.item() == pytest.approx(total / (3 / 4 + 3 * 1 / 4), rel=1e-5)


def test_edge_loss_counts_over_the_whole_batch():
    logits, target = random_case(num_classes=2)
    target[0] = 0  # a RoI without edges does not lose its weight
    pixels = counted_pixels(logits, target)
    num_edge = sum(label for _, label in pixels)
    weights = [num_edge / len(pixels), 1 - num_edge / len(pixels)]
    expected = -sum(weights[y] * math.log(p[y]) for p, y in pixels)
    expected /= sum(weights[y] for _, y in pixels)
    assert edge_loss(logits, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("label", [0, 1, 255])
def test_edge_loss_of_one_kind_of_pixel_is_zero(label):
    logits = torch.randn(2, 2, 3, 3, requires_grad=True)
    loss = edge_loss(logits, torch.full((2, 3, 3), label))
    loss.backward()
    assert loss == 0
    assert torch.all(logits.grad == 0)


def jaccard_loss(wrong, is_class):
    """1 - IoU of a class when exactly the pixels of ``wrong`` are labelled wrongly."""
    return wrong.sum() / (wrong | is_class).sum()


def lovasz_extension(errors, is_class):
    """By its definition as an integral: of the Jaccard loss of {errors >= t}, over t in [0, 1]."""
    total, lower = 0.0, 0.0
    for upper in np.unique(errors):
        total += (upper - lower) * jaccard_loss(errors >= upper, is_class)
        lower = upper
    return total


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_sorted", [1, 110, 1 << 22], ids=["by class", "in pairs", "at once"])
def test_lovasz_loss_equals_its_definition(seed, max_sorted, monkeypatch):
    monkeypatch.setattr(parsing_losses, "_MAX_SORTED", max_sorted)
    logits, target = random_case(num_classes=5, seed=seed)
    target[target == 3] = 0  # a class that is predicted but absent does not count
    pixels = counted_pixels(logits, target)
    probabilities = np.array([p for p, _ in pixels])
    labels = np.array([label for _, label in pixels])
    expected = [
        lovasz_extension(
            np.where(labels == c, 1 - probabilities[:, c], probabilities[:, c]), labels == c
        )
        for c in (0, 1, 2, 4)
    ]
    assert lovasz_softmax_loss(logits, target).item() == pytest.approx(np.mean(expected))


def test_lovasz_loss_of_hard_predictions_is_one_minus_mean_iou():
    target = torch.tensor([[[0, 0, 1, 1], [0, 255, 2, 2]]])
    predicted = torch.tensor([[[0, 1, 1, 1], [0, 1, 2, 0]]])
    logits = 100.0 * torch.nn.functional.one_hot(predicted, 3).movedim(-1, 1)
    # 0: 2 of 4, 1: 2 of 3, 2: 1 of 2.
    expected = 1 - (2 / 4 + 2 / 3 + 1 / 2) / 3
    assert lovasz_softmax_loss(logits, target).item() == pytest.approx(expected)
    perfect = 100.0 * torch.nn.functional.one_hot(target.clamp(max=2), 3).movedim(-1, 1)
    assert lovasz_softmax_loss(perfect, target).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_equal_finite_differences(loss):
    logits, target = random_case(num_classes=2)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits)


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_to_count_gives_zero_with_a_gradient(loss):
    logits = torch.randn(2, 2, 3, 3, requires_grad=True)
    value = loss(logits, torch.full((2, 3, 3), 255))
    value.backward()
    assert value == 0
    assert torch.all(logits.grad == 0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_the_losses(loss, dtype):
    logits, target = random_case(num_classes=2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        under_autocast = loss(logits, target)
    torch.testing.assert_close(under_autocast, loss(logits, target), rtol=1e-6, atol=0)


def test_score_loss_by_hand():
    predicted = torch.tensor([0.5, 0.9, 2.0], requires_grad=True)
    target = torch.tensor([0.25, 1.0, 0.0])  # the last RoI does not count
    loss = score_loss(predicted, target, torch.tensor(2))
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * (0.25**2 + 0.1**2) / 2)
    torch.testing.assert_close(predicted.grad, torch.tensor([0.125, -0.05, 0.0]))


def test_score_loss_without_a_counted_roi_is_zero_with_a_gradient():
    predicted = torch.tensor([0.5], requires_grad=True)
    loss = score_loss(predicted, torch.zeros(1), torch.tensor(0))
    loss.backward()
    assert loss == 0 and predicted.grad == 0


@pytest.mark.parametrize("step", [1, 3])
def test_pixels_that_decide_are_sorted_and_no_other_has_a_slope(step):
    generator = torch.Generator().manual_seed(0)
    errors = (torch.rand(5, 900, generator=generator) * 20).round() / 20  # many are equal
    errors[0], errors[1, 0] = 0, 1e-42
    errors = errors[:, ::step]
    is_class = torch.rand(errors.shape, generator=generator) < 0.01
    is_class[:, 0] = True
    left_out = 0
    for row, own in zip(errors, is_class):
        stable = row.argsort(descending=True, stable=True)
        pixels = parsing_losses._deciding_pixels(row, own)
        assert torch.equal(pixels, stable[: len(pixels)])
        assert not own[stable[len(pixels) :]].any()
        left_out += len(row) - len(pixels)
    assert left_out > 0
    slopes = parsing_losses._jaccard_slopes(errors, is_class)
    of_all = parsing_losses._jaccard_slopes(errors.double(), is_class)  # sorted by torch
    torch.testing.assert_close(slopes, of_all.float())

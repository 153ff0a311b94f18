import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from live_bytes import LiveBytes
from naive_layers import conv2d, group_norm, relu, resize_aligned, softmax, to_array
from torch import nn

from aiparsing_d2.modeling import EdgeGuidedParsingHead, ParsingScoreHead
from aiparsing_d2.modeling.roi_heads import PGEC, NonLocalBlock
from aiparsing_d2.modeling.roi_heads.parsing_losses import edge_loss
from aiparsing_d2.modeling.roi_heads.parsing_targets import edge_targets, part_map_targets
from aiparsing_d2.structures import PartMaps, ROIPartLogits

NUM_CLASSES = 5


def make_head(**kwargs):
    torch.manual_seed(0)
    defaults = {
        "in_channels": 4,
        "num_classes": NUM_CLASSES,
        "context": PGEC(in_channels=4, out_channels=32, roi_size=4, extents=(2,)),
        "non_local": NonLocalBlock(32),
        "conv_dims": [32, 64],
        "score_head": ParsingScoreHead(
            in_channels=64, num_classes=NUM_CLASSES, conv_dim=6, fc_dim=7
        ),
        "upsample_factor": 2,
    }
    head = EdgeGuidedParsingHead(**{**defaults, **kwargs})
    # Predictions of the initial weights hardly differ.
    for predictor in (head.parsing_predictor, head.edge_predictor):
        if predictor is not None:
            nn.init.normal_(predictor.weight, std=0.3)
    if head.score_head is not None:
        nn.init.constant_(head.score_head.predictor.bias, 0.4)  # within [0, 1]
    return head


def make_people(num_people=3, ignored=False):
    rng = np.random.default_rng(0)
    maps = rng.integers(1, NUM_CLASSES, (num_people, 20, 20)).repeat(2, 1).repeat(2, 2)
    maps[:, :, 30:] = 0
    maps[:, :5] = 255
    if ignored:
        maps[:] = 255
    return Instances(
        (40, 40),
        proposal_boxes=Boxes(torch.tensor([[4.0, 2.0, 36.0, 34.0]]).repeat(num_people, 1)),
        gt_part_maps=PartMaps.from_full(maps.astype(np.uint8)),
    )


def compute_losses(head, x, instances):
    with EventStorage():
        return head.train()(x, instances)


def test_shapes_at_test():
    head = make_head().eval()
    instances = [Instances((40, 40), scores=torch.zeros(n)) for n in (2, 0, 1)]
    x = torch.randn(3, 4, 4, 4)
    first, second, third = head(x, instances)
    assert first.pred_part_logits.tensor.shape == (2, NUM_CLASSES, 8, 8)
    assert first.pred_part_logits.probabilities().shape == (2, NUM_CLASSES, 16, 16)
    assert len(second.pred_part_logits) == 0
    assert second.pred_mious.shape == (0,)
    # The people are dealt out in order.
    alone = head(x[2:], [Instances((40, 40), scores=torch.zeros(1))])[0]
    torch.testing.assert_close(alone.pred_part_logits.tensor, third.pred_part_logits.tensor)
    assert not first.has("pred_edge_logits")


def test_people_of_a_crowd_are_parsed_as_if_each_were_alone():
    head = make_head(edges_at_test=True).eval()
    x = torch.randn(21, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    images = [Instances((40, 40), number=torch.arange(n)) for n in (9, 0, 12)]
    with torch.no_grad():
        together = Instances.cat(head(x, images))
        alone = [head(one, [Instances((40, 40), number=torch.zeros(1))])[0] for one in x.split(1)]
    assert [len(image) for image in images] == [9, 0, 12]
    for i, one in enumerate(alone):
        for name in ("pred_part_logits", "pred_edge_logits"):
            torch.testing.assert_close(together.get(name).tensor[i], one.get(name).tensor[0])
        torch.testing.assert_close(together.pred_mious[i], one.pred_mious[0])


def test_memory_does_not_grow_with_the_crowd():
    head = make_head(upsample_factor=16).eval()
    peaks = {}
    for num_people in (8, 64):
        with torch.no_grad(), LiveBytes() as memory:
            head(torch.zeros(num_people, 4, 4, 4), [Instances((40, 40), n=torch.zeros(num_people))])
        peaks[num_people] = memory.peak
    assert peaks[64] < 1.5 * peaks[8]


def test_encoding_normalises_once_before_the_last_relu():
    head = make_head()
    x = torch.randn(1, 4, 4, 4)
    features = to_array(head.non_local(head.context(x)))[0]
    first, last = head.convs
    assert first.norm is None and last.norm.num_groups == 32
    expected = relu(conv2d(features, first, padding=1))
    expected = relu(group_norm(conv2d(expected, last, padding=1), last.norm))
    np.testing.assert_allclose(to_array(head.encode(x))[0], expected, rtol=1e-3, atol=1e-4)


def naive_transposed_conv(x, layer, padding):
    """Every input cell stamps its weighted kernel onto the output."""
    weight, bias = to_array(layer.weight), to_array(layer.bias)
    size = weight.shape[-1]
    out = np.zeros((weight.shape[1], 2 * x.shape[1] + size, 2 * x.shape[2] + size))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            stamp = np.einsum("c,cokl->okl", x[:, i, j], weight)
            out[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] += stamp
    out = out[:, padding : padding + 2 * x.shape[1], padding : padding + 2 * x.shape[2]]
    return out + bias[:, None, None]


def test_predictors_double_the_resolution_and_upsample_with_aligned_corners():
    head = make_head(edges_at_test=True).eval()
    x = torch.randn(1, 4, 4, 4)
    features = to_array(head.encode(x))[0]
    (instances,) = head(x, [Instances((40, 40), scores=torch.zeros(1))])
    expected = naive_transposed_conv(features, head.parsing_predictor, padding=1)
    part_logits = to_array(instances.pred_part_logits.tensor)[0]
    np.testing.assert_allclose(part_logits, expected, rtol=1e-3, atol=1e-4)
    expected = naive_transposed_conv(features, head.edge_predictor, padding=0)
    edge_logits = instances.pred_edge_logits
    np.testing.assert_allclose(to_array(edge_logits.tensor)[0], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        to_array(edge_logits.probabilities())[0],
        softmax(resize_aligned(expected, (16, 16)), axis=0),
        rtol=1e-3,
        atol=1e-4,
    )


def test_score_head():
    torch.manual_seed(0)
    head = ParsingScoreHead(in_channels=3, num_classes=2, conv_dim=4, fc_dim=5)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    features, part_logits = torch.randn(2, 3, 4, 4), torch.randn(2, 2, 16, 16)
    scores = head(features, part_logits)
    assert scores.shape == (2,)
    for score, f, p in zip(scores, to_array(features), to_array(part_logits)):
        pooled = p.reshape(2, 4, 4, 4, 4).max(axis=(2, 4))
        x = relu(conv2d(np.concatenate([f, pooled]), head.conv1, padding=1))
        x = relu(conv2d(x, head.conv2, stride=2, padding=1)).mean(axis=(1, 2))
        for fc in (head.fc1, head.fc2):
            x = relu(to_array(fc.weight) @ x + to_array(fc.bias))
        expected = to_array(head.predictor.weight) @ x + to_array(head.predictor.bias)
        assert score.item() == pytest.approx(expected.item(), rel=1e-4)
    assert head(features[:1], part_logits[:1]).shape == (1,)
    assert head(features[:0], part_logits[:0]).shape == (0,)


@pytest.mark.parametrize("bias, expected", [(-5.0, 0.0), (5.0, 1.0)])
def test_predicted_miou_is_clamped_at_test(bias, expected):
    head = make_head().eval()
    nn.init.constant_(head.score_head.predictor.bias, bias)
    (instances,) = head(torch.randn(2, 4, 4, 4), [Instances((40, 40), scores=torch.zeros(2))])
    assert instances.pred_mious.tolist() == [expected] * 2


def test_unlikely_parts_are_left_out_at_test_alone():
    x = 3 * torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    paper, head = make_head(), make_head(min_part_probability=0.9)
    expected, predictions = (h.eval().predict(x) for h in (paper, head))
    logits = ROIPartLogits(expected.pop("pred_part_logits"))
    likely = logits.without_unlikely_parts(0.9).tensor
    assert not torch.equal(likely.argmax(dim=1), logits.tensor.argmax(dim=1))
    assert torch.equal(predictions["pred_part_logits"], likely)
    assert torch.equal(predictions["pred_mious"], expected["pred_mious"])
    losses = [compute_losses(h, x, [make_people()]) for h in (paper, head)]
    assert losses[0] == losses[1]
    with pytest.raises(ValueError, match=r"min_part_probability must be in 0\.\.1, got 60"):
        make_head(min_part_probability=60)


def test_losses_are_weighted_and_read_the_right_targets():
    head = make_head(edges_at_test=True).eval()
    people = make_people()
    x = torch.randn(3, 4, 4, 4)
    # 32 x 32 pixels of the image onto 16 x 16: every second pixel from (4, 2).
    target = people.gt_part_maps.to_full()[:, 2:34:2, 4:36:2].long()
    with torch.no_grad():
        (predicted,) = head(x, [Instances((40, 40), scores=torch.zeros(3))])
        probabilities = predicted.pred_part_logits.probabilities()
        edge_probabilities = predicted.pred_edge_logits.probabilities()
        mious = predicted.pred_mious
        assert torch.all((mious > 0) & (mious < 1))  # not clamped, so comparable
        losses = compute_losses(head, x, [people])
    assert set(losses) == {"loss_parsing", "loss_edge", "loss_miou", "loss_miou_score"}

    counted = target != 255
    chosen = probabilities.gather(1, target.clamp(max=4)[:, None])[:, 0][counted]
    assert losses["loss_parsing"].item() == pytest.approx(-2 * chosen.log().mean().item(), rel=1e-4)

    edges = F.max_pool2d(_differing_neighbours(target).float(), 3, stride=1, padding=1) > 0
    num_edge, num_other = (edges & counted).sum(), (~edges & counted).sum()
    assert num_edge > 0 and num_other > 0
    log_edge, log_other = edge_probabilities[:, 1].log(), edge_probabilities[:, 0].log()
    expected = -(
        log_edge[edges & counted].mean().item() + log_other[~edges & counted].mean().item()
    )
    # Balanced as in Eq. 4, the weighted mean is the average of the two classes' means.
    assert losses["loss_edge"].item() == pytest.approx(2 * expected / 2, rel=1e-4)

    predicted_labels = probabilities.argmax(dim=1)
    squared_errors = []
    for p, t, miou in zip(predicted_labels, target, mious.tolist()):
        p, t = p[t != 255], t[t != 255]
        ious = [
            ((p == c) & (t == c)).sum() / ((p == c) | (t == c)).sum()
            for c in range(NUM_CLASSES)
            if ((p == c) | (t == c)).any()
        ]
        squared_errors.append((miou - sum(ious).item() / len(ious)) ** 2)
    assert losses["loss_miou_score"].item() == pytest.approx(np.mean(squared_errors) / 2, rel=1e-3)
    assert 0 < losses["loss_miou"].item() < 2


def _differing_neighbours(target):
    """Edge seeds, see the brute force of test_parsing_targets.py."""
    seeds = torch.zeros_like(target, dtype=torch.bool)
    _, height, width = target.shape
    for y in range(height):
        for x in range(width):
            for dy, dx, my, mx in [
                (1, 0, 1, 0),
                (0, 1, 0, 0),
                (1, 1, 0, 0),
                (1, -1, 0, 0),
            ]:
                if y + dy < height and 0 <= x + dx < width:
                    a, b = target[:, y, x], target[:, y + dy, x + dx]
                    seeds[:, y + my, x + mx] |= (a != b) & (a != 255) & (b != 255)
    return seeds


@pytest.mark.parametrize("autocast", [False, True])
def test_checkpointed_activations_give_the_same_gradients_in_less_memory(autocast):
    people, x = make_people(3), torch.randn(3, 4, 4, 4)
    gradients, kept = [], []
    for checkpoint_activations in (False, True):
        head = make_head(checkpoint_activations=checkpoint_activations)
        saved = []

        def pack(tensor, saved=saved):
            saved.append(tensor)
            return tensor

        features = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                losses = compute_losses(head, features, [people])
        sum(losses.values()).backward()
        gradients.append([features.grad, *(p.grad for p in head.parameters())])
        kept.append(sum(tensor.numel() for tensor in saved))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert kept[1] < 0.8 * kept[0]


def test_batch_norms_are_not_computed_twice():
    with pytest.raises(ValueError, match="checkpoint_activations is for heads without batch norms"):
        make_head(norm="BN", checkpoint_activations=True)


@pytest.mark.parametrize("name", ["loss_parsing", "loss_edge", "loss_miou", "loss_miou_score"])
def test_each_loss_weight_scales_its_loss(name):
    keyword = {
        "loss_parsing": "parsing_loss_weight",
        "loss_edge": "edge_loss_weight",
        "loss_miou": "miou_loss_weight",
        "loss_miou_score": "score_loss_weight",
    }[name]
    x = torch.randn(3, 4, 4, 4)
    once = compute_losses(make_head(**{keyword: 1.0}), x, [make_people()])
    thrice = compute_losses(make_head(**{keyword: 3.0}), x, [make_people()])
    for other in once:
        factor = 3 if other == name else 1
        assert thrice[other].item() == pytest.approx(factor * once[other].item(), rel=1e-5)


def test_the_score_loss_trains_the_parsing_predictor():
    head = make_head()
    losses = compute_losses(head, torch.randn(3, 4, 4, 4), [make_people()])
    losses["loss_miou_score"].backward()
    assert head.parsing_predictor.weight.grad.abs().sum() > 0
    assert head.convs[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("num_people, ignored", [(0, False), (1, False), (3, True)])
def test_every_parameter_and_the_features_get_a_finite_gradient(num_people, ignored):
    head = make_head()
    x = torch.randn(num_people, 4, 4, 4, requires_grad=True)
    people = make_people(num_people, ignored)
    losses = compute_losses(head, x, [people, people[:0]])
    assert all(loss.isfinite() for loss in losses.values())
    if ignored or not num_people:
        assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()
    gradients = [x.grad, *(p.grad for p in head.parameters())]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_training_in_bfloat16_autocast_keeps_the_losses_in_float32():
    head = make_head()
    x = torch.randn(3, 4, 4, 4)
    exact = compute_losses(head, x, [make_people()])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = compute_losses(head, x, [make_people()])
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        # bfloat16 has 8 significant bits.
        assert loss.item() == pytest.approx(exact[name].item(), rel=0.05)


@pytest.mark.parametrize(
    "without, missing",
    [
        ({"context": None, "in_channels": 32}, set()),
        ({"non_local": None}, set()),
        ({"edge_on": False}, {"loss_edge"}),
        ({"score_head": None}, {"loss_miou_score"}),
        ({"miou_loss_weight": 0.0}, {"loss_miou"}),
        ({"norm": ""}, set()),
    ],
)
def test_parts_can_be_left_out(without, missing):
    head = make_head(**without)
    x = torch.randn(3, without.get("in_channels", 4), 4, 4)
    losses = compute_losses(head, x, [make_people()])
    assert set(losses) == {"loss_parsing", "loss_edge", "loss_miou", "loss_miou_score"} - missing
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())
    (instances,) = head.eval()(x, [Instances((40, 40), scores=torch.zeros(3))])
    assert instances.has("pred_mious") == ("score_head" not in without)


def test_edges_can_be_marked_on_finer_maps():
    x, people = torch.randn(3, 4, 4, 4), make_people()
    captured = {}

    def loss_edge(**kwargs):
        head = make_head(**kwargs)
        head.edge_predictor.register_forward_hook(lambda m, i, o: captured.update(low=o))
        return compute_losses(head, x, [people])["loss_edge"].item()

    coarse, fine = loss_edge(), loss_edge(edge_size=64)
    logits = F.interpolate(captured["low"], scale_factor=2, mode="bilinear", align_corners=True)
    targets = edge_targets(part_map_targets([people], 64), 16)
    expected = 2 * edge_loss(logits, targets, (targets == 1).sum(), (targets == 0).sum()).item()
    assert fine == pytest.approx(expected, rel=1e-6) != coarse
    # Never on coarser maps than the losses'.
    assert loss_edge(edge_size=8) == loss_edge(edge_size=16) == coarse


def test_edges_of_nobody_on_finer_maps():
    losses = compute_losses(make_head(edge_size=64), torch.zeros(0, 4, 4, 4), [make_people(0)])
    assert losses["loss_edge"] == 0


def test_edges_at_test_need_an_edge_predictor():
    with pytest.raises(ValueError, match="needs edge_on"):
        make_head(edge_on=False, edges_at_test=True)


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"non_local": NonLocalBlock(64)}, ("non_local.channels", 64, "context.out_channels", 32)),
        ({"context": None}, ("non_local.channels", 32, "in_channels", 4)),
        ({"conv_dims": [64, 32]}, ("score_head.in_channels", 64, "conv_dims[1]", 32)),
        ({"conv_dims": []}, ("score_head.in_channels", 64, "context.out_channels", 32)),
    ],
)
def test_parts_that_do_not_fit_each_other(wrong, named):
    message = "{} is {}, but must equal {}, which is {}".format(*named)
    with pytest.raises(ValueError, match=re.escape(message)):
        make_head(**wrong)


def test_parts_that_do_not_tell_their_channels():
    head = EdgeGuidedParsingHead(
        in_channels=4, non_local=nn.Identity(), conv_dims=[], score_head=nn.Identity()
    )
    assert head.encode(torch.zeros(1, 4, 8, 8)).shape == (1, 4, 8, 8)


def test_uniform_logits_cost_the_logarithm_of_the_number_of_classes():
    head = make_head()
    nn.init.zeros_(head.parsing_predictor.weight)
    nn.init.zeros_(head.edge_predictor.weight)
    losses = compute_losses(head, torch.randn(3, 4, 4, 4), [make_people()])
    assert losses["loss_parsing"].item() == pytest.approx(2 * math.log(NUM_CLASSES), rel=1e-5)
    assert losses["loss_edge"].item() == pytest.approx(2 * math.log(2), rel=1e-5)

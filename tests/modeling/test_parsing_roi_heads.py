import math

import numpy as np
import pytest
import torch
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from tiny_models import make_person_instances
from torch import nn

from aiparsing_d2.modeling import OneStageParsingROIHeads
from aiparsing_d2.structures import ROIPartLogits

SIZE = (96, 128)


class RecordingHead(nn.Module):
    """Keeps what it is called with and predicts a given mIoU."""

    def __init__(self, miou=None):
        super().__init__()
        self.miou = miou

    def forward(self, x, instances):
        self.pooled, self.instances = x, instances
        if self.training:
            return {"loss_parsing": x.sum()}
        for per_image in instances:
            per_image.pred_part_logits = ROIPartLogits(torch.zeros(len(per_image), 3, 4, 4))
            if self.miou is not None:
                per_image.pred_mious = torch.full((len(per_image),), self.miou)
        return instances


def make_roi_heads(miou=None, **kwargs):
    defaults = {
        "num_classes": 1,
        "batch_size_per_image": 16,
        "positive_fraction": 1.0,
        "proposal_matcher": Matcher([0.5], [0, 1]),
    }
    return OneStageParsingROIHeads(
        parsing_in_features=["p3"],
        parsing_pooler=ROIPooler(4, [1 / 8], sampling_ratio=2, pooler_type="ROIAlignV2"),
        parsing_head=RecordingHead(miou),
        **{**defaults, **kwargs},
    )


def make_proposals(boxes, scores=None):
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    scores = torch.full((len(boxes),), 0.5) if scores is None else torch.tensor(scores)
    return Instances(SIZE, proposal_boxes=Boxes(boxes), objectness_logits=scores.logit())


def run(roi_heads, proposals, targets=None):
    n = len(proposals)
    images = ImageList(torch.zeros(n, 3, *SIZE), [SIZE] * n)
    features = {"p3": torch.randn(n, 2, SIZE[0] // 8, SIZE[1] // 8, requires_grad=True)}
    with EventStorage():
        return roi_heads(images, features, proposals, targets)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


PEOPLE = [[8.0, 8.0, 48.0, 88.0], [60.0, 10.0, 120.0, 90.0]]


@pytest.mark.parametrize("batch_size_per_image", [16, 512])
def test_trains_on_the_detectors_boxes_and_the_ground_truth(batch_size_per_image):
    """With 512 sampled boxes (yacs' default) the parsing branch still sees 16 at most."""
    rng = np.random.default_rng(0)
    near = np.repeat(PEOPLE, 30, axis=0) + rng.uniform(-6, 6, (60, 4))
    far = rng.uniform(0, 40, (30, 4)) + [0, 0, 41, 41]
    proposals = make_proposals(np.concatenate([near, far]))
    roi_heads = make_roi_heads(batch_size_per_image=batch_size_per_image).train()
    torch.manual_seed(0)
    targets = make_person_instances(SIZE, PEOPLE)
    targets.gt_part_maps.maps[0].fill_(1)
    targets.gt_part_maps.maps[1].fill_(2)
    _, losses = run(roi_heads, [proposals], [targets])
    assert set(losses) == {"loss_parsing"}

    (sampled,) = roi_heads.parsing_head.instances
    assert len(sampled) == 16
    assert torch.all(sampled.gt_classes == 0)
    boxes = sampled.proposal_boxes.tensor
    assert not boxes.requires_grad
    num_detected = 0
    for i, box in enumerate(boxes.tolist()):
        person = int(sampled.gt_part_maps[i].maps[0].unique()) - 1
        overlaps = [iou(box, p) for p in PEOPLE]
        assert overlaps[person] == max(overlaps) >= 0.5
        num_detected += box not in PEOPLE
    assert num_detected >= 14  # at most the two people's own boxes are not the detector's
    assert roi_heads.parsing_head.pooled.shape == (16, 2, 4, 4)


def test_trains_on_positives_chosen_at_random():
    """Each of them as often as another, even where Detectron2's own sampling kept their order."""
    num_positives, num_draws = 40, 200
    roi_heads = make_roi_heads().train()
    roi_heads.label_and_sample_proposals = lambda proposals, targets: proposals
    proposals = make_proposals([[x, 8, x + 40, 88] for x in range(num_positives)])
    proposals.gt_classes = torch.zeros(num_positives, dtype=torch.int64)
    torch.manual_seed(0)
    counts = np.zeros(num_positives)
    for _ in range(num_draws):
        run(roi_heads, [proposals], [make_person_instances(SIZE, [])])
        (sampled,) = roi_heads.parsing_head.instances
        assert len(sampled) == 16
        counts[sampled.proposal_boxes.tensor[:, 0].long().numpy()] += 1
    # Binomial: the expected 80 of 200 with a standard deviation of 6.9.
    assert counts.sum() == 16 * num_draws
    assert np.abs(counts - 80).max() < 5 * 6.9


def test_ground_truth_is_enough_to_train():
    roi_heads = make_roi_heads().train()
    run(
        roi_heads,
        [make_proposals([]), make_proposals([[0, 0, 9, 9]])],
        [make_person_instances(SIZE, PEOPLE), make_person_instances(SIZE, [])],
    )
    first, second = roi_heads.parsing_head.instances
    assert sorted(first.proposal_boxes.tensor.tolist()) == PEOPLE
    assert len(second) == 0


def test_people_without_labels_train_nothing_and_take_no_proposal_from_others():
    person, ignored = [8.0, 8.0, 48.0, 88.0], [28.0, 8.0, 68.0, 88.0]
    between = [21.0, 8.0, 61.0, 88.0]
    assert iou(person, ignored) < 0.5 < iou(between, person) < iou(between, ignored)
    targets = make_person_instances(SIZE, [person, ignored])
    targets.gt_classes[1] = -1
    only_ignored = targets[1]
    targets.gt_part_maps.maps[0].fill_(1)
    targets.gt_part_maps.maps[1].fill_(2)
    roi_heads = make_roi_heads().train()
    proposals = make_proposals([between, ignored, [30, 8, 70, 88]])
    run(roi_heads, [proposals, proposals], [targets, only_ignored])
    first, second = roi_heads.parsing_head.instances
    assert sorted(first.proposal_boxes.tensor.tolist()) == [person, between]
    assert [part_map.unique().tolist() for part_map in first.gt_part_maps.maps] == [[1], [1]]
    assert len(second) == 0


def test_an_overlap_of_one_half_is_positive():
    person = [0.0, 0.0, 40.0, 40.0]
    roi_heads = make_roi_heads(proposal_append_gt=False).train()
    for width, num_positives in [(20.0, 1), (19.9, 0)]:
        run(
            roi_heads,
            [make_proposals([[0.0, 0.0, width, 40.0]])],
            [make_person_instances(SIZE, [person])],
        )
        assert len(roi_heads.parsing_head.instances[0]) == num_positives


def test_zero_area_ground_truth_is_no_positive():
    roi_heads = make_roi_heads().train()
    boxes = [[30.0, 30.0, 30.0, 60.0], [5.0, 5.0, 5.0, 5.0]]
    run(roi_heads, [make_proposals([])], [make_person_instances(SIZE, boxes)])
    assert len(roi_heads.parsing_head.instances[0]) == 0
    assert roi_heads.parsing_head.pooled.shape == (0, 2, 4, 4)


def test_person_score_is_the_root_of_the_product():
    boxes, scores = [[0.0, 0, 20, 20], [30.0, 30, 60, 60]], [0.8, 0.45]
    (instances,), losses = run(make_roi_heads(miou=0.2).eval(), [make_proposals(boxes, scores)])
    assert losses == {}
    assert instances.pred_boxes.tensor.tolist() == boxes
    assert instances.pred_classes.tolist() == [0, 0]
    np.testing.assert_allclose(instances.box_scores, scores, rtol=1e-5)
    np.testing.assert_allclose(instances.scores, [math.sqrt(0.16), math.sqrt(0.09)], rtol=1e-5)


def test_without_a_score_head_the_box_score_stays():
    (instances,), _ = run(make_roi_heads().eval(), [make_proposals([[0, 0, 20, 20]], [0.8])])
    assert instances.scores.item() == instances.box_scores.item() == pytest.approx(0.8)
    assert not instances.has("pred_mious")


def test_given_boxes_are_parsed_and_scored_once():
    roi_heads = make_roi_heads(miou=0.25).eval()
    features = {"p3": torch.randn(1, 2, 12, 16)}
    given = Instances(
        SIZE,
        pred_boxes=Boxes(torch.tensor([[0.0, 0, 20, 20]])),
        pred_classes=torch.zeros(1, dtype=torch.int64),
        scores=torch.tensor([0.64]),
    )
    for _ in range(2):  # parsing them again does not take the root of the root
        (parsed,) = roi_heads.forward_with_given_boxes(features, [given])
        assert parsed.box_scores.item() == pytest.approx(0.64)
        assert parsed.scores.item() == pytest.approx(0.4)
    bare = Instances(SIZE, pred_boxes=given.pred_boxes, pred_classes=given.pred_classes)
    (parsed,) = roi_heads.forward_with_given_boxes(features, [bare])
    assert parsed.has("pred_part_logits") and not parsed.has("scores")

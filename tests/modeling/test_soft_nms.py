"""Soft-NMS against its definition, written with plain numbers, and on cases counted by hand."""

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from aiparsing_d2.modeling import soft_nms


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (area_a + area_b - width * height)


def brute_force_soft_nms(boxes, scores, iou_threshold, score_threshold):
    """[(index, score)], best first."""
    remaining = dict(enumerate(scores))
    kept = []
    while remaining:
        best = max(remaining, key=lambda i: (remaining[i], -i))
        score = remaining.pop(best)
        if score < score_threshold:
            break
        kept.append((best, score))
        for other in remaining:
            overlap = iou(boxes[best], boxes[other])
            if overlap > iou_threshold:
                remaining[other] *= 1 - overlap
    return kept


def random_boxes(num_boxes, seed):
    """Boxes of which many overlap, with some scores in common."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (num_boxes, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 60, (num_boxes, 2))], axis=1)
    return boxes, rng.integers(1, 20, num_boxes) / 20


@pytest.mark.parametrize("iou_threshold", [0.0, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("score_threshold", [0.0, 1e-4, 0.2])
def test_equals_brute_force(iou_threshold, score_threshold):
    for seed in range(5):
        boxes, scores = random_boxes(40, seed)
        expected = brute_force_soft_nms(
            boxes.tolist(), scores.tolist(), iou_threshold, score_threshold
        )
        indices, kept_scores = soft_nms(
            torch.tensor(boxes), torch.tensor(scores), iou_threshold, score_threshold
        )
        assert indices.dtype == torch.int64 and kept_scores.dtype == torch.float64
        assert indices.tolist() == [i for i, _ in expected]
        assert kept_scores.tolist() == pytest.approx([score for _, score in expected], rel=1e-12)


def test_by_hand():
    """IoU 60 / 100 between neighbours, 20 / 140 between the outer two, 0 with the far one."""
    boxes = torch.tensor(
        [[0.0, 0, 8, 10], [2.0, 0, 10, 10], [40.0, 40, 50, 50], [0.0, 0, 8, 10]],
        dtype=torch.float32,
    )
    scores = torch.tensor([0.9, 0.8, 0.5, 0.7])
    indices, kept = soft_nms(boxes, scores, 0.5)
    # Box 3 is box 0 again, so nothing is left of it; box 1 keeps 0.8 * (1 - 0.6).
    assert indices.tolist() == [0, 2, 1]
    assert kept.tolist() == pytest.approx([0.9, 0.5, 0.32])
    assert kept.dtype == torch.float32
    # An overlap of exactly the threshold is left alone.
    indices, kept = soft_nms(boxes, scores, 0.6)
    assert indices.tolist() == [0, 1, 2]
    assert kept.tolist() == pytest.approx([0.9, 0.8, 0.5])
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.5, 0.7])


def test_a_box_can_be_lowered_more_than_once():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 9], [0.0, 0, 10, 8]])
    indices, kept = soft_nms(boxes, torch.tensor([1.0, 0.9, 0.8]), 0.5)
    # IoU 0.9, 0.8 with the first; then the third, at 0.16, is the better one, IoU 8 / 9.
    assert indices.tolist() == [0, 2, 1]
    assert kept.tolist() == pytest.approx([1.0, 0.8 * 0.2, 0.9 * 0.1 * (1 - 8 / 9)])


def test_most_boxes_to_keep():
    boxes, scores = (torch.tensor(x) for x in random_boxes(30, seed=9))
    all_indices, all_scores = soft_nms(boxes, scores, 0.5)
    indices, kept = soft_nms(boxes, scores, 0.5, max_boxes=7)
    assert len(all_indices) > 7
    assert torch.equal(indices, all_indices[:7]) and torch.equal(kept, all_scores[:7])
    assert len(soft_nms(boxes, scores, 0.5, max_boxes=0)[0]) == 0


def test_a_high_score_threshold_leaves_what_hard_nms_leaves_of_disjoint_groups():
    """Copies of a box lose their whole score, as hard suppression takes it."""
    boxes, scores = (torch.tensor(x) for x in random_boxes(6, seed=3))
    boxes = torch.cat([boxes + 200.0 * i for i in range(3)])
    scores = torch.cat([scores, scores / 2, scores / 4])
    copies = torch.cat([boxes, boxes])
    indices, _ = soft_nms(copies, torch.cat([scores, scores / 3]), 0.99)
    assert sorted(indices.tolist()) == sorted(
        nms(copies, torch.cat([scores, scores / 3]), 0.99).tolist()
    )


def test_no_boxes():
    indices, kept = soft_nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert indices.shape == kept.shape == (0,)
    assert indices.dtype == torch.int64

import math

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from aiparsing_d2.modeling.roi_heads.parsing_targets import (
    edge_targets,
    mean_iou,
    part_map_targets,
)
from aiparsing_d2.structures import PartMaps


def brute_force_edges(part_map):
    """Marks one pixel of each differing pair of neighbours, then thickens; pixel by pixel."""
    height, width = part_map.shape
    seeds = np.zeros_like(part_map)

    def differ(a, b):
        a, b = part_map[a], part_map[b]
        return a != 255 and b != 255 and a != b

    for y in range(height):
        for x in range(width):
            if y + 1 < height and differ((y, x), (y + 1, x)):
                seeds[y + 1, x] = 1  # the lower
            if x + 1 < width and differ((y, x), (y, x + 1)):
                seeds[y, x] = 1  # the left
            if y + 1 < height and x + 1 < width:
                if differ((y, x), (y + 1, x + 1)):
                    seeds[y, x] = 1  # the upper
                if differ((y, x + 1), (y + 1, x)):
                    seeds[y, x + 1] = 1  # the upper
    edges = np.zeros_like(part_map)
    for y in range(height):
        for x in range(width):
            edges[y, x] = seeds[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any()
            if part_map[y, x] == 255:
                edges[y, x] = 255
    return edges


def test_edges_equal_brute_force():
    rng = np.random.default_rng(0)
    blocks = rng.choice([0, 0, 1, 2, 255], (6, 4, 4))
    part_maps = blocks.repeat(5, axis=1).repeat(5, axis=2)
    part_maps[rng.random(part_maps.shape) < 0.01] = 3
    edges = edge_targets(torch.from_numpy(part_maps))
    assert edges.dtype == torch.int64
    np.testing.assert_array_equal(edges.numpy(), [brute_force_edges(m) for m in part_maps])
    assert set(np.unique(edges)) == {0, 1, 255}


@pytest.mark.parametrize("horizontal", [True, False])
@pytest.mark.parametrize("labels", [(0, 1), (3, 7)])
def test_a_straight_border_is_four_pixels_wide(horizontal, labels):
    part_map = torch.full((1, 12, 12), labels[0])
    part_map[:, 6:] = labels[1]
    expected = torch.zeros_like(part_map)
    expected[:, 4:8] = 1  # two pixels on either side
    if not horizontal:
        part_map, expected = part_map.transpose(1, 2), expected.transpose(1, 2)
    assert torch.equal(edge_targets(part_map), expected)


def test_unknown_pixels_make_no_edge():
    part_map = torch.zeros((1, 8, 8), dtype=torch.int64)
    part_map[:, 3:5] = 255
    part_map[:, 5:] = 2  # differs from 0, but unknown pixels lie between
    assert torch.equal(edge_targets(part_map), torch.where(part_map == 255, 255, 0))
    assert torch.all(edge_targets(torch.full((2, 4, 4), 255)) == 255)


@pytest.mark.parametrize("size", [12, 20, 13, 7, 1])
def test_reduced_edges_hold_every_pixel_below(size):
    rng = np.random.default_rng(0)
    part_maps = rng.choice([0, 0, 0, 1, 255], (4, 3, 3)).repeat(8, axis=1).repeat(8, axis=2)[:, :20]
    part_maps = part_maps[:, :, :20]
    fine = np.stack([brute_force_edges(m) for m in part_maps])
    expected = np.zeros((4, size, size), dtype=np.int64)
    for y in range(size):
        for x in range(size):
            rows = slice(y * 20 // size, math.ceil((y + 1) * 20 / size))
            columns = slice(x * 20 // size, math.ceil((x + 1) * 20 / size))
            for person in range(4):
                below = set(fine[person, rows, columns].flat)
                expected[person, y, x] = 1 if 1 in below else 255 if 255 in below else 0
    edges = edge_targets(torch.from_numpy(part_maps), size)
    assert edges.dtype == torch.int64
    np.testing.assert_array_equal(edges, expected)


def test_a_border_of_the_papers_width_takes_one_or_two_pixels_of_48():
    widths = []
    # 256 / 48 is 16 / 3: after 16 pixels it is the same again.
    for position in range(112, 144):
        part_map = torch.zeros((1, 256, 256), dtype=torch.int64)
        part_map[:, position:] = 1
        edges = edge_targets(part_map, 48)
        rows = edges[0, :, 0].nonzero().flatten()
        assert torch.equal(edges, edges[:, :, :1].expand(-1, -1, 48))
        assert rows[-1] - rows[0] + 1 == len(rows)
        assert rows[0] * 256 / 48 <= position <= (rows[-1] + 1) * 256 / 48
        widths.append(len(rows))
    assert set(widths) == {1, 2}
    # 4 pixels of 256 are 0.75 of 48; a window of pixels below one is 6 wide, every 256 / 48.
    assert np.mean(widths) == pytest.approx((4 + 6 - 1) / (256 / 48), abs=0.05)


def loop_mean_iou(predicted, target, num_classes):
    ious = []
    for label in range(num_classes):
        p = (predicted == label) & (target != 255)
        t = target == label
        if (p | t).any():
            ious.append((p & t).sum() / (p | t).sum())
    return sum(ious) / len(ious) if ious else 0.0


def test_mean_iou_equals_a_loop_over_classes():
    rng = np.random.default_rng(0)
    target = rng.choice([0, 1, 2, 255], (5, 9, 9))
    predicted = np.where(rng.random(target.shape) < 0.7, target, rng.integers(0, 5, target.shape))
    predicted[predicted == 255] = 4
    target[3] = 255
    predicted[4] = target[4] = 0
    got = mean_iou(torch.from_numpy(predicted), torch.from_numpy(target), num_classes=5)
    expected = [loop_mean_iou(p, t, 5) for p, t in zip(predicted, target)]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)
    assert got[3] == 0 and got[4] == 1


def test_mean_iou_by_hand():
    target = torch.tensor([[[0, 0, 1, 1], [0, 255, 2, 2]]])
    predicted = torch.tensor([[[0, 1, 1, 1], [0, 3, 2, 0]]])
    # 0: 2 of 4, 1: 2 of 3, 2: 1 of 2; label 3 is predicted on an ignored pixel only.
    expected = (2 / 4 + 2 / 3 + 1 / 2) / 3
    assert mean_iou(predicted, target, 4).item() == pytest.approx(expected)


def test_part_map_targets_join_the_images():
    first = np.zeros((2, 8, 8), np.uint8)
    first[0, 2:6, 2:6] = 1
    first[1, 4:8, 4:8] = 2
    instances = [
        Instances(
            (8, 8),
            proposal_boxes=Boxes(torch.tensor([[4.0, 4, 8, 8], [0.0, 0, 8, 8]])),
            gt_part_maps=PartMaps.from_full(first),
        ),
        Instances((8, 8), proposal_boxes=Boxes(torch.zeros(0, 4))),  # nobody, so no part maps
        Instances(
            (8, 8),
            proposal_boxes=Boxes(torch.tensor([[0.0, 0, 4, 4]])),
            gt_part_maps=PartMaps.from_full(np.full((1, 8, 8), 255, np.uint8)),
        ),
    ]
    targets = part_map_targets(instances, 4)
    assert targets.dtype == torch.int64
    # The first box holds a quarter of its person and the whole other one, who is background.
    assert targets[0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert targets[1].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2]]
    assert torch.all(targets[2] == 255)

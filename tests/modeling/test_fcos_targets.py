import math

import numpy as np
import pytest
import torch
from live_bytes import LiveBytes

from aiparsing_d2.modeling.proposal_generator import fcos_targets
from aiparsing_d2.modeling.proposal_generator.fcos_targets import (
    boxes_from_distances,
    centerness_targets,
    distances_to_boxes,
    feature_locations,
    inside_any,
    match_locations,
)

STRIDES = (8, 16, 32)
SIZE_RANGES = ((-1, 64), (64, 128), (128, math.inf))


def test_locations_are_row_by_row_in_the_middle_of_the_stride():
    locations = feature_locations(2, 3, 8, torch.device("cpu"))
    assert locations.dtype == torch.float32
    assert locations.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert feature_locations(1, 2, 5, torch.device("cpu")).tolist() == [[2, 2], [7, 2]]


def test_distances_and_their_inverse():
    locations = torch.tensor([[10.0, 20.0], [0.0, 0.0]])
    boxes = torch.tensor([[4.0, 5.0, 30.0, 60.0]])
    distances = distances_to_boxes(locations, boxes)
    assert distances.tolist() == [[6, 15, 20, 40], [-4, -5, 30, 60]]
    assert distances_to_boxes(locations[:, None], boxes).tolist() == [
        [d] for d in distances.tolist()
    ]
    assert boxes_from_distances(locations, distances).tolist() == 2 * boxes.tolist()


def brute_force_match(locations, boxes, radius):
    """Location by location and box by box, from FCOS' definition."""
    matched = []
    for level, stride, (lowest, highest) in zip(locations, STRIDES, SIZE_RANGES):
        for x, y in level:
            best, best_area = -1, math.inf
            for i, (x0, y0, x1, y1) in enumerate(boxes):
                cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
                region = [
                    max(x0, cx - radius * stride),
                    max(y0, cy - radius * stride),
                    min(x1, cx + radius * stride),
                    min(y1, cy + radius * stride),
                ]
                if radius <= 0:
                    region = [x0, y0, x1, y1]
                if not (region[0] < x < region[2] and region[1] < y < region[3]):
                    continue
                largest = max(x - x0, y - y0, x1 - x, y1 - y)
                if not lowest <= largest <= highest:
                    continue
                area = (x1 - x0) * (y1 - y0)
                if area < best_area:
                    best, best_area = i, area
            matched.append(best)
    return matched


def locations_of(height, width):
    return [
        feature_locations(math.ceil(height / s), math.ceil(width / s), s, torch.device("cpu"))
        for s in STRIDES
    ]


@pytest.mark.parametrize("boxes_at_once", [1, 5, 100])
@pytest.mark.parametrize("radius", [1.5, 0.0])
def test_matching_equals_brute_force(radius, boxes_at_once, monkeypatch):
    num_locations = 8 * sum(len(level) for level in locations_of(224, 256))
    monkeypatch.setattr(fcos_targets, "_MAX_PAIRS", boxes_at_once * num_locations)
    rng = np.random.default_rng(0)
    images = []
    for _ in range(8):
        # Sides on multiples of 4 often meet locations, region borders and range ends exactly.
        corners = rng.integers(-8, 72, (12, 4)) * 4
        boxes = np.concatenate(
            [
                np.minimum(corners[:, :2], corners[:, 2:]),
                np.maximum(corners[:, :2], corners[:, 2:]),
            ],
            axis=1,
        )
        boxes[0, 2] = boxes[0, 0]  # no width
        boxes[1, 2:] = boxes[1, :2]  # a point
        boxes[2:4] = boxes[4]  # of equal ones the first is taken
        images.append(boxes[np.argsort(rng.random(12))])
    locations = locations_of(224, 256)
    matched = match_locations(
        locations, STRIDES, SIZE_RANGES, torch.tensor(np.stack(images), dtype=torch.float32), radius
    )
    expected = [
        brute_force_match([x.tolist() for x in locations], boxes.tolist(), radius)
        for boxes in images
    ]
    assert matched.tolist() == expected
    assert sum(i >= 0 for image in expected for i in image) > 100


def test_inside_any_equals_brute_force():
    locations = torch.tensor([[0, 0], [4, 4], [8, 4], [12, 12], [20, 3]], dtype=torch.float32)
    boxes = torch.tensor(
        [[[0, 0, 0, 0], [3, 3, 8, 8]], [[0, 0, 30, 10], [11, 11, 13, 13]], [[0, 0, 0, 0]] * 2],
        dtype=torch.float32,
    )
    expected = [
        [
            any(x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in image)
            for x, y in locations.tolist()
        ]
        for image in boxes.tolist()
    ]
    assert inside_any(locations, boxes).tolist() == expected
    assert expected[0] == [False, True, False, False, False]


def test_memory_does_not_grow_with_the_number_of_people():
    locations = [feature_locations(800 // s, 1344 // s, s, torch.device("cpu")) for s in STRIDES]
    corners = torch.rand(400, 4, generator=torch.Generator().manual_seed(0)) * 700
    boxes = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], dim=1)
    peaks = {}
    for num_people in (50, 400):
        with LiveBytes() as memory:
            match_locations(locations, STRIDES, SIZE_RANGES, boxes[None, :num_people], 1.5)
        peaks[num_people] = memory.peak
    assert peaks[400] < 1.2 * peaks[50]


def match_one(x, y, level, boxes, radius=1.5):
    locations = [torch.zeros(0, 2)] * 3
    locations[level] = torch.tensor([[x, y]], dtype=torch.float32)
    boxes = torch.tensor([boxes], dtype=torch.float32)
    return match_locations(locations, STRIDES, SIZE_RANGES, boxes, radius)[0].tolist()


def test_both_ends_of_a_size_range_count():
    box = [[0.0, 0.0, 128.0, 20.0]]  # 64 to the left and right of (64, 10)
    assert match_one(64, 10, 0, box) == [0]
    assert match_one(64, 10, 1, box) == [0]
    assert match_one(65, 10, 0, box) == [-1]  # 65 to the left
    assert match_one(64, 10, 2, box) == [-1]


def test_the_smallest_box_wins():
    boxes = [[0.0, 0.0, 60.0, 60.0], [20.0, 20.0, 40.0, 40.0], [10.0, 10.0, 50.0, 50.0]]
    assert match_one(30, 30, 0, boxes) == [1]
    # 11 right of the common centre the smallest box has ended.
    assert match_one(41, 30, 0, boxes) == [2]


def test_centre_square_is_open_and_clipped_to_the_box():
    wide = [[0.0, 0.0, 100.0, 10.0]]  # centre (50, 5), square of +- 12 at stride 8
    assert match_one(61, 5, 0, wide) == [0]
    assert match_one(62, 5, 0, wide) == [-1]
    assert match_one(62, 5, 0, wide, radius=0.0) == [0]
    assert match_one(50, 9, 0, wide) == [0]
    assert match_one(50, 10, 0, wide) == [-1]  # in the square, on the box's side


def test_no_boxes_match_nothing():
    locations = locations_of(64, 64)
    matched = match_locations(locations, STRIDES, SIZE_RANGES, torch.zeros(1, 0, 4), 1.5)
    assert matched.dtype == torch.int64
    assert matched.tolist() == [[-1] * (64 + 16 + 4)]


def test_centerness_by_hand():
    distances = torch.tensor([[1.0, 2.0, 3.0, 8.0], [5.0, 7.0, 5.0, 7.0], [9.0, 4.0, 1.0, 1.0]])
    torch.testing.assert_close(
        centerness_targets(distances),
        torch.tensor([math.sqrt(1 / 3 * 2 / 8), 1.0, math.sqrt(1 / 9 * 1 / 4)]),
    )

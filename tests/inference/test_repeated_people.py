"""Whom the predictor keeps of people found twice."""

import numpy as np
import pytest

from aiparsing_d2.inference.repeated_people import different_people
from aiparsing_d2.structures import PartMaps


def people(*rectangles):
    """Of (x0, y0, x1, y1), ends exclusive, in an image of 20 x 30; each of two parts."""
    maps = np.zeros((len(rectangles), 20, 30), dtype=np.uint8)
    for part_map, (x0, y0, x1, y1) in zip(maps, rectangles):
        part_map[y0:y1, x0:x1] = 3
        part_map[(y0 + y1) // 2 : y1, x0:x1] = 7
    return PartMaps.from_full(maps)


@pytest.mark.parametrize(
    ("rectangles", "kept"),
    [
        ([], []),
        ([(0, 0, 10, 20)], [0]),
        ([(0, 0, 10, 20), (10, 0, 20, 20)], [0, 1]),  # side by side
        ([(0, 0, 10, 20), (1, 0, 10, 20)], [0]),  # IoU 0.9
        ([(0, 0, 10, 20), (0, 10, 10, 20)], [0, 1]),  # IoU 0.5 exactly
        ([(0, 0, 10, 20), (0, 9, 10, 20)], [0]),  # 0.55: the half body of the first
        ([(0, 9, 10, 20), (0, 0, 10, 20)], [0]),  # the better one stays, whichever it is
        # The second repeats the first, the third only the second.
        ([(0, 0, 10, 20), (3, 0, 13, 20), (6, 0, 16, 20)], [0, 2]),
    ],
)
def test_people_found_twice_are_kept_once(rectangles, kept):
    assert different_people(people(*rectangles)) == kept


def test_equals_intersection_over_union_of_whole_masks():
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = np.sort(rng.integers(0, 20, (6, 2, 2)), axis=1).reshape(6, 4)
        corners[:, 2:] += 1
        part_maps = people(*corners[:, [0, 1, 2, 3]].tolist())
        masks = part_maps.to_full().numpy() != 0
        kept = []
        for i, mask in enumerate(masks):
            if all((mask & masks[k]).sum() / (mask | masks[k]).sum() <= 0.5 for k in kept):
                kept.append(i)
        assert different_people(part_maps) == kept

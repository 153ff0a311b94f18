"""Identities, on people who are drawn as rectangles in the colours of their clothes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from aiparsing_d2.inference import ParsedImage
from aiparsing_d2.inference.tracking import PersonTracker
from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

COAT, FACE, PANTS = (CIHP_PART_LABELS.names.index(name) for name in ("Coat", "Face", "Pants"))
RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (30, 150, 30)
HEIGHT, WIDTH = 60, 120


def parsed(*people) -> ParsedImage:
    """People as (left side, colour) or (left side, colour, label): 20 wide, 40 high."""
    image = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
    maps = np.zeros((len(people), HEIGHT, WIDTH), dtype=np.uint8)
    for person_map, (x, color, *label) in zip(maps, people):
        person_map[10:50, max(x, 0) : x + 20] = label[0] if label else COAT
        image[person_map > 0] = color
    part_maps = PartMaps.from_full(maps)
    instances = Instances(
        (HEIGHT, WIDTH),
        pred_boxes=part_maps.get_bounding_boxes() if people else Boxes(torch.zeros(0, 4)),
        scores=torch.linspace(0.9, 0.5, len(people)),
        pred_part_maps=part_maps,
    )
    return ParsedImage(instances, CIHP_PART_LABELS, image)


def ids(tracker, seconds, *people) -> list[int]:
    return tracker.update(parsed(*people), seconds).tolist()


def test_people_are_numbered_as_they_come_and_keep_their_numbers():
    tracker = PersonTracker()
    assert ids(tracker, 0) == []
    assert ids(tracker, 1, (10, RED), (60, BLUE)) == [1, 2]
    assert ids(tracker, 2, (62, BLUE), (12, RED)) == [2, 1]
    assert ids(tracker, 3, (14, RED), (64, BLUE), (98, GREEN)) == [1, 2, 3]
    assert ids(tracker, 3.1) == []
    assert tracker.num_people == 3


def test_people_who_pass_each_other_are_told_apart_by_their_clothes():
    """Each stands where the other was: the boxes alone say the opposite."""
    tracker = PersonTracker()
    assert ids(tracker, 0, (40, RED), (60, BLUE)) == [1, 2]
    assert ids(tracker, 0.1, (60, RED), (40, BLUE)) == [1, 2]


def test_people_in_the_same_clothes_are_told_apart_by_their_places():
    tracker = PersonTracker()
    assert ids(tracker, 0, (20, RED), (70, RED)) == [1, 2]
    assert ids(tracker, 0.1, (66, RED), (24, RED)) == [2, 1]


def test_a_person_who_is_away_for_a_while_comes_back():
    tracker = PersonTracker(memory=3)
    assert ids(tracker, 0, (10, RED), (60, BLUE)) == [1, 2]
    assert ids(tracker, 1, (60, BLUE)) == [2]
    assert ids(tracker, 3, (60, BLUE), (95, RED)) == [2, 1]  # elsewhere
    assert ids(tracker, 3.5, (60, BLUE)) == [2]
    assert ids(tracker, 6.2, (60, BLUE), (95, RED)) == [2, 3]  # forgotten


def test_others_in_the_place_of_somebody_are_new():
    tracker = PersonTracker()
    assert ids(tracker, 0, (10, (250, 250, 250))) == [1]
    assert ids(tracker, 0.1, (60, (5, 5, 5))) == [2]


def test_similarity_is_what_the_module_says():
    """The lowest similarity that counts, 0.3, is met or missed by a step of the colour."""
    # Without a common pixel it is 2 / 3 exp(-d / 40), so d may be 40 ln(1 / 0.45) = 31.9.
    for distance, expected in ((31, 1), (33, 2)):
        tracker = PersonTracker()
        assert ids(tracker, 0, (10, (100, 100, 100))) == [1]
        assert ids(tracker, 0.1, (60, (100 + distance,) * 3)) == [expected]


def test_only_parts_that_both_show_are_compared():
    tracker = PersonTracker()
    assert ids(tracker, 0, (10, RED, COAT)) == [1]
    # From behind: no part in common, likeness 1 / 2, so 1 / 3 with no common pixel.
    assert ids(tracker, 0.1, (60, BLUE, FACE)) == [1]
    # Both parts are remembered.
    assert ids(tracker, 0.2, (10, RED, COAT)) == [1]
    assert ids(tracker, 0.3, (60, GREEN, FACE)) == [2]


def test_colours_follow_the_light():
    tracker = PersonTracker()
    for step in range(12):
        assert ids(tracker, 0.1 * step, (10 + 2 * step, (80 + 10 * step,) * 3)) == [1]


@pytest.mark.parametrize("size", [(700, 300), (60, 20)])
def test_large_people_are_sampled(size):
    """Half of a large person is darker; the mean is that of all pixels, or nearly."""
    from aiparsing_d2.inference.tracking import _look

    height, width = size
    image = np.full((*size, 3), 40, dtype=np.uint8)
    image[: height // 2] = 120
    part_maps = PartMaps.from_full(np.full((1, *size), COAT, dtype=np.uint8))
    instances = Instances(
        size,
        pred_boxes=part_maps.get_bounding_boxes(),
        scores=torch.ones(1),
        pred_part_maps=part_maps,
    )
    areas, colors = _look(ParsedImage(instances, CIHP_PART_LABELS, image)[0])
    assert areas[COAT] == pytest.approx(height * width, rel=0.02) and areas.sum() == areas[COAT]
    np.testing.assert_allclose(colors[COAT], 80, atol=1)

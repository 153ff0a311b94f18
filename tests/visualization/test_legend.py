import numpy as np
import pytest

from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS
from aiparsing_d2.visualization import noticeable_labels, part_legend, with_legend
from aiparsing_d2.visualization.legend import INK_COLOR, PAPER_COLOR, _count


@pytest.mark.parametrize("height, width", [(240, 320), (480, 640), (2160, 3840)])
def test_every_part_has_its_colour_and_a_readable_name(height, width):
    drawing = np.full((height, width, 3), 100, dtype=np.uint8)
    legend = part_legend(CIHP_PART_LABELS, range(20))
    sheet = with_legend(drawing, legend)
    assert (sheet[:height] == drawing).all() and sheet.shape[1] == width
    below = sheet[height:]
    letters = max(11, height / 32)
    for _, color in legend:
        ys, xs = np.nonzero((below == color).all(axis=2))
        assert np.ptp(ys) >= 0.7 * letters and np.ptp(xs) >= 0.7 * letters
    assert (below == INK_COLOR).all(axis=2).any()
    # Nothing is cut off at the sides.
    for side in (below[:, 0], below[:, -1], below[0], below[-1]):
        assert (side == PAPER_COLOR).all()


def test_nothing_to_name():
    drawing = np.full((20, 30, 3), 100, dtype=np.uint8)
    assert with_legend(drawing, part_legend(CIHP_PART_LABELS, [0, 255])) is drawing


def test_a_picture_too_small_for_its_legend():
    legend = part_legend(CIHP_PART_LABELS, [2, 13])
    drawing = np.full((20, 30, 3), 100, dtype=np.uint8)
    assert with_legend(drawing, legend) is drawing
    narrow = np.full((300, 8, 3), 100, dtype=np.uint8)
    assert with_legend(narrow, legend).shape[1] == 8


@pytest.mark.parametrize("pixels, noticeable", [(9, [0, 5]), (10, [0, 2, 5])])
def test_a_part_is_noticeable_from_a_thousandth_of_the_largest_person(pixels, noticeable):
    labels, people = np.zeros((2, 150, 150), dtype=np.uint8)
    labels[:100, :100], people[:100, :100] = 5, 1  # 10000 pixels
    labels[140, :pixels], people[140, :pixels] = 2, 2  # of a person who is smaller
    assert noticeable_labels(labels, people.astype(np.uint16)) == noticeable


def test_nobody_has_noticeable_parts():
    nobody = np.zeros((4, 5), dtype=np.uint8)
    assert noticeable_labels(nobody, nobody) == [0]


def test_people_are_counted_as_bincount_counts_them():
    rng = np.random.default_rng(0)
    people = rng.integers(0, 700, (300, 400)).astype(np.uint16)
    np.testing.assert_array_equal(_count(people), np.bincount(people.ravel()))
    np.testing.assert_array_equal(_count(people[:, ::3]), np.bincount(people[:, ::3].ravel()))
    labels = people.astype(np.uint8)
    np.testing.assert_array_equal(_count(labels), np.bincount(labels.ravel()))

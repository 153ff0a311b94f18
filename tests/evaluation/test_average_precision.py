import math

import numpy as np
import pytest

from aiparsing_d2.evaluation.average_precision import (
    average_precision,
    box_average_precision,
    first_claims,
)


@pytest.mark.parametrize(
    ("hits", "num_positives", "expected"),
    [
        ([1], 1, 1.0),
        ([0], 1, 0.0),
        ([1, 1], 4, 0.5),
        ([0, 1], 1, 0.5),
        # Precision 1, 1/2, 2/3: the second hit keeps its own 2/3, the first is not raised.
        ([1, 0, 1], 2, (1 + 2 / 3) / 2),
        # Precision 0, 1/2, 2/3: the envelope lifts the first hit to 2/3.
        ([0, 1, 1], 2, 2 / 3),
        ([1, 0, 0], 1, 1.0),
        # Hits that share ground truth count each.
        ([1, 1, 1], 2, 1.5),
        ([], 3, 0.0),
    ],
)
def test_average_precision_by_hand(hits, num_positives, expected):
    assert average_precision(np.array(hits, dtype=bool), num_positives) == pytest.approx(expected)


def test_average_precision_without_ground_truth_is_undefined():
    assert math.isnan(average_precision(np.array([False, False]), 0))


def test_first_eligible_claimant_gets_the_target():
    targets = np.array([7, 3, 7, 3, 3, 5])
    eligible = np.array([False, True, True, True, False, False])
    np.testing.assert_array_equal(
        first_claims(targets, eligible), [False, True, True, False, False, False]
    )


def test_box_average_precision_by_hand():
    # IoU 0.8 (best score) and 0.5: 7 of COCO's 10 thresholds (.5 to .8) accept the first box, one
    # accepts the second. COCO reads precision at 101 recalls, 51 of which are <= 1/2.
    gt = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], dtype=float)
    boxes = np.array([[0, 0, 10, 8], [20, 0, 30, 5]], dtype=float)
    scores = box_average_precision([(gt, boxes, np.array([0.9, 0.8]))])
    assert scores["AP50"] == pytest.approx(1.0)
    assert scores["AP75"] == pytest.approx(51 / 101)
    assert scores["AP"] == pytest.approx((1.0 + 6 * 51 / 101) / 10)


def test_box_average_precision_of_nothing(capsys):
    boxes, no_boxes = np.array([[0.0, 0.0, 4.0, 4.0]]), np.zeros((0, 4))
    undefined = box_average_precision([(no_boxes, boxes, np.array([0.9]))])
    assert all(math.isnan(value) for value in undefined.values())
    missed = box_average_precision([(boxes, no_boxes, np.zeros(0))])
    assert missed == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    assert capsys.readouterr().out == ""

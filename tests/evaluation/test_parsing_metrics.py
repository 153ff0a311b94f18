"""ParsingMetrics against reference evaluators, brute force, hand-made numbers and invariances."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from brute_force_metrics import brute_force_scores
from reference_cases import CASE_NAMES, load_case
from small_images import C, add, example, flat, random_image, score

from aiparsing_d2.evaluation import (
    CroppedMaps,
    GroundTruth,
    ParsingMetrics,
    PartRegions,
    Prediction,
)


def assert_equals_brute_force(images, **kwargs):
    actual, expected = score(images, **kwargs), brute_force_scores(images, C, **kwargs)

    def check(value, exact):
        assert value == pytest.approx(math.nan if exact is None else float(exact), nan_ok=True)

    for value, exact in zip(actual.class_iou, expected.class_iou, strict=True):
        check(value, exact)
    check(actual.miou, expected.miou)
    check(actual.pixel_accuracy, expected.pixel_accuracy)
    check(actual.mean_accuracy, expected.mean_accuracy)
    for t in range(9):
        check(actual.app[t], expected.app[t])
        check(actual.pcp[t], expected.pcp[t])
        check(actual.apr[t], expected.apr[t])
        for c in range(C):
            check(actual.apr_per_class[c, t], expected.apr_per_class.get(c, [None] * 9)[t])


# Reference evaluators


@pytest.mark.parametrize("cropped", [False, True], ids=["full-size", "cropped"])
@pytest.mark.parametrize("name", CASE_NAMES)
def test_numbers_of_the_reference_evaluators(name, cropped):
    case = load_case(name)
    metrics = ParsingMetrics(case.num_classes, **case.settings)
    as_given = crop_loosely if cropped else np.asarray
    for image in case.images:
        metrics.add_image(
            image.name,
            GroundTruth(as_given(image.gt_maps), image.category_map),
            Prediction(as_given(image.maps), image.scores, image.part_scores, image.boxes),
        )
    scores, expected = metrics.compute(), case.expected

    def check(value, reference):
        reference = np.array(reference, dtype=np.float64)  # null becomes NaN
        np.testing.assert_allclose(value, reference, rtol=0, atol=1e-6)

    check(scores.miou, expected["mIoU"])
    check(scores.class_iou, expected["IoU"])
    check(scores.pixel_accuracy, expected["pixel_acc"])
    check(scores.mean_accuracy, expected["mean_acc"])
    check(scores.app, expected["APp"])
    check(scores.pcp, expected["PCP"])
    check(scores.apr, expected["APr"])
    assert [c for c, ap in enumerate(scores.apr_per_class) if not np.isnan(ap).any()] == (
        expected["APr_classes"]
    )
    for c, reference in expected["APr_per_class"].items():
        check(scores.apr_per_class[int(c)], reference)
    assert scores.box.keys() == expected["bbox"].keys()
    for key, reference in expected["bbox"].items():
        check(scores.box[key], reference)
    percent = metrics.summarize()["parsing"]
    check(percent["APpvol"] / 100, expected["APp_vol"])
    check(percent["APp50"] / 100, expected["APp_50"])
    check(percent["PCP50"] / 100, expected["PCP_50"])
    check(percent["APrvol"] / 100, expected["APr_vol"])


@pytest.mark.parametrize("name", CASE_NAMES)
def test_pictures_of_the_reference_evaluators_instead_of_people(name):
    case = load_case(name)
    metrics = ParsingMetrics(case.num_classes, **case.settings)
    for image in case.images:
        prediction = Prediction(
            image.maps[:0],
            [],
            category_map=image.shown_category_map,
            part_regions=PartRegions(image.region_map, image.region_classes, image.region_scores),
        )
        metrics.add_image(image.name, GroundTruth(image.gt_maps, image.category_map), prediction)
    scores, expected = metrics.compute(), case.expected
    np.testing.assert_allclose(scores.class_iou, np.array(expected["IoU"], float), atol=1e-6)
    np.testing.assert_allclose(scores.pixel_accuracy, expected["pixel_acc"], atol=1e-6)
    np.testing.assert_allclose(scores.apr, expected["APr"], atol=1e-6)
    for c, reference in expected["APr_per_class"].items():
        np.testing.assert_allclose(scores.apr_per_class[int(c)], reference, atol=1e-6)
    np.testing.assert_array_equal(scores.app, 0)


def crop_loosely(maps):
    """Windows with a margin of zeros, as predicted maps have them."""
    windows, crops = [], []
    for part_map in maps:
        ys, xs = np.nonzero(part_map)
        x0, y0 = max(xs.min() - 3, 0), max(ys.min() - 2, 0)
        x1, y1 = min(xs.max() + 5, part_map.shape[1]), min(ys.max() + 4, part_map.shape[0])
        windows.append((x0, y0, x1, y1))
        crops.append(part_map[y0:y1, x0:x1])
    return CroppedMaps(crops, np.array(windows))


# Brute force


@pytest.mark.parametrize("seed", range(12))
def test_brute_force_gives_the_same(seed):
    rng = np.random.default_rng(seed)
    images = [random_image(rng, rng.integers(0, 4), rng.integers(0, 5)) for _ in range(4)]
    assert_equals_brute_force(images)
    # A semantic threshold below that of AP^r exchanges which of the two hides more people.
    assert_equals_brute_force(images, score_thresh=0.2, semseg_thresh=0.001, part_score_thresh=0.3)
    assert_equals_brute_force(images, part_regions_skip_ignored=True)


def test_brute_force_gives_the_same_for_a_crowd():
    rng = np.random.default_rng(0)
    assert_equals_brute_force([random_image(rng, 19, 3), random_image(rng, 8, 2)])


# By hand


def test_whole_result_of_two_people_by_hand():
    gt = [[[1, 1, 0, 0], [2, 2, 0, 0]], [[0, 0, 3, 3], [0, 0, 0, 0]]]
    pred = [[[1, 1, 0, 0], [2, 0, 0, 0]], [[0, 0, 3, 3], [0, 0, 3, 3]]]
    scores = score([example(gt, pred, [0.9, 0.5])])
    # The composed maps: background shares none of 3 pixels, part 1 both, 2 one of 2, 3 two of 4.
    np.testing.assert_allclose(scores.class_iou, [0, 1, 1 / 2, 1 / 2, np.nan])
    assert scores.miou == pytest.approx(1 / 2)
    assert scores.pixel_accuracy == pytest.approx(5 / 8)
    assert scores.mean_accuracy == pytest.approx((0 + 1 + 1 / 2 + 1) / 4)
    # mIoU of the left pair: background 4/5, parts 1 and 1/2: .767. Right: 4/6 and 2/4: .583.
    np.testing.assert_allclose(scores.app, [1] * 5 + [1 / 2] * 2 + [0] * 2)
    # At .5 an IoU of 1/2 is no longer above the threshold: one of two parts and none of one.
    np.testing.assert_allclose(scores.pcp, [1] * 4 + [1 / 4] * 3 + [0] * 2)
    np.testing.assert_allclose(scores.apr_per_class[1], [1] * 9)
    np.testing.assert_allclose(scores.apr_per_class[2:4], [[1] * 4 + [0] * 5] * 2)
    np.testing.assert_allclose(scores.apr, [1] * 4 + [1 / 3] * 5)


def test_summary_is_in_percent_under_detectron2_names():
    gt = [[[1, 1, 0, 0]]]
    metrics = ParsingMetrics(3, ["Background", "Hat", "Left-arm"])
    metrics.add_image(
        "a",
        GroundTruth(np.array(gt, dtype=np.uint8), np.array(gt[0], dtype=np.uint8)),
        Prediction(np.array([[[1, 0, 0, 0]]], dtype=np.uint8), [0.9], boxes=[[0, 0, 1, 1]]),
    )
    summary = metrics.summarize()
    parsing = summary["parsing"]
    # Background 2/3 and hat 1/2.
    assert parsing["mIoU"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert parsing["IoU-Hat"] == pytest.approx(50)
    assert math.isnan(parsing["IoU-Left-arm"])
    assert parsing["APp50"] == parsing["APp-50"] == pytest.approx(100)
    assert parsing["APp-60"] == 0
    assert parsing["APpvol"] == pytest.approx(100 * 5 / 9)
    assert parsing["APrvol-Hat"] == parsing["APrvol"] == pytest.approx(100 * 4 / 9)
    assert [name for name in parsing if "-" not in name] == [
        "mIoU", "pACC", "mACC", "APp50", "APpvol", "PCP50", "APr50", "APrvol"
    ]  # fmt: skip
    # The box has an IoU of exactly 1/2, which COCO counts as a match at .5.
    assert summary["bbox"] == pytest.approx({"AP": 10, "AP50": 100, "AP75": 0})
    assert all(type(value) is float for group in summary.values() for value in group.values())


def test_best_person_is_not_exchanged_for_a_free_one():
    # Both predictions are closest to the left person, the second also overlaps the right one by
    # enough for a match at .1 to .4; it has no second choice.
    gt = [[[1, 1, 1, 1, 0, 0, 0, 0]], [[0, 0, 0, 0, 1, 1, 0, 0]]]
    pred = [[[1, 1, 1, 1, 0, 0, 0, 0]], [[1, 1, 1, 1, 1, 1, 0, 0]]]
    scores = score([example(gt, pred, [0.9, 0.8])])
    np.testing.assert_allclose(scores.app, [1 / 2] * 9)


def test_first_of_several_best_people_is_taken():
    # The surer prediction has a mIoU of 1/2 with both people and takes the first, so that the
    # other one finds the second free.
    gt = [[[1, 1, 0, 0, 0, 0]], [[0, 0, 1, 1, 0, 0]]]
    pred = [[[1, 1, 1, 1, 0, 0]], [[0, 0, 1, 1, 0, 0]]]
    scores = score([example(gt, pred, [0.9, 0.8])])
    np.testing.assert_allclose(scores.app, [1] * 4 + [1 / 4] * 5)


@pytest.mark.parametrize("right", list(itertools.permutations((1, 2, 3))))
def test_match_needs_more_than_the_threshold_in_any_order_of_classes(right):
    # Three classes whose unions have 10 pixels each, of which 1, 2 and 3 are right: mIoU = .2.
    # Added up one by one, .1 + .2 + .3 exceeds .6 in floating point, .3 + .2 + .1 does not.
    confused = {(0, 1): 2 + right[2], (2, 0): 2 + right[1], (1, 2): 2 + right[0]}
    pairs = [(c, c) for c in range(3) for _ in range(right[c])]
    pairs += [pair for pair, count in confused.items() for _ in range(count)]
    gt, pred = np.array(pairs).T
    scores = score([example([[gt]], [[pred]], [0.9])])
    np.testing.assert_array_equal(scores.app, [1] + [0] * 8)
    np.testing.assert_allclose(scores.class_iou[:3], np.array(right) / 10)


def test_equal_scores_rank_by_image_order_then_index():
    right = [[1, 1, 0, 0]]
    wrong = [[0, 0, 0, 3]]
    good, bad = example([right], [right], [0.5]), example([right], [wrong], [0.5])
    # Hit before miss: precision 1 at recall 1/2. Miss before hit: precision 1/2.
    assert score([good, bad]).app[4] == pytest.approx(1 / 2)
    assert score([bad, good]).app[4] == pytest.approx(1 / 4)
    metrics = ParsingMetrics(C)
    add(metrics, "second", bad, image_order=1)
    add(metrics, "first", good, image_order=0)
    assert metrics.compute().app[4] == pytest.approx(1 / 2)
    within = example([right], [right, wrong], [0.5, 0.5])
    assert score([within]).app[4] == pytest.approx(1)
    within = example([right], [wrong, right], [0.5, 0.5])
    assert score([within]).app[4] == pytest.approx(1 / 2)


def test_part_regions_of_equal_scores_rank_in_reverse_order():
    right, wrong = [[1, 1, 0, 0]], [[0, 0, 0, 1]]
    good, bad = example([right], [right], [0.5]), example([right], [wrong], [0.5])
    # The later image first. Miss before hit: precision 1/2 at recall 1/2.
    assert score([good, bad]).apr[4] == pytest.approx(1 / 4)
    assert score([bad, good]).apr[4] == pytest.approx(1 / 2)
    metrics = ParsingMetrics(C)
    add(metrics, "second", good, image_order=1)
    add(metrics, "first", bad, image_order=0)
    assert metrics.compute().apr[4] == pytest.approx(1 / 2)
    # Within an image, the person painted later first, as the published evaluators list people: the
    # one with the higher person score, of equal ones the later.
    for scores, first in (([0.5, 0.5], 1), ([0.9, 0.5], 0), ([0.5, 0.9], 1)):
        part_scores = np.full((2, C - 1), 0.3)
        for is_right in (0, 1):
            people = [right, wrong] if is_right == 0 else [wrong, right]
            within = example([right], people, scores, part_scores)
            assert score([within]).apr[4] == pytest.approx(1 if first == is_right else 1 / 2)
    # Also one to one: the later person, with IoU 1/3, comes before the one with 2/3.
    halves = example([[[1, 1, 1]]], [[[1, 1, 0]], [[0, 0, 1]]], [0.5, 0.5])
    one_to_one = score([halves], part_regions_one_to_one=True)
    np.testing.assert_allclose(one_to_one.apr, [1] * 3 + [1 / 2] * 3 + [0] * 3)


@pytest.mark.parametrize(("region_map", "apr"), [([[1, 2, 0]], 1), ([[2, 1, 0]], 1 / 2)])
def test_given_part_regions_of_equal_scores_rank_in_reverse_order(region_map, apr):
    truth = np.array([[[0, 1, 0]]], dtype=np.uint8)  # only the second pixel is right
    regions = PartRegions(np.array(region_map), [1, 1], [0.5, 0.5])
    metrics = ParsingMetrics(C)
    prediction = Prediction(truth[:0], [], part_regions=regions)
    metrics.add_image("a", GroundTruth(truth, truth[0]), prediction)
    assert metrics.compute().apr[4] == pytest.approx(apr)


def test_later_person_lies_on_top_of_an_equal_score():
    gt = [[[1, 1]]]
    scores = score([example(gt, [[[1, 1]], [[2, 2]]], [0.5, 0.5])])
    np.testing.assert_allclose(scores.class_iou[1:3], [0, 0])
    scores = score([example(gt, [[[2, 2]], [[1, 1]]], [0.5, 0.5])])
    np.testing.assert_allclose(scores.class_iou[1], 1)


def test_score_thresholds_are_inclusive_and_separate():
    gt = [[[1, 1, 0, 0]]]
    for person_score, app, miou, apr in [
        (0.3, 1, 1, 1),
        (0.29, 1, 1 / 4, 1),  # not painted: background 2/4, part 0
        (0.01, 1, 1 / 4, 1),
        (0.009, 1, 1 / 4, 0),
        (0.001, 1, 1 / 4, 0),
        (0.0009, 0, 1 / 4, 0),
    ]:
        scores = score([example(gt, gt, [person_score])])
        assert (scores.app[4], scores.miou, scores.apr[4]) == (app, miou, apr)


def test_low_scores_are_not_false_positives():
    gt = [[[1, 1, 0, 0]]]
    missed = example(gt, [[[0, 0, 2, 0]], [[1, 1, 0, 0]]], [0.0009, 0.0008])
    found = example(gt, gt, [0.5])
    assert score([found, missed]).app[4] == pytest.approx(1 / 2)


def test_part_regions_share_ground_truth_unless_one_to_one():
    # Two predictions halve a part of 4 pixels into IoU 1/2 each.
    image = example([[[1, 1, 1, 1]]], [[[1, 1, 0, 0]], [[0, 0, 1, 1]]], [0.9, 0.8])
    np.testing.assert_allclose(score([image]).apr, [2] * 4 + [0] * 5)
    one_to_one = score([image], part_regions_one_to_one=True)
    np.testing.assert_allclose(one_to_one.apr, [1] * 4 + [0] * 5)


def test_part_scores_rank_part_regions():
    # Part 2 is wrong in the surer person, so the person scores would rank the miss first.
    gt = [[[2, 2, 0, 0]], [[0, 0, 0, 2]]]
    pred = [[[0, 0, 2, 0]], [[2, 2, 0, 0]]]
    part_scores = [[0.5, 0.1, 0.5, 0.5], [0.5, 0.4, 0.5, 0.5]]
    assert score([example(gt, pred, [0.9, 0.8], part_scores)]).apr[4] == pytest.approx(1 / 2)
    assert score([example(gt, pred, [0.9, 0.8])]).apr[4] == pytest.approx(1 / 4)


def test_only_visible_parts_form_regions():
    # The surer person hides part 1 of the other completely: no instance, no false positive.
    image = example([[[3, 3, 2, 2]]], [[[1, 1, 2, 2]], [[3, 3, 0, 0]]], [0.5, 0.9])
    scores = score([image])
    np.testing.assert_allclose(scores.apr_per_class[2:4], 1)
    assert np.isnan(scores.apr_per_class[1]).all()


def test_given_pictures_are_scored_instead_of_painted_people():
    person = np.array([[[1, 1, 0, 0]]], dtype=np.uint8)
    regions = PartRegions(np.array([[0, 2, 4, 4]], dtype=np.uint16), [3, 1, 1, 2], [0.9] * 4)

    def scores(**pictures):
        metrics = ParsingMetrics(C)
        prediction = Prediction(person, [0.9], **pictures)
        metrics.add_image("a", GroundTruth(person, person[0]), prediction)
        return metrics.compute()

    assert scores().miou == scores().apr[0] == 1
    with_map = scores(category_map=np.array([[1, 0, 0, 0]], dtype=np.uint8))
    np.testing.assert_allclose(with_map.class_iou[:2], [2 / 3, 1 / 2])
    # Region 2 is half of part 1, region 4 a false alarm of a class without ground truth; 1 and 3
    # have no pixel and do not count.
    with_regions = scores(part_regions=regions)
    np.testing.assert_allclose(with_regions.apr_per_class[1], [1] * 4 + [0] * 5)
    assert np.isnan(with_regions.apr_per_class[2:]).all()
    for result in (with_map, with_regions):
        np.testing.assert_array_equal([result.app, result.pcp], np.ones((2, 9)))
    assert with_map.apr[0] == with_regions.miou == 1


def test_more_people_than_a_byte_can_number():
    # One person a pixel; only one is sure enough to be matched, all are painted.
    maps = np.eye(300, dtype=np.uint8)[:, None]
    maps[299] *= 2
    scores = np.linspace(0.3, 0.9, 300)
    image = example(maps, maps, scores)
    result = score([image], score_thresh=0.9)
    np.testing.assert_array_equal(result.class_iou[1:3], 1)
    np.testing.assert_array_equal(result.apr, np.ones(9))
    np.testing.assert_allclose(result.app, np.full(9, 1 / 300))


def test_more_part_regions_than_a_byte_can_number():
    # One region a pixel, the only right one numbered 300.
    label_map = np.zeros((1, 1, 300), dtype=np.uint8)
    label_map[0, 0, 299] = 2
    regions = PartRegions(
        np.arange(1, 301, dtype=np.uint16)[None], np.repeat([1, 2], [299, 1]), np.ones(300)
    )
    metrics = ParsingMetrics(C)
    prediction = Prediction(label_map, [0.5], part_regions=regions)
    metrics.add_image("a", GroundTruth(label_map, label_map[0]), prediction)
    scores = metrics.compute()
    np.testing.assert_array_equal(scores.apr, np.ones(9))


# Degenerate input


def test_no_images_at_all():
    assert np.isnan(flat(ParsingMetrics(C).compute())).all()
    values = ParsingMetrics(C).summarize()["parsing"].values()
    assert all(math.isnan(value) for value in values)


def test_image_without_people():
    nobody = example(np.zeros((0, 2, 3)), np.zeros((0, 2, 3)), [])
    scores = score([nobody])
    assert scores.miou == scores.pixel_accuracy == 1
    assert np.isnan([*scores.app, *scores.pcp, *scores.apr]).all()
    false_alarm = example(np.zeros((0, 1, 4)), [[[1, 0, 0, 0]]], [0.9])
    scores = score([false_alarm])
    np.testing.assert_allclose(scores.class_iou, [3 / 4, 0, np.nan, np.nan, np.nan])
    assert np.isnan([*scores.app, *scores.pcp, *scores.apr]).all()
    # Beside an image with a person, the false alarm costs precision.
    person = [[[1, 1, 0, 0]]]
    assert score([example(person, person, [0.8]), false_alarm]).app[4] == pytest.approx(1 / 2)


def test_missed_people_count_as_background():
    scores = score([example([[[1, 1, 0, 0]]], np.zeros((0, 1, 4)), [])])
    np.testing.assert_allclose(scores.class_iou[:2], [2 / 4, 0])
    np.testing.assert_array_equal([scores.app, scores.pcp, scores.apr], np.zeros((3, 9)))


def test_prediction_without_a_pixel():
    empty = example([[[1, 1, 0, 0]]], [[[0, 0, 0, 0]]], [0.9])
    # mIoU with the person: background 2/4, part 0.
    np.testing.assert_allclose(score([empty]).app, [1, 1] + [0] * 7)
    np.testing.assert_allclose(score([empty]).pcp, 0)


@pytest.mark.parametrize("prediction", [0, 1])
def test_everything_ignored(prediction):
    everywhere = np.full((1, 3, 3), 255)
    scores = score([example(everywhere, np.full((1, 3, 3), prediction), [0.9])])
    assert np.isnan(scores.class_iou).all()
    assert math.isnan(scores.miou) and math.isnan(scores.pixel_accuracy)
    # The person is still one to be found, and cannot be.
    np.testing.assert_array_equal([scores.app, scores.pcp], np.zeros((2, 9)))
    assert np.isnan(scores.apr).all()


def test_ignored_pixels_do_not_count_but_in_the_union_of_apr():
    # The person is right but for the ignored pixels, and so is a false alarm that lies on them.
    image = example([[[1, 1, 255, 255, 0, 0]]], [[[1, 1, 2, 1, 0, 0]]], [0.9])
    scores = score([image])
    np.testing.assert_allclose(scores.class_iou, [1, 1, np.nan, np.nan, np.nan])
    np.testing.assert_allclose([scores.app, scores.pcp], np.ones((2, 9)))
    np.testing.assert_allclose(scores.apr, [1] * 6 + [0] * 3)  # IoU 2/3
    assert np.isnan(scores.apr_per_class[2]).all()
    np.testing.assert_allclose(score([image], part_regions_skip_ignored=True).apr, np.ones(9))

    # A surer region on ignored pixels alone is a false positive, or none at all.
    gt = [[[1, 1, 255, 255, 0, 0]]]
    image = example(gt, [[[1, 1, 0, 0, 0, 0]], [[0, 0, 1, 1, 0, 0]]], [0.8, 0.9])
    np.testing.assert_allclose(score([image]).apr, np.full(9, 1 / 2))
    np.testing.assert_allclose(score([image], part_regions_skip_ignored=True).apr, np.ones(9))


def test_a_pixel_is_ignored_where_either_map_of_the_ground_truth_says_so():
    # The person map has part 1 where the category map ignores, and the other way round.
    image = example([[[1, 1, 1, 255]]], [[[1, 1, 1, 1]]], [0.9], category_map=[[1, 1, 255, 1]])
    np.testing.assert_allclose(score([image]).apr, [1] * 4 + [0] * 5)  # 2 of 4
    np.testing.assert_allclose(score([image], part_regions_skip_ignored=True).apr, np.ones(9))


# Errors


def break_image(**changes):
    gt = np.array([[[1, 1, 0, 0]]], dtype=np.uint8)
    arrays = {"gt_maps": gt, "category_map": gt[0], "maps": gt, "scores": [0.5], **changes}
    truth = GroundTruth(arrays["gt_maps"], arrays["category_map"], arrays.get("gt_boxes"))
    return truth, Prediction(
        arrays["maps"],
        arrays["scores"],
        arrays.get("part_scores"),
        arrays.get("boxes"),
        arrays.get("box_scores"),
        arrays.get("shown"),
        PartRegions(*arrays["regions"]) if "regions" in arrays else None,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": np.full((1, 1, 4), C, dtype=np.uint8)}, "map 0 has the label 5.*5 classes"),
        ({"maps": np.full((1, 1, 4), 255, dtype=np.uint8)}, "map 0 has the label 255"),
        ({"maps": np.zeros((1, 1, 5), dtype=np.uint8)}, "predicted person maps must be uint8"),
        ({"maps": np.zeros((1, 1, 4), dtype=np.int64)}, "predicted person maps.*int64"),
        ({"maps": np.zeros((1, 4), dtype=np.uint8)}, "predicted person maps must be uint8"),
        ({"gt_maps": np.zeros((1, 2, 4), dtype=np.uint8)}, "ground-truth person maps must be"),
        ({"category_map": np.zeros((1, 4))}, "category map must be uint8"),
        ({"category_map": np.zeros((1, 4, 3), dtype=np.uint8)}, "category map must be uint8"),
        ({"scores": [0.5, 0.5]}, r"person scores must have shape \(1,\), got \(2,\)"),
        ({"scores": [math.nan]}, "person scores must be finite, got nan"),
        ({"part_scores": np.zeros((1, C))}, "part scores must have shape"),
        ({"part_scores": np.full((1, C - 1), np.inf)}, "part scores must be finite"),
        ({"boxes": np.zeros((2, 4))}, "predicted boxes must have shape"),
        ({"boxes": [[0, 0, 1, math.nan]]}, "predicted boxes must be finite"),
        ({"gt_boxes": np.zeros((2, 4))}, "ground-truth boxes must have shape"),
        ({"box_scores": [math.nan]}, "box scores must be finite"),
        ({"shown": np.full((1, 4), C, np.uint8)}, "predicted category map has the label 5.*5 cl"),
        ({"shown": np.zeros((1, 5), np.uint8)}, r"predicted category map must have shape \(1, 4\)"),
        ({"shown": np.zeros((1, 4))}, "predicted category map must be uint8.*float64"),
        ({"regions": (np.zeros((1, 4)), [], [])}, "part region map must hold integers.*float64"),
        ({"regions": (np.zeros((1, 5), int), [], [])}, r"part region map.*shape \(1, 4\).*1, 5"),
        ({"regions": (np.full((1, 4), 2), [1], [0.5])}, "part region map has the value 2.*1 reg"),
        ({"regions": (np.full((1, 4), -1), [1], [0.5])}, "part region map has the value -1"),
        ({"regions": (np.ones((1, 4), int), [C], [0.5])}, "part region 1 has the class 5"),
        ({"regions": (np.ones((1, 4), int), [0], [0.5])}, "part region 1 has the class 0"),
        ({"regions": (np.ones((1, 4), int), [1.0], [0.5])}, "classes must be integers.*float64"),
        ({"regions": (np.ones((1, 4), int), [1], [0.5, 0.5])}, r"region scores.*shape \(1,\)"),
        ({"regions": (np.ones((1, 4), int), [1], [math.nan])}, "region scores must be finite"),
        (
            {"maps": CroppedMaps([np.zeros((1, 2), np.uint8)], np.array([[3, 0, 5, 1]]))},
            r"window 0 \(3, 0, 5, 1\) leaves the 1 x 4",
        ),
        (
            {"maps": CroppedMaps([np.zeros((2, 1), np.uint8)], np.array([[0, 0, 2, 1]]))},
            r"map 0 must be uint8 with shape \(1, 2\) of its window",
        ),
        ({"maps": CroppedMaps([], np.array([[0, 0, 2, 1]]))}, "0 maps but 1 windows"),
    ],
)
def test_broken_input_names_the_image_and_counts_nothing(changes, message):
    metrics = ParsingMetrics(C)
    with pytest.raises(ValueError, match=f"image 'folder/0001': .*{message}"):
        metrics.add_image("folder/0001", *break_image(**changes))
    assert metrics.num_images == 0
    assert np.isnan(flat(metrics.compute())).all()
    metrics.add_image("folder/0001", *break_image())


def test_an_image_counts_once():
    metrics = ParsingMetrics(C)
    metrics.add_image("a", *break_image())
    with pytest.raises(ValueError, match="'a' was scored already"):
        metrics.add_image("a", *break_image())
    with pytest.raises(ValueError, match="'b' has the order 0 of image 'a'"):
        metrics.add_image("b", *break_image(), image_order=0)
    other = ParsingMetrics(C)
    other.add_image("a", *break_image(), image_order=7)
    with pytest.raises(ValueError, match="'a' was scored already"):
        metrics.merge(other)
    assert metrics.num_images == 1


def test_only_equal_settings_merge():
    with pytest.raises(ValueError, match="num_classes 4 into 5"):
        ParsingMetrics(5).merge(ParsingMetrics(4))
    with pytest.raises(ValueError, match="score_thresholds"):
        ParsingMetrics(5).merge(ParsingMetrics(5, semseg_thresh=0.05))
    with pytest.raises(ValueError, match="part_regions_skip_ignored True into False"):
        ParsingMetrics(5).merge(ParsingMetrics(5, part_regions_skip_ignored=True))


def test_boxes_for_all_predictions_or_for_none():
    metrics = ParsingMetrics(C)
    metrics.add_image("nobody", *break_image(maps=np.zeros((0, 1, 4), np.uint8), scores=[]))
    assert metrics.compute().box == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    metrics.add_image("with", *break_image(boxes=[[0, 0, 2, 1]]))
    assert metrics.compute().box["AP50"] == pytest.approx(51 / 101)
    metrics.add_image("without", *break_image())
    with pytest.raises(ValueError, match="'without' has predictions without boxes"):
        metrics.compute()


@pytest.mark.parametrize("arguments", [(1,), (256,), (3, ["a", "b"]), (3, ["a", "b", "b"])])
def test_impossible_label_sets(arguments):
    with pytest.raises(ValueError, match="num_classes must be|different names"):
        ParsingMetrics(*arguments)


# State


def test_record_does_not_grow_with_the_image():
    image = random_image(np.random.default_rng(0), 3, 4)
    sizes = []
    for factor in (1, 20):
        metrics = ParsingMetrics(C)
        zoom = np.ones((factor, factor), dtype=np.uint8)
        big = dataclasses.replace(
            image,
            gt_maps=np.kron(image.gt_maps, zoom[None]),
            category_map=np.kron(image.category_map, zoom),
            maps=np.kron(image.maps, zoom[None]),
        )
        add(metrics, "a", big)
        sizes.append(len(pickle.dumps(metrics)))
    assert sizes[0] == sizes[1] < 6000


def test_an_image_leaves_less_than_a_kilobyte():
    image = random_image(np.random.default_rng(0), 4, 5)
    metrics = ParsingMetrics(C)
    sizes = []
    for i in range(150):
        add(metrics, f"{i:07d}", image)
        sizes.append(len(pickle.dumps(metrics)) if i in (49, 149) else 0)
    assert 4 * 33 + 5 * 22 < (sizes[149] - sizes[49]) / 100 < 1000


def test_callers_arrays_may_be_reused():
    case = load_case("02_cihp_noisy")
    kept, reused = ParsingMetrics(20), ParsingMetrics(20)
    for image in case.images:
        arrays = [image.gt_maps, image.category_map, image.gt_boxes, image.maps, image.scores,
                  image.part_scores, image.boxes, image.scores]  # fmt: skip
        kept.add_image(image.name, GroundTruth(*arrays[:3]), Prediction(*arrays[3:]))
        copies = [array.copy() for array in arrays]
        reused.add_image(image.name, GroundTruth(*copies[:3]), Prediction(*copies[3:]))
        for array in copies:
            array[...] = 0
    np.testing.assert_array_equal(flat(reused.compute()), flat(kept.compute()))


@pytest.mark.parametrize("name", CASE_NAMES)
def test_parts_merge_to_the_same_bits(name):
    case = load_case(name)
    together = ParsingMetrics(case.num_classes, **case.settings)
    parts = [ParsingMetrics(case.num_classes, **case.settings) for _ in range(3)]
    for order, image in reversed(list(enumerate(case.images))):
        for metrics in (together, parts[(5 * order) % 3]):
            metrics.add_image(
                image.name,
                GroundTruth(image.gt_maps, image.category_map, image.gt_boxes),
                Prediction(image.maps, image.scores, image.part_scores, image.boxes),
                image_order=order,
            )
    merged = ParsingMetrics(case.num_classes, **case.settings)
    for part in parts:
        merged.merge(pickle.loads(pickle.dumps(part)))
    np.testing.assert_array_equal(flat(merged.compute()), flat(together.compute()))


def test_core_needs_no_detectron2_and_no_torch():
    script = """
import sys
sys.modules["detectron2"] = sys.modules["torch"] = None
import numpy as np
from aiparsing_d2.evaluation import GroundTruth, ParsingMetrics, Prediction
person = np.array([[[1, 1, 0]]], dtype=np.uint8)
metrics = ParsingMetrics(2)
metrics.add_image("a", GroundTruth(person, person[0]), Prediction(person, [0.9]))
print(metrics.summarize()["parsing"]["APpvol"])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "100.0", result.stderr

"""Written predictions, read back: what scores the same, and under which conditions."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from reference_cases import CASE_FOLDER, CASE_NAMES, load_case
from submission_scenes import (
    NUM_CLASSES,
    SIZE,
    assert_same_people,
    assert_same_pixels_and_regions,
    random_scene,
    score,
)

from aiparsing_d2.evaluation import (
    CroppedMaps,
    GroundTruth,
    ParsingMetrics,
    PartRegions,
    Prediction,
)
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.submissions import (
    SUBMISSION_FORMATS,
    CihpSubmission,
    LvMhpV2Submission,
    PersonMapsSubmission,
    open_submission,
)


def image_id(format_name: str, n: int) -> str:
    return f"videos{n % 2}/{n:012d}" if format_name == "vip" else f"{n:07d}"


def write_and_read(submission, predictions, size=SIZE):
    """The predictions, after a way through files and another instance of the class."""
    ids = [image_id(submission.format_name, n) for n in range(len(predictions))]
    lines = [submission.write(i, p, size) for i, p in zip(ids, predictions)]
    submission.write_index(lines)
    again = open_submission(submission.files.root, submission.num_classes)
    assert type(again) is type(submission)
    assert again.image_ids() == set(ids)
    return [again.read(i, size) for i in ids]


@pytest.mark.parametrize("name", CASE_NAMES)
def test_person_maps_give_the_numbers_of_the_reference_evaluators(name, tmp_path):
    case = load_case(name)
    submission = PersonMapsSubmission(tmp_path, case.num_classes)
    metrics = ParsingMetrics(case.num_classes, **case.settings)
    for image in case.images:
        size = image.category_map.shape
        prediction = Prediction(image.maps, image.scores, image.part_scores, image.boxes)
        submission.write(image.name, prediction, size)
        read = submission.read(image.name, size)
        for field in ("person_maps", "scores", "part_scores", "boxes"):
            np.testing.assert_array_equal(getattr(read, field), getattr(prediction, field))
        truth = GroundTruth(image.gt_maps, image.category_map, image.gt_boxes)
        metrics.add_image(image.name, truth, read)
    scores, expected = metrics.compute(), case.expected
    np.testing.assert_allclose(scores.miou, expected["mIoU"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores.app, expected["APp"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores.pcp, expected["PCP"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores.apr, expected["APr"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores.box["AP"], expected["bbox"]["AP"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CASE_NAMES)
def test_cihp_files_hold_the_reference_pictures(name, tmp_path):
    """The case files hold composed maps and instances that other code made."""
    case = load_case(name)
    settings = case.settings
    thresholds = ScoreThresholds(
        settings["score_thresh"], settings["semseg_thresh"], settings["part_score_thresh"]
    )
    submission = CihpSubmission(tmp_path, case.num_classes, thresholds)
    metrics = ParsingMetrics(case.num_classes, **settings)
    with np.load(CASE_FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    for i, image in enumerate(case.images):
        size = image.category_map.shape
        prediction = Prediction(image.maps, image.scores, image.part_scores, image.boxes)
        submission.write(image.name, prediction, size)
        read = submission.read(image.name, size)
        np.testing.assert_array_equal(read.category_map, arrays[f"{i}/pred_global"])
        regions = [
            (int(c), float(s), (read.part_regions.region_map == k).tobytes())
            for k, (c, s) in enumerate(
                zip(read.part_regions.classes, read.part_regions.scores), start=1
            )
        ]
        reference = [
            (int(c), float(s), (arrays[f"{i}/pred_inst"] == k).tobytes())
            for k, (c, s) in enumerate(
                zip(arrays[f"{i}/pred_inst_cls"], arrays[f"{i}/pred_inst_score"]), start=1
            )
        ]
        assert sorted(regions) == sorted(reference)
        truth = GroundTruth(image.gt_maps, image.category_map, image.gt_boxes)
        metrics.add_image(image.name, truth, read)
    scores = metrics.compute()
    np.testing.assert_allclose(scores.miou, case.expected["mIoU"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores.apr, case.expected["APr"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("format_name", ["person_maps", "cihp", "vip", "lv_mhp_v2"])
def test_people_side_by_side_score_the_same(format_name, seed, tmp_path):
    rng = np.random.default_rng(seed)
    # No score between the thresholds of matching and of what the pictures show.
    lowest = 0.3 if format_name == "lv_mhp_v2" else 0.01
    scenes = [random_scene(rng, overlapping=False, lowest_score=lowest) for _ in range(6)]
    truths, predictions = zip(*scenes)
    submission = SUBMISSION_FORMATS[format_name](tmp_path, NUM_CLASSES)
    read = write_and_read(submission, predictions)
    before, after = score(truths, predictions), score(truths, read)
    assert_same_people(before, after)
    assert 0 < before.app[0] and before.app[8] < 1  # neither nothing nor everything right
    if format_name == "lv_mhp_v2":
        assert after.miou == before.miou
        assert after.box is None
    else:
        assert_same_pixels_and_regions(before, after)
        assert after.box == before.box


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("format_name", ["person_maps", "cihp", "vip", "lv_mhp_v2"])
def test_overlapping_people_score_the_same_in_what_the_format_holds(format_name, seed, tmp_path):
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, overlapping=True, lowest_score=0.002) for _ in range(6)]
    truths, predictions = zip(*scenes)
    submission = SUBMISSION_FORMATS[format_name](tmp_path, NUM_CLASSES)
    read = write_and_read(submission, predictions)
    before, after = score(truths, predictions), score(truths, read)
    if format_name == "person_maps":
        assert_same_people(before, after)
        assert after.box == before.box
    if format_name == "lv_mhp_v2":
        np.testing.assert_array_equal(before.class_iou, after.class_iou)
    else:
        assert_same_pixels_and_regions(before, after)


def test_where_people_overlap_only_the_visible_one_is_in_cihps_pictures(tmp_path):
    front, behind = np.zeros((2, 2, 6), dtype=np.uint8)
    front[:, 2:5], behind[:, :3] = 1, 2
    prediction = Prediction(np.stack([front, behind]), np.array([0.9, 0.8]))
    (read,) = write_and_read(CihpSubmission(tmp_path, NUM_CLASSES), [prediction], (2, 6))
    np.testing.assert_array_equal(read.person_maps[0], front)
    np.testing.assert_array_equal(read.person_maps[1], [[2, 2, 0, 0, 0, 0]] * 2)


def test_hidden_people_leave_no_line_and_shift_nothing(tmp_path):
    """A line without pixels would give every later person the score of another one."""
    maps = np.zeros((3, 2, 4), dtype=np.uint8)
    maps[0, :, :2], maps[1, :, :2], maps[2, :, 2:] = 1, 2, 3
    prediction = Prediction(maps, np.array([0.4, 0.9, 0.6]))
    (read,) = write_and_read(CihpSubmission(tmp_path, NUM_CLASSES), [prediction], (2, 4))
    np.testing.assert_array_equal(read.scores, [0.9, 0.6])
    np.testing.assert_array_equal(read.person_maps, maps[1:])


def test_cropped_maps_are_written_like_whole_ones(tmp_path):
    crop = np.array([[1, 2]], dtype=np.uint8)
    prediction = Prediction(CroppedMaps([crop], np.array([[1, 0, 3, 1]])), np.array([0.5]))
    (read,) = write_and_read(PersonMapsSubmission(tmp_path, NUM_CLASSES), [prediction], (2, 4))
    np.testing.assert_array_equal(read.person_maps, [[[0, 1, 2, 0], [0, 0, 0, 0]]])


def test_person_maps_hold_every_field_of_a_prediction(tmp_path):
    rng = np.random.default_rng(0)
    region_map = rng.integers(0, 301, size=SIZE)
    region_map.ravel()[:301] = np.arange(301)
    regions = PartRegions(region_map, rng.integers(1, NUM_CLASSES, 300), rng.random(300))
    prediction = Prediction(
        rng.integers(0, NUM_CLASSES, (2, *SIZE), dtype=np.uint8),
        rng.random(2),
        rng.random((2, NUM_CLASSES - 1)),
        np.array([[0.1, 0.2, 3.3, 4.4], [-1, 0, 1e3, 7]]),
        rng.random(2),
        category_map=rng.integers(0, NUM_CLASSES, SIZE, dtype=np.uint8),
        part_regions=regions,
    )
    (read,) = write_and_read(PersonMapsSubmission(tmp_path, NUM_CLASSES), [prediction])
    for field in ("person_maps", "scores", "part_scores", "boxes", "box_scores", "category_map"):
        np.testing.assert_array_equal(getattr(read, field), getattr(prediction, field))
    for field in ("region_map", "classes", "scores"):
        np.testing.assert_array_equal(getattr(read.part_regions, field), getattr(regions, field))


def test_more_than_255_part_regions_take_16_bits(tmp_path):
    maps = np.zeros((20, 20, 19), dtype=np.uint8)
    for n, person_map in enumerate(maps):
        person_map[n] = np.arange(1, 20)
    truth = GroundTruth(maps, maps.max(axis=0))
    rng = np.random.default_rng(0)
    prediction = Prediction(maps, rng.random(20) / 2 + 0.5, rng.random((20, 19)))
    submission = CihpSubmission(tmp_path, 20)
    (read,) = write_and_read(submission, [prediction], (20, 19))
    png = (tmp_path / "instance_parsing" / "0000000.png").read_bytes()
    assert struct.unpack(">IIBB", png[16:26]) == (19, 20, 16, 0)  # width, height, bits, grey
    assert (tmp_path / "instance_segmentation" / "0000000.png").read_bytes()[24] == 8
    assert read.part_regions.region_map.max() == len(read.part_regions.classes) == 380
    assert_same_pixels_and_regions(score([truth], [prediction], 20), score([truth], [read], 20))
    assert score([truth], [read], 20).apr[8] == 1


def test_people_of_lv_mhp_v2_beyond_255_take_16_bits(tmp_path):
    maps = np.zeros((300, 10, 30), dtype=np.uint8)
    maps.reshape(300, 300)[np.arange(300), np.arange(300)] = 1
    prediction = Prediction(maps, np.linspace(0.5, 1, 300))
    (read,) = write_and_read(LvMhpV2Submission(tmp_path, 59), [prediction], (10, 30))
    np.testing.assert_array_equal(read.person_maps, maps)
    np.testing.assert_array_equal(read.scores, prediction.scores)


@pytest.mark.parametrize("format_name", SUBMISSION_FORMATS)
def test_what_cannot_be_read_again_is_not_written(format_name, tmp_path):
    submission = SUBMISSION_FORMATS[format_name](tmp_path / "results", NUM_CLASSES)
    name = image_id(format_name, 0)
    one = np.zeros((1, *SIZE), dtype=np.uint8)
    with pytest.raises(ValueError, match="scores must be in 0..1"):
        submission.write(name, Prediction(one, np.array([1.5])), SIZE)
    with pytest.raises(ValueError, match="scores must be in 0..1"):
        submission.write(name, Prediction(one, np.array([np.nan])), SIZE)
    with pytest.raises(ValueError, match="label 5; labels are 0 to 4"):
        submission.write(name, Prediction(one + np.uint8(5), np.array([0.5])), SIZE)
    with pytest.raises(ValueError, match="shape"):
        submission.write(name, Prediction(one[:, 1:], np.array([0.5])), SIZE)
    with pytest.raises(ValueError, match="leads out of"):
        escape = "../x/0" if format_name == "vip" else "../../x"
        submission.write(escape, Prediction(one, np.array([0.5])), SIZE)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("format_name", SUBMISSION_FORMATS)
def test_nothing_is_overwritten(format_name, tmp_path):
    submission = SUBMISSION_FORMATS[format_name](tmp_path, NUM_CLASSES)
    maps = np.ones((1, *SIZE), dtype=np.uint8)
    name = image_id(format_name, 0)
    submission.write(name, Prediction(maps, np.array([0.5])), SIZE)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(FileExistsError, match="exists"):
        submission.write(name, Prediction(2 * maps, np.array([0.9])), SIZE)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_vip_gives_a_person_without_a_box_that_of_its_pixels(tmp_path):
    maps = np.zeros((1, *SIZE), dtype=np.uint8)
    maps[0, 2:5, 7:11] = 1
    submission = SUBMISSION_FORMATS["vip"](tmp_path, NUM_CLASSES)
    submission.write("v/1", Prediction(maps, np.array([0.5])), SIZE)
    text = (tmp_path / "v" / "instance_segmentation" / "1.txt").read_text()
    assert text == "0.5 2 7 5 11\n"  # score y1 x1 y2 x2

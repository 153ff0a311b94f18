"""Scoring a folder: what is missing, broken or unknown, and the figures of single images."""

from __future__ import annotations

import csv
import json
import math
import os
import signal

import numpy as np
import pytest
from submission_scenes import (
    NUM_CLASSES,
    SIZE,
    assert_same_people,
    assert_same_pixels_and_regions,
    random_scene,
    score,
    write_png,
)

from aiparsing_d2.evaluation import GroundTruth, Prediction
from aiparsing_d2.parallel import WorkerDiedError
from aiparsing_d2.submissions import (
    CihpSubmission,
    MetricGroup,
    PersonMapsSubmission,
    SubmissionError,
    open_submission,
    score_submission,
)
from aiparsing_d2.submissions.score_report import main_table, notes, write_report

NAMES = ["Background", "Hat", "Hair", "Left-arm", "Right-arm"]


def write_ground_truth(folder, name, ground_truth):
    """Annotation files in CIHP's layout, and the record that names them."""
    humans = np.zeros(ground_truth.category_map.shape, dtype=np.uint8)
    for n, person_map in enumerate(ground_truth.person_maps):
        humans[person_map > 0] = n + 1
    record = {
        "file_name": str(folder / f"{name}.jpg"),
        "image_id": name,
        "height": humans.shape[0],
        "width": humans.shape[1],
        "category_file_name": str(folder / f"{name}_classes.png"),
        "human_file_name": str(folder / f"{name}_people.png"),
    }
    write_png(folder / f"{name}_classes.png", ground_truth.category_map)
    write_png(folder / f"{name}_people.png", humans)
    return record


@pytest.fixture
def data_set(tmp_path):
    """Records, ground truth and predictions of eight images."""
    rng = np.random.default_rng(0)
    scenes = []
    while len(scenes) < 8:
        truth, prediction = random_scene(rng, overlapping=True)
        truth.category_map[truth.category_map == 255] = 0
        # In CIHP's files a person is where the category map says that there is a part.
        truth.person_maps[:] = np.where(truth.person_maps > 0, truth.category_map, 0)
        if len(truth.person_maps):
            scenes.append((truth, prediction))
    records = [
        write_ground_truth(tmp_path / "truth", f"{n:02d}", truth)
        for n, (truth, _) in enumerate(scenes)
    ]
    return records, *zip(*scenes)


def write(kind, folder, records, predictions):
    submission = kind(folder, NUM_CLASSES)
    for record, prediction in zip(records, predictions):
        submission.write(record["image_id"], prediction, SIZE)
    return open_submission(folder, NUM_CLASSES)


def score_quietly(submission, records, **kwargs):
    return score_submission(submission, records, NAMES, show_progress=False, **kwargs)


def test_files_score_like_arrays_in_one_process_and_in_two(data_set, tmp_path):
    records, truths, predictions = data_set
    submission = write(PersonMapsSubmission, tmp_path / "results", records, predictions)
    result = score_quietly(submission, records)
    expected = score(truths, predictions)
    assert_same_pixels_and_regions(result.scores, expected)
    assert_same_people(result.scores, expected)
    assert result.scores.box == expected.box
    assert (result.missing, result.unknown, dict(result.skipped)) == ([], [], {})
    assert notes(result) == []

    again = score_quietly(submission, records, num_workers=2)
    assert again.images == result.images
    assert_same_pixels_and_regions(again.scores, expected)
    assert_same_people(again.scores, expected)
    assert again.scores.box == expected.box


def kill_this_process(record, num_classes):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_an_error(data_set, tmp_path):
    records, _, predictions = data_set
    submission = write(PersonMapsSubmission, tmp_path / "results", records, predictions)
    with pytest.raises(WorkerDiedError, match="fewer workers than 2"):
        score_quietly(submission, records, num_workers=2, read_annotations=kill_this_process)


def test_missing_folders_leave_the_metrics_out(data_set, tmp_path):
    records, truths, predictions = data_set
    write(CihpSubmission, tmp_path / "results", records, predictions)
    (tmp_path / "results" / "instance_segmentation").rename(tmp_path / "elsewhere")
    result = score_quietly(open_submission(tmp_path / "results", NUM_CLASSES), records)
    assert_same_pixels_and_regions(result.scores, score(truths, predictions))
    assert np.isnan(result.scores.app).all()
    assert np.isnan(result.scores.pcp).all()
    assert result.scores.box is None
    for image in result.images:
        assert math.isnan(image.mean_person_miou)
        assert (image.num_persons, image.missed_persons, image.false_detections) == (None,) * 3
    assert notes(result)[0] == "APp, PCP: undefined, there is no folder instance_segmentation"

    (tmp_path / "results" / "global_parsing").rename(tmp_path / "elsewhere too")
    result = score_quietly(open_submission(tmp_path / "results", NUM_CLASSES), records)
    assert math.isnan(result.scores.miou) and np.isnan(result.scores.class_iou).all()
    assert math.isnan(result.scores.pixel_accuracy) and math.isnan(result.scores.mean_accuracy)
    assert all(math.isnan(image.miou) for image in result.images)
    np.testing.assert_array_equal(result.scores.apr, score(truths, predictions).apr)
    (tmp_path / "elsewhere too").rename(tmp_path / "results" / "global_parsing")
    (tmp_path / "results" / "instance_parsing").rename(tmp_path / "elsewhere three")
    result = score_quietly(open_submission(tmp_path / "results", NUM_CLASSES), records)
    assert np.isnan(result.scores.apr).all() and np.isnan(result.scores.apr_per_class).all()
    assert result.scores.miou == score(truths, predictions).miou


def test_images_without_a_result_are_an_error_or_empty(data_set, tmp_path):
    records, truths, predictions = data_set
    submission = write(PersonMapsSubmission, tmp_path / "results", records[:6], predictions[:6])
    with pytest.raises(SubmissionError, match="no result of 2 of the 8 images: '06', '07'$"):
        score_quietly(submission, records)
    result = score_quietly(submission, records, on_missing="empty")
    assert result.missing == ["06", "07"]
    nobody = Prediction(np.zeros((0, *SIZE), dtype=np.uint8), np.zeros(0))
    expected = score(truths, [*predictions[:6], nobody, nobody])
    assert_same_pixels_and_regions(result.scores, expected)
    assert_same_people(result.scores, expected)
    assert {image.image_id for image in result.images if image.missing} == {"06", "07"}
    assert "without a result, counted as images without people: 2 of 8 images, " in notes(result)[0]


def test_broken_results_are_an_error_or_left_out_and_counted(data_set, tmp_path):
    records, truths, predictions = data_set
    submission = write(PersonMapsSubmission, tmp_path / "results", records, predictions)
    (tmp_path / "results" / "03.json").write_text("{}")
    with pytest.raises(SubmissionError, match="image '03': .*03.json: the file lacks 'persons'"):
        score_quietly(submission, records)
    result = score_quietly(submission, records, on_error="skip")
    assert list(result.skipped) == ["03"]
    kept = [n for n in range(8) if n != 3]
    expected = score([truths[n] for n in kept], [predictions[n] for n in kept])
    assert_same_pixels_and_regions(result.scores, expected)
    assert_same_people(result.scores, expected)
    assert len(result.images) == 7
    assert "cannot be scored, left out of all figures: 1 of 8 images; the first" in notes(result)[0]
    assert "03.json" in notes(result)[0]


def test_broken_annotations_are_an_error_or_left_out_and_counted(data_set, tmp_path):
    records, _, predictions = data_set
    submission = write(PersonMapsSubmission, tmp_path / "results", records, predictions)
    (tmp_path / "truth" / "05_people.png").write_bytes(b"")
    with pytest.raises(SubmissionError, match="image '05': .*05_people.png .0 bytes. is not a PNG"):
        score_quietly(submission, records, num_workers=1)
    assert list(score_quietly(submission, records, on_error="skip").skipped) == ["05"]


def test_nothing_to_score_is_an_error(data_set, tmp_path):
    records, _, predictions = data_set
    submission = write(PersonMapsSubmission, tmp_path / "results", records[:1], predictions[:1])
    with pytest.raises(SubmissionError, match="results of none of 7 images.*'00'.*like '01'"):
        score_quietly(submission, records[1:], on_missing="empty")
    (tmp_path / "results" / "00.json").write_text("")
    with pytest.raises(SubmissionError, match="of 1 image none could be scored; the first: "):
        score_quietly(submission, records[:1], on_error="skip")
    with pytest.raises(ValueError, match="no images"):
        score_quietly(submission, [])


def test_results_of_unknown_images_are_named_and_ignored(data_set, tmp_path):
    records, truths, predictions = data_set
    submission = write(PersonMapsSubmission, tmp_path / "results", records, predictions)
    result = score_quietly(submission, records[2:])
    assert result.unknown == ["00", "01"]
    assert_same_people(result.scores, score(truths[2:], predictions[2:]))
    assert "of no image of the data set, ignored: 2 results, '00' first" in notes(result)


def test_a_data_set_with_two_images_of_one_id_is_refused(data_set, tmp_path):
    records, _, predictions = data_set
    submission = write(PersonMapsSubmission, tmp_path / "results", records, predictions)
    with pytest.raises(ValueError, match="two records with image_id '02'"):
        score_quietly(submission, [*records, records[2]])


def test_records_without_annotations_say_so(data_set, tmp_path):
    records, _, predictions = data_set
    submission = write(PersonMapsSubmission, tmp_path / "results", records, predictions)
    bare = [{k: v for k, v in r.items() if not k.endswith("_file_name")} for r in records]
    with pytest.raises(SubmissionError, match="image '00': The record .* names no annotation"):
        score_quietly(submission, bare)


def three_people():
    """Three annotated people of four pixels in a row each, and three predictions."""
    maps = np.zeros((3, *SIZE), dtype=np.uint8)
    for n, person_map in enumerate(maps):
        person_map[n, :4] = n + 1
    found = np.zeros((4, *SIZE), dtype=np.uint8)
    found[0, 0, :4] = 1  # all of the first person
    found[1, 0, :3] = 1  # the first person again, less well
    found[2, 1, :2] = 2  # half of the second
    found[3, 2, :4] = 3  # the third, but too uncertain
    return maps, Prediction(found, np.array([0.8, 0.9, 0.7, 0.1]))


def test_figures_of_an_image_by_hand(tmp_path):
    maps, prediction = three_people()
    record = write_ground_truth(tmp_path, "a", GroundTruth(maps, maps.max(axis=0)))
    submission = write(PersonMapsSubmission, tmp_path / "results", [record], [prediction])
    (image,) = score_quietly(submission, [record]).images
    assert (image.num_gt_persons, image.num_persons) == (3, 3)
    # With 360 pixels, background is right to more than 350 / 360. The best match of the second
    # person shares half of its part: (.99 + 1/2) / 2, above .5.
    background_of_second = (360 - 4) / (360 - 2)
    second = (background_of_second + 1 / 2) / 2
    assert image.mean_person_miou == pytest.approx((1 + second + 0) / 3)
    # The third person has no prediction that counts; the first is found a second time.
    assert (image.missed_persons, image.false_detections) == (1, 1)
    # mIoU: background 348 of 360 - 10 + 2 + 4; parts 1, 1/2 and, absent below .3, 0.
    assert image.miou == pytest.approx((348 / 354 + 1 + 1 / 2 + 0) / 4)

    (image,) = score_quietly(submission, [record], person_threshold=0.05).images
    assert (image.missed_persons, image.false_detections, image.num_persons) == (0, 1, 4)


def test_the_worst_images_come_first(data_set, tmp_path):
    records, _, predictions = data_set
    submission = write(PersonMapsSubmission, tmp_path / "results", records, predictions)
    images = score_quietly(submission, records).images
    assert sorted(image.image_id for image in images) == [f"{n:02d}" for n in range(8)]
    assert [image.miou for image in images] == sorted(image.miou for image in images)
    assert images[0].miou < images[-1].miou


def test_report(data_set, tmp_path):
    records, _, predictions = data_set
    write(CihpSubmission, tmp_path / "results", records[1:], predictions[1:])
    (tmp_path / "results" / "instance_segmentation").rename(tmp_path / "elsewhere")
    result = score_quietly(
        open_submission(tmp_path / "results", NUM_CLASSES), records, on_missing="empty"
    )
    folder = tmp_path / "scores"
    description = {"dataset": "people", "predictions": "results", "settings": {"semseg_thresh": 1}}
    write_report(folder, result, NAMES, description)

    content = json.loads((folder / "scores.json").read_text())
    assert content["results"]["parsing"]["mIoU"] == 100 * result.scores.miou
    assert content["results"]["parsing"]["APp50"] is None
    assert content["undefined"].keys() == {"APp, PCP", "box AP"}
    assert content["missing"] == ["00"]
    assert content["settings"] == {"semseg_thresh": 1}
    assert content["per_class"]["Hair"]["APr"] == (100 * result.scores.apr_per_class[2]).tolist()

    with open(folder / "scores.csv", newline="") as file:
        rows = {(row["group"], row["metric"]): row["percent"] for row in csv.DictReader(file)}
    assert float(rows["parsing", "IoU-Hair"]) == 100 * result.scores.class_iou[2]
    assert rows["parsing", "APp50"] == ""

    with open(folder / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == [image.image_id for image in result.images]
    assert float(rows[0]["mIoU"]) == 100 * result.images[0].miou
    assert {row["image_id"]: row["result"] for row in rows}["00"] == "missing"
    assert rows[0]["mean_person_mIoU"] == rows[0]["missed_persons"] == ""

    text = (folder / "scores.md").read_text()
    assert main_table(result, NAMES) in text
    assert "- box AP: undefined, there is no folder instance_segmentation" in text
    (hair,) = (line for line in text.splitlines() if line.startswith("| Hair "))
    assert hair.split("|")[2].strip() == f"{100 * result.scores.class_iou[2]:.2f}"
    header, _, figures = main_table(result, NAMES).splitlines()
    table = dict(zip(header.replace(" ", "").split("|"), figures.replace(" ", "").split("|")))
    assert table["APp50"] == "-"
    assert table["mIoU"] == f"{100 * result.scores.miou:.2f}"

    before = (folder / "scores.json").read_text()
    with pytest.raises(FileExistsError, match="scores.json exists"):
        write_report(folder, result, NAMES, {**description, "dataset": "other"})
    assert (folder / "scores.json").read_text() == before
    write_report(folder, result, NAMES, {**description, "dataset": "other"}, overwrite=True)
    assert json.loads((folder / "scores.json").read_text())["dataset"] == "other"


def test_formats_are_recognized_or_asked_for(tmp_path):
    with pytest.raises(SubmissionError, match="nowhere is not a folder"):
        open_submission(tmp_path / "nowhere", NUM_CLASSES)
    with pytest.raises(SubmissionError, match="looks like none of the formats; name the format"):
        open_submission(tmp_path, NUM_CLASSES)
    (tmp_path / "global_parsing").mkdir()
    assert open_submission(tmp_path, NUM_CLASSES).format_name == "cihp"
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(SubmissionError, match="looks like person_maps and cihp"):
        open_submission(tmp_path, NUM_CLASSES)
    assert open_submission(tmp_path, NUM_CLASSES, "cihp").image_ids() == set()
    with pytest.raises(ValueError, match="unknown format 'coco'; there are person_maps, cihp"):
        open_submission(tmp_path, NUM_CLASSES, "coco")


def test_metric_groups_name_what_the_tables_name():
    assert [group.value for group in MetricGroup] == [
        "mIoU, pACC, mACC",
        "APp, PCP",
        "APr",
        "box AP",
    ]

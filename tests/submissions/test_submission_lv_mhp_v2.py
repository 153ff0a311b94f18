"""The format of LV-MHP-v2: hand-made files, and every way in which they can be wrong."""

from __future__ import annotations

import os

import numpy as np
import pytest
from submission_scenes import write_png

from aiparsing_d2.submissions import LvMhpV2Submission, MetricGroup, SubmissionError

NUM_CLASSES = 59
SIZE = (2, 4)
CATEGORIES = np.array([[4, 58, 0, 3], [4, 4, 3, 3]], dtype=np.uint8)
# Two people, whose numbers need not be 1 and 2.
PEOPLE = np.array([[9, 9, 9, 2], [9, 9, 2, 2]], dtype=np.uint8)


def write_files(folder, results="10 2 0.5 9 0.75\n11\n"):
    (folder / "global_seg").mkdir(parents=True)
    for name in ("10", "11"):
        write_png(folder / "global_seg" / f"{name}.png", CATEGORIES * (name == "10"))
        write_png(folder / "global_tag" / f"{name}.png", PEOPLE * (name == "10"))
    (folder / "results.txt").write_text(results)
    return folder


def test_hand_made_files(tmp_path):
    submission = LvMhpV2Submission(write_files(tmp_path), NUM_CLASSES)
    assert submission.image_ids() == {"10", "11"}
    assert set(submission.undefined_metrics()) == {MetricGroup.PART_REGIONS, MetricGroup.BOXES}
    prediction = submission.read("10", SIZE)
    np.testing.assert_array_equal(prediction.category_map, CATEGORIES)
    np.testing.assert_array_equal(
        prediction.person_maps,
        [[[0, 0, 0, 3], [0, 0, 3, 3]], [[4, 58, 0, 0], [4, 4, 0, 0]]],
    )
    np.testing.assert_array_equal(prediction.scores, [0.5, 0.75])
    assert submission.read("11", SIZE).person_maps.shape == (0, *SIZE)


def test_a_listed_person_without_pixels_is_left_out(tmp_path):
    submission = LvMhpV2Submission(write_files(tmp_path, "10 3 0.1 2 0.5 9 0.75\n"), NUM_CLASSES)
    np.testing.assert_array_equal(submission.read("10", SIZE).scores, [0.5, 0.75])


WRONG_RESULTS = {
    "image listed twice": ("10 2 0.5 9 0.75\n10\n", "line 2: image '10' is listed twice"),
    "person listed twice": ("10 2 0.5 9 0.75 2 0.6\n", "line 1, .*person 2 is .* listed twice"),
    "number without a score": ("10 2 0.5 9\n", "line 1: .* got 4 words"),
    "blank line": ("10 2 0.5 9 0.75\n\n11\n", "line 2: .* got 0 words"),
    "person 0": ("10 0 0.5 9 0.75\n", "line 1, image '10': person 0 is below 1"),
    "number is no integer": ("10 2.0 0.5 9 0.75\n", "line 1, image '10'"),
    "score is no number": ("10 2 high 9 0.75\n", "line 1, image '10'.*high"),
    "score NaN": ("10 2 nan 9 0.75\n", "line 1, image '10'.*nan is not in 0..1"),
    "score > 1": ("10 2 1.5 9 0.75\n", "line 1, image '10'.*1.5 is not in 0..1"),
}


@pytest.mark.parametrize("results, reason", WRONG_RESULTS.values(), ids=WRONG_RESULTS)
def test_wrong_lines_are_named_with_the_reason(results, reason, tmp_path):
    submission = LvMhpV2Submission(write_files(tmp_path, results), NUM_CLASSES)
    with pytest.raises(SubmissionError, match=rf"results\.txt, {reason}"):
        submission.image_ids()


BROKEN_FILES = {
    "0 bytes": ("global_seg/10.png", lambda path: path.write_bytes(b""), "not a PNG"),
    "missing": ("global_tag/10.png", os.remove, "cannot be read"),
    "label >= C": (
        "global_seg/10.png",
        lambda path: write_png(path, CATEGORIES + np.uint8(1)),
        "label 59; labels are 0 to 58",
    ),
    "size": ("global_tag/10.png", lambda path: write_png(path, PEOPLE[:1].copy()), "4x1 pixels"),
    # A person without a score would be lost.
    "person without a score": (
        "global_tag/10.png",
        lambda path: write_png(path, PEOPLE + np.uint8(1) * (PEOPLE == 9)),
        "value 10, .* lists no such person",
    ),
}


@pytest.mark.parametrize("name, change, reason", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_broken_files_are_named_with_the_reason(name, change, reason, tmp_path):
    change(write_files(tmp_path) / name)
    with pytest.raises(SubmissionError, match=f"(?s){reason}") as caught:
        LvMhpV2Submission(tmp_path, NUM_CLASSES).read("10", SIZE)
    assert name in str(caught.value)


def test_ids_with_white_space_cannot_be_listed(tmp_path):
    from aiparsing_d2.evaluation import Prediction

    nobody = Prediction(np.zeros((0, *SIZE), dtype=np.uint8), np.zeros(0))
    with pytest.raises(ValueError, match="'a b': it has white space"):
        LvMhpV2Submission(tmp_path, NUM_CLASSES).write("a b", nobody, SIZE)

"""The folders of CIHP and VIP: hand-made files, and every way in which they can be wrong."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from submission_scenes import write_png

from aiparsing_d2.submissions import (
    CihpSubmission,
    MetricGroup,
    SubmissionError,
    VipSubmission,
)

NUM_CLASSES = 20
SIZE = (2, 4)
CATEGORIES = np.array([[2, 2, 0, 13], [5, 5, 0, 5]], dtype=np.uint8)
# Hair and clothes of the first person, face and clothes of the second.
REGIONS = np.array([[1, 1, 0, 4], [3, 3, 0, 2]], dtype=np.uint8)
REGION_LINES = "2 0.9\n5 0.5\n5 1\n13 1e-1\n"
PEOPLE = np.array([[1, 1, 0, 2], [1, 1, 2, 2]], dtype=np.uint8)
PEOPLE_LINES = "0.75 0 0 2 2\n0.5 0 2.5 2 4\n"


def write_folders(folder, name="7"):
    write_png(folder / "global_parsing" / f"{name}.png", CATEGORIES)
    write_png(folder / "instance_parsing" / f"{name}.png", REGIONS)
    (folder / "instance_parsing" / f"{name}.txt").write_text(REGION_LINES)
    write_png(folder / "instance_segmentation" / f"{name}.png", PEOPLE)
    (folder / "instance_segmentation" / f"{name}.txt").write_text(PEOPLE_LINES)
    return folder


def read(folder):
    return CihpSubmission(folder, NUM_CLASSES).read("7", SIZE)


def assert_is_as_written(prediction):
    np.testing.assert_array_equal(prediction.category_map, CATEGORIES)
    np.testing.assert_array_equal(prediction.part_regions.region_map, REGIONS)
    np.testing.assert_array_equal(prediction.part_regions.classes, [2, 5, 5, 13])
    np.testing.assert_array_equal(prediction.part_regions.scores, [0.9, 0.5, 1, 0.1])
    np.testing.assert_array_equal(
        prediction.person_maps,
        [[[2, 2, 0, 0], [5, 5, 0, 0]], [[0, 0, 0, 13], [0, 0, 0, 5]]],
    )
    np.testing.assert_array_equal(prediction.scores, [0.75, 0.5])
    np.testing.assert_array_equal(prediction.boxes, [[0, 0, 2, 2], [2.5, 0, 4, 2]])


def test_hand_made_folders(tmp_path):
    submission = CihpSubmission(write_folders(tmp_path), NUM_CLASSES)
    assert submission.image_ids() == {"7"}
    assert submission.undefined_metrics() == {}
    assert_is_as_written(submission.read("7", SIZE))


def test_hand_made_videos_with_the_same_frame_names(tmp_path):
    write_folders(tmp_path / "videos1", "000000000001")
    write_folders(tmp_path / "videos22", "000000000001")
    write_png(tmp_path / "videos22" / "global_parsing" / "000000000001.png", 0 * CATEGORIES)
    submission = VipSubmission(tmp_path, NUM_CLASSES)
    assert submission.image_ids() == {"videos1/000000000001", "videos22/000000000001"}
    assert_is_as_written(submission.read("videos1/000000000001", SIZE))
    assert not submission.read("videos22/000000000001", SIZE).category_map.any()
    with pytest.raises(SubmissionError, match="'000000000001' names no frame of a video"):
        submission.read("000000000001", SIZE)


def test_frames_of_a_video_need_boxes(tmp_path):
    write_folders(tmp_path / "v", "1")
    (tmp_path / "v" / "instance_segmentation" / "1.txt").write_text("0.75\n0.5\n")
    with pytest.raises(
        SubmissionError, match=r"1\.txt, line 1: '0.75' must be 'score y1 x1 y2 x2'"
    ):
        VipSubmission(tmp_path, NUM_CLASSES).read("v/1", SIZE)


def test_boxes_may_be_left_out_of_cihp(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "instance_segmentation" / "7.txt").write_text("0.75\n0.5\n")
    prediction = read(tmp_path)
    assert prediction.boxes is None
    np.testing.assert_array_equal(prediction.scores, [0.75, 0.5])


def remove(folder, *names):
    for name in names:
        for path in (folder / name).iterdir():
            path.unlink()
        (folder / name).rmdir()


def test_missing_folders_leave_metrics_undefined(tmp_path):
    write_folders(tmp_path)
    remove(tmp_path, "instance_segmentation")
    submission = CihpSubmission(tmp_path, NUM_CLASSES)
    assert set(submission.undefined_metrics()) == {MetricGroup.PEOPLE, MetricGroup.BOXES}
    assert "instance_segmentation" in submission.undefined_metrics()[MetricGroup.PEOPLE]
    assert len(submission.read("7", SIZE).scores) == 0
    remove(tmp_path, "global_parsing")
    undefined = CihpSubmission(tmp_path, NUM_CLASSES).undefined_metrics()
    assert set(undefined) == {MetricGroup.PEOPLE, MetricGroup.BOXES, MetricGroup.PIXELS}


def test_people_take_their_classes_from_the_category_map_if_there_are_no_regions(tmp_path):
    write_folders(tmp_path)
    remove(tmp_path, "instance_parsing")
    assert set(CihpSubmission(tmp_path, NUM_CLASSES).undefined_metrics()) == {
        MetricGroup.PART_REGIONS
    }
    np.testing.assert_array_equal(read(tmp_path).person_maps[1], [[0, 0, 0, 13], [0, 0, 0, 5]])
    remove(tmp_path, "global_parsing")
    undefined = CihpSubmission(tmp_path, NUM_CLASSES).undefined_metrics()
    assert set(undefined) == {MetricGroup.PIXELS, MetricGroup.PART_REGIONS, MetricGroup.PEOPLE}


def test_an_image_without_people_has_empty_text_files(tmp_path):
    write_folders(tmp_path)
    for name in ("instance_parsing", "instance_segmentation"):
        write_png(tmp_path / name / "7.png", 0 * PEOPLE)
        (tmp_path / name / "7.txt").write_text("")
    prediction = read(tmp_path)
    assert prediction.person_maps.shape == (0, *SIZE)
    assert len(prediction.part_regions.classes) == 0


def test_palette_pictures_count_by_their_indices(tmp_path):
    write_folders(tmp_path)
    for name, values in (("global_parsing", CATEGORIES), ("instance_parsing", REGIONS)):
        picture = Image.fromarray(values, mode="P")
        # Colours that are no grey values and, for some indices, the same.
        picture.putpalette([255, 0, 0] * 3 + [0, 128, 7] * 253)
        write_png(tmp_path / name / "7.png", picture)
    assert_is_as_written(read(tmp_path))


# What is wrong with a file: the file, what is done to it, and what the message must say beside the
# name of the file.


def rewrite(content):
    def change(path):
        path.write_bytes(content)

    return change


def draw(values):
    def change(path):
        write_png(path, values)

    return change


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"IDAT") + 8])


def make_huge(path):
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 10_000, 10_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def link_out(path):
    outside = path.parent.parent.parent / "outside"
    os.replace(path, outside)
    path.symlink_to(outside)


def without(value):
    """The region map without the pixels of a region."""
    return np.where(REGIONS == value, 0, REGIONS).astype(np.uint8)


CLASSES, PARTS = "global_parsing/7.png", "instance_parsing/7.txt"
PEOPLE_TXT = "instance_segmentation/7.txt"

BROKEN = {
    "0 bytes": (CLASSES, rewrite(b""), "not a PNG"),
    "truncated": (CLASSES, truncate, "is not a readable image"),
    "other format": ("instance_parsing/7.png", rewrite(b"GIF89a" + bytes(40)), "not a PNG"),
    "RGB": (CLASSES, draw(np.zeros((*SIZE, 3), np.uint8)), "8-bit RGB PNG"),
    "RGB regions": ("instance_parsing/7.png", draw(np.zeros((*SIZE, 3), np.uint8)), "RGB"),
    "black and white": (CLASSES, draw(CATEGORIES > 0), "1-bit grey"),
    "size": (CLASSES, draw(CATEGORIES.T.copy()), "2x4 pixels .* but .* 4x2"),
    "size of regions": ("instance_parsing/7.png", draw(REGIONS[:, :3].copy()), "3x2 pixels"),
    "size that takes gigabytes": (CLASSES, make_huge, "10000x10000 pixels"),
    "label >= C": (CLASSES, draw(CATEGORIES + np.uint8(10)), "label 23; .* 0 to 19"),
    "label 255": (CLASSES, draw(CATEGORIES * 0 + np.uint8(255)), "label 255"),
    "no png": ("instance_parsing/7.png", os.remove, "cannot be read"),
    "no txt": (PARTS, os.remove, "cannot be read"),
    "no category map": (CLASSES, os.remove, "cannot be read"),
    "folder in place of a file": (
        CLASSES,
        lambda path: (path.unlink(), path.mkdir()),
        "cannot be read",
    ),
    "link out of the folder": ("instance_parsing/7.png", link_out, "leads out of"),
    "binary txt": (PARTS, rewrite(b"\xff\xfe\x00"), "cannot be read"),
    "line too few": (PARTS, rewrite(b"2 1\n5 1\n5 1"), "value 4, .* 3 lines"),
    "line without pixels at the end": (
        PARTS,
        rewrite(REGION_LINES.encode() + b"9 0.5\n"),
        "line 5 of .* no pixels",
    ),
    "line without pixels": ("instance_parsing/7.png", draw(without(2)), "line 2 .* no pixels"),
    "empty txt": (PEOPLE_TXT, rewrite(b""), "value 2, .* 0 lines"),
    "blank line": (PARTS, rewrite(b"2 1\n\n5 1\n13 1\n"), "line 2.*0 words"),
    "three words": (PARTS, rewrite(b"2 1 1\n5 1\n5 1\n13 1"), "line 1.*3 words"),
    "class is a name": (PARTS, rewrite(b"2 1\nHat 1\n5 1\n13 1"), "line 2"),
    "class 0": (PARTS, rewrite(b"2 1\n0 1\n5 1\n13 1\n"), "line 2.*1 to 19"),
    "class >= C": (PARTS, rewrite(b"2 1\n20 1\n5 1\n13 1\n"), "line 2.*1 to 19"),
    "score is no number": (PARTS, rewrite(b"2 x\n5 1\n5 1\n13 1"), "line 1"),
    "score NaN": (PARTS, rewrite(b"2 nan\n5 1\n5 1\n13 1"), "nan is not in 0..1"),
    "score > 1": (PARTS, rewrite(b"2 93.5\n5 1\n5 1\n13 1"), "93.5 is not in"),
    "person's score < 0": (PEOPLE_TXT, rewrite(b"1 0 0 2 2\n-1 0 2 2 4"), "line 2"),
    "box of three": (PEOPLE_TXT, rewrite(b"1 0 0 2\n1 0 2 2 4\n"), "line 1.*4 words"),
    "box NaN": (PEOPLE_TXT, rewrite(b"1 0 0 nan 2\n1 0 2 2 4\n"), "line 1.*box"),
    "box backwards": (PEOPLE_TXT, rewrite(b"1 2 0 0 2\n1 0 2 2 4\n"), "line 1.*box"),
    "some boxes": (PEOPLE_TXT, rewrite(b"1 0 0 2 2\n1\n"), "1 of 2 people"),
}  # fmt: skip


@pytest.mark.parametrize("name, change, reason", BROKEN.values(), ids=BROKEN)
def test_broken_files_are_named_with_the_reason(name, change, reason, tmp_path):
    folder = write_folders(tmp_path / "results")
    change(folder / name)
    with pytest.raises(SubmissionError, match=f"(?s){reason}") as caught:
        read(folder)
    assert name in str(caught.value)


def test_an_image_of_which_one_file_is_left_is_broken_not_missing(tmp_path):
    write_folders(tmp_path)
    for path in tmp_path.rglob("7.*"):
        if path.suffix != ".txt":
            path.unlink()
    assert CihpSubmission(tmp_path, NUM_CLASSES).image_ids() == {"7"}

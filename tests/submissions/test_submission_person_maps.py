"""The format person_maps: hand-made files, and every way in which they can be wrong."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image
from submission_scenes import write_png

from aiparsing_d2.submissions import PersonMapsSubmission, SubmissionError, person_maps

NUM_CLASSES = 4
SIZE = (2, 3)
MAPS = np.array([[[1, 2, 0], [3, 0, 0]], [[0, 1, 1], [0, 0, 0]]], dtype=np.uint8)


def content():
    return {
        "persons": [
            {"map": "a_1.png", "score": 0.25, "part_scores": [1, 0, 0.5], "box": [0, 0, 2, 2.5]},
            {"map": "a_2.png", "score": 1, "part_scores": [0.5, 0, 0], "box": [1, 0, 3, 1]},
        ]
    }


def write_files(folder, changed=None):
    for k, person_map in enumerate(MAPS, start=1):
        write_png(folder / f"a_{k}.png", person_map)
    (folder / "a.json").write_text(json.dumps(content() if changed is None else changed))
    return folder


def read(folder):
    return PersonMapsSubmission(folder, NUM_CLASSES).read("a", SIZE)


def test_hand_made_files(tmp_path):
    submission = PersonMapsSubmission(write_files(tmp_path), NUM_CLASSES)
    assert submission.image_ids() == {"a"}
    prediction = submission.read("a", SIZE)
    np.testing.assert_array_equal(prediction.person_maps, MAPS)
    np.testing.assert_array_equal(prediction.scores, [0.25, 1])
    np.testing.assert_array_equal(prediction.part_scores, [[1, 0, 0.5], [0.5, 0, 0]])
    np.testing.assert_array_equal(prediction.boxes, [[0, 0, 2, 2.5], [1, 0, 3, 1]])
    assert prediction.box_scores is None
    assert prediction.category_map is None
    assert prediction.part_regions is None


def test_the_example_of_the_documentation_runs_and_can_be_read(tmp_path):
    lines = person_maps.__doc__.split("readable::\n")[1].split("\n\nA system")[0].splitlines()
    code = "\n".join(line.removeprefix("    ") for line in lines)
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 1]])
    scores = np.array([0.25, 1.0], dtype=np.float32)
    results = {"a": list(zip(MAPS, scores, boxes)), "b": []}
    exec(code, {"results": results, "folder": tmp_path})
    submission = PersonMapsSubmission(tmp_path, NUM_CLASSES)
    assert submission.image_ids() == {"a", "b"}
    np.testing.assert_array_equal(submission.read("a", SIZE).person_maps, MAPS)
    np.testing.assert_array_equal(submission.read("a", SIZE).boxes, boxes)
    assert submission.read("b", SIZE).person_maps.shape == (0, *SIZE)


def test_ids_with_folders(tmp_path):
    (tmp_path / "videos1").mkdir()
    text = json.dumps({"persons": [{"map": "videos1/01_1.png", "score": 0.5}]})
    (tmp_path / "videos1" / "01.json").write_text(text)
    write_png(tmp_path / "videos1" / "01_1.png", MAPS[0])
    submission = PersonMapsSubmission(tmp_path, NUM_CLASSES)
    assert submission.image_ids() == {"videos1/01"}
    np.testing.assert_array_equal(submission.read("videos1/01", SIZE).person_maps, MAPS[:1])


def test_own_category_map_and_part_regions(tmp_path):
    write_png(tmp_path / "classes.png", MAPS[1])
    regions = np.array([[1, 0, 300], [2, 2, 2]], dtype=np.uint16)
    write_png(tmp_path / "regions.png", regions)
    changed = content() | {
        "category_map": "classes.png",
        "part_regions": {
            "map": "regions.png",
            "regions": [{"class": 1 + k % 3, "score": k / 300} for k in range(300)],
        },
    }
    prediction = read(write_files(tmp_path, changed))
    np.testing.assert_array_equal(prediction.category_map, MAPS[1])
    np.testing.assert_array_equal(prediction.part_regions.region_map, regions)
    np.testing.assert_array_equal(prediction.part_regions.classes, [1, 2, 3] * 100)
    assert prediction.part_regions.scores[299] == 299 / 300


def person(**changes):
    """The content with changes to its second person; None removes a key."""
    changed = content()
    changed["persons"][1].update(changes)
    changed["persons"][1] = {k: v for k, v in changed["persons"][1].items() if v is not None}
    return changed


def regions(*given, **changes):
    return content() | {"part_regions": {"map": "a_1.png", "regions": list(given)} | changes}


REGION = {"class": 1, "score": 0.5}

WRONG_CONTENT = {
    "path escape": (person(map="../a_2.png"), r"'\.\./a_2.png' leads out of"),
    "path escape further on": (person(map="x/../../results2/a.png"), "leads out of"),
    "absolute path": (person(map="/etc/hostname"), "'/etc/hostname' leads out of"),
    "path escape of the category map": (content() | {"category_map": "../x.png"}, "leads out of"),
    "path escape of the regions": (regions(REGION, map="../x.png"), "leads out of"),
    "null byte": (person(map="a\0.png"), "no usable file name"),
    "map is a number": (person(map=3), "person 2: map must be a file name, got 3"),
    "map is empty": (person(map=""), "person 2: map must be a file name"),
    "map is missing": (person(map=None), "person 2 lacks 'map'"),
    "map is not there": (person(map="a_3.png"), "a_3.png cannot be read"),
    "the same map twice": (person(map="./a_1.png"), "persons 1 and 2 have the same map"),
    "score is missing": (person(score=None), "person 2 lacks 'score'"),
    "score is text": (person(score="0.5"), "score must be in 0..1, got '0.5'"),
    "score is true": (person(score=True), "score must be in 0..1, got True"),
    "score NaN": (person(score=float("nan")), "score must be in 0..1, got nan"),
    "score infinite": (person(score=float("inf")), "got inf"),
    "score > 1": (person(score=1.01), "score must be in 0..1, got 1.01"),
    "score < 0": (person(score=-1e-9), "score must be in 0..1"),
    "score beyond floats": (person(score=10**400), "score must be in 0..1"),
    "part score > 1": (person(part_scores=[0, 2, 0]), "part_scores of person 2 must be in 0..1"),
    "part scores too few": (person(part_scores=[0, 1]), "person 2: 3 numbers are needed, got 2"),
    "part scores of background": (person(part_scores=[0] * 4), "3 numbers are needed, got 4"),
    "part scores are no list": (person(part_scores=0.5), "part_scores of person 2 must be a list"),
    "part scores of some": (person(part_scores=None), "1 of 2 persons have 'part_scores'"),
    "boxes of some": (person(box=None), "1 of 2 persons have 'box'; all or none"),
    "box scores of some": (person(box_score=1), "1 of 2 persons have 'box_score'"),
    "box of three": (person(box=[0, 0, 1]), r"box of person 2 must be \[x0, y0, x1, y1\]"),
    "box NaN": (person(box=[0, 0, 1, float("nan")]), "box of person 2"),
    "box infinite": (person(box=[0, 0, 1, float("inf")]), "box of person 2"),
    "box backwards": (person(box=[3, 0, 1, 1]), "box of person 2"),
    "misspelt key": (person(partscores=[0, 0, 0]), "person 2 has the unknown key.* 'partscores'"),
    "misspelt key of the image": (content() | {"categorymap": "x"}, "unknown key.* 'categorymap'"),
    "persons are missing": ({}, "lacks 'persons'"),
    "persons are an object": ({"persons": {}}, "persons must be a list"),
    "person is a list": ({"persons": [[1]]}, "person 1 must be an object"),
    "list": ([], "must be an object"),
    "region without line": (regions(REGION), "a_1.png has the value 3; 1 region given"),
    "class of a region 0": (regions(REGION | {"class": 0}, REGION, REGION), "region 1 .* 1 to 3"),
    "class of a region >= C": (regions(REGION | {"class": 4}, REGION, REGION), "region 1 .* 3"),
    "class of a region is no integer": (regions(REGION | {"class": 1.5}), "region 1 has the class"),
    "score of a region NaN": (regions(REGION | {"score": float("nan")}, REGION, REGION), "region"),
}  # fmt: skip


@pytest.mark.parametrize("changed, reason", WRONG_CONTENT.values(), ids=WRONG_CONTENT)
def test_wrong_content_is_named_with_the_reason(changed, reason, tmp_path):
    folder = write_files(tmp_path / "results", changed)
    (tmp_path / "a_2.png").write_bytes((folder / "a_2.png").read_bytes())
    with pytest.raises(SubmissionError, match=reason) as caught:
        read(folder)
    # A map that is not there is itself the file to look at.
    assert ("a_3.png" if "a_3.png" in reason else "a.json") in str(caught.value)


def link_out(path):
    outside = path.parent.parent / "outside"
    os.replace(path, outside)
    path.symlink_to(outside)


BROKEN_FILES = {
    "json of 0 bytes": ("a.json", lambda path: path.write_bytes(b""), "not valid JSON"),
    "json cut short": ("a.json", lambda path: path.write_text('{"persons": ['), "not valid JSON"),
    "json without end": ("a.json", lambda path: path.write_text("[" * 10**5), "not valid JSON"),
    "json is not UTF-8": ("a.json", lambda path: path.write_bytes(b'{"\xff'), "not valid JSON"),
    "json links out": ("a.json", link_out, "leads out of"),
    "png of 0 bytes": ("a_1.png", lambda path: path.write_bytes(b""), "not a PNG"),
    "png cut short": ("a_1.png", lambda path: path.write_bytes(path.read_bytes()[:45]), "readable"),
    "png links out": ("a_1.png", link_out, "leads out of"),
    "png in RGB": ("a_1.png", lambda path: write_png(path, MAPS[0][..., None].repeat(3, 2)), "RGB"),
    "png of another size": ("a_1.png", lambda path: write_png(path, MAPS[0].T.copy()), "2x3 "),
    "label >= C": ("a_1.png", lambda path: write_png(path, MAPS[0] + np.uint8(3)), "the label 6"),
    "16 bits": (
        "a_1.png",
        lambda path: write_png(path, Image.fromarray(np.full(SIZE, 257, np.uint16))),
        "has the label 257",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name, change, reason", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_broken_files_are_named_with_the_reason(name, change, reason, tmp_path):
    folder = write_files(tmp_path / "results")
    change(folder / name)
    with pytest.raises(SubmissionError, match=reason) as caught:
        read(folder)
    assert name in str(caught.value)

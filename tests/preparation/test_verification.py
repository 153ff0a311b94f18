"""Every kind of bad file is found and named, and sound folders raise no alarm."""

import json
import os
import re

import numpy as np
import preparation_folders as folders
import pytest
from PIL import Image

from aiparsing_d2.data.datasets import load_cihp, load_lv_mhp_v2, load_vip
from aiparsing_d2.preparation import DATA_SETS, Kind, Severity
from aiparsing_d2.preparation.inventory import find_splits, take_inventory
from aiparsing_d2.preparation.verification import ImageReport, ImageVerifier

T = "Training"
PERSON_FILE = "train/parsing_annos/10_02_01.png"
FRAME = "videos3/000000000001"


def look_through(root, name):
    """Everything that is found, and the report on each image."""
    data_set = DATA_SETS[name]
    inventory = take_inventory(root, data_set, find_splits(root, data_set))
    verify = ImageVerifier(root, data_set.part_labels.num_classes)
    reports = [verify(files) for images in inventory.images.values() for files in images]
    findings = [finding for report in reports for finding in report.findings]
    return inventory.findings + findings, reports


def remove(file):
    return lambda root: os.remove(root / file)


def rename(file, new):
    return lambda root: os.rename(root / file, root / new)


def write(file, content):
    def change(root):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(content)

    return change


def cut(file, keep):
    """Keep the first bytes of a file, or all but the last for negative numbers."""
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:keep])


def draw(file, pixels, kind=None):
    return lambda root: folders.save(root / file, pixels, kind)


def change_pixel(file, y, x, value):
    def change(root):
        with Image.open(root / file) as image:
            pixels = np.array(image)
        pixels[y, x] = value
        folders.save(root / file, pixels)

    return change


def replace_line(file, old, new):
    def change(root):
        text = (root / file).read_text()
        assert text.count(old) == 1
        (root / file).write_text(text.replace(old, new))

    return change


GREY = np.zeros((4, 6), dtype=np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
RENDERING = np.full((4, 6, 3), 85, dtype=np.uint8)

# name: (data set, what goes wrong, the one kind that is found, its file, part of the reason)
CASES = {
    "image missing": (
        "cihp",
        remove(f"{T}/Images/0000001.jpg"),
        Kind.MISSING_IMAGE,
        f"{T}/Images/0000001.jpg",
        "the train list has '0000001'",
    ),
    "image empty": (
        "cihp",
        write(f"{T}/Images/0000001.jpg", b""),
        Kind.UNREADABLE_IMAGE,
        f"{T}/Images/0000001.jpg",
        "0 bytes",
    ),
    "image truncated": (
        "cihp",
        lambda root: [
            draw(f"{T}/Images/0000001.jpg", NOISE)(root),
            cut(f"{T}/Images/0000001.jpg", -400)(root),
        ],
        Kind.UNREADABLE_IMAGE,
        f"{T}/Images/0000001.jpg",
        "truncated",
    ),
    "image header cut": (
        "cihp",
        cut(f"{T}/Images/0000001.jpg", 15),
        Kind.UNREADABLE_IMAGE,
        f"{T}/Images/0000001.jpg",
        "",
    ),
    "image is text": (
        "lv_mhp_v2",
        write("train/images/10.jpg", b"<html>404</html>"),
        Kind.UNREADABLE_IMAGE,
        "train/images/10.jpg",
        "its format is not known",
    ),
    "category map missing": (
        "cihp",
        remove(f"{T}/Category_ids/0000001.png"),
        Kind.MISSING_LABELS,
        f"{T}/Category_ids/0000001.png",
        f"its image is {T}/Images/0000001.jpg",
    ),
    "human map missing": (
        "vip",
        remove(f"Annotations/Human_ids/{FRAME}.png"),
        Kind.MISSING_LABELS,
        f"Annotations/Human_ids/{FRAME}.png",
        "does not exist",
    ),
    "category map empty": (
        "cihp",
        write(f"{T}/Category_ids/0000001.png", b""),
        Kind.UNREADABLE_LABELS,
        f"{T}/Category_ids/0000001.png",
        "0 bytes",
    ),
    "human map truncated": (
        "cihp",
        cut(f"{T}/Human_ids/0000001.png", -30),
        Kind.UNREADABLE_LABELS,
        f"{T}/Human_ids/0000001.png",
        "is not a readable image: ",
    ),
    "category map is a rendering": (
        "cihp",
        draw(f"{T}/Category_ids/0000001.png", RENDERING),
        Kind.UNREADABLE_LABELS,
        f"{T}/Category_ids/0000001.png",
        "8-bit RGB",
    ),
    "category map has 16 bits": (
        "vip",
        draw(f"Annotations/Category_ids/{FRAME}.png", GREY.astype(np.uint16)),
        Kind.UNREADABLE_LABELS,
        f"Annotations/Category_ids/{FRAME}.png",
        "16-bit",
    ),
    "category map of another size": (
        "cihp",
        draw(f"{T}/Category_ids/0000001.png", GREY[:3, :5]),
        Kind.SIZE_MISMATCH,
        f"{T}/Category_ids/0000001.png",
        "5x3 pixels .*its image is 6x4",
    ),
    "human map of another size": (
        "vip",
        draw(f"Annotations/Human_ids/{FRAME}.png", GREY.T),
        Kind.SIZE_MISMATCH,
        f"Annotations/Human_ids/{FRAME}.png",
        "4x6 pixels .*its image is 6x4",
    ),
    "label out of range": (
        "cihp",
        change_pixel(f"{T}/Category_ids/0000001.png", 3, 0, 20),
        Kind.LABEL_OUT_OF_RANGE,
        f"{T}/Category_ids/0000001.png",
        r"1 pixels with label\(s\) 20; labels are 0..19",
    ),
    "label out of range of 59": (
        "lv_mhp_v2",
        change_pixel(PERSON_FILE, 0, 0, (59, 0, 0)),
        Kind.LABEL_OUT_OF_RANGE,
        PERSON_FILE,
        r"label\(s\) 59; labels are 0..58",
    ),
    "person with green": (
        "lv_mhp_v2",
        change_pixel(PERSON_FILE, 0, 1, (3, 1, 0)),
        Kind.UNREADABLE_LABELS,
        PERSON_FILE,
        "colour rendering",
    ),
    "person truncated": (
        "lv_mhp_v2",
        cut(PERSON_FILE, 50),
        Kind.UNREADABLE_LABELS,
        PERSON_FILE,
        "is not a readable image: ",
    ),
    "person of another size": (
        "lv_mhp_v2",
        draw(PERSON_FILE, folders.red(GREY)),
        Kind.SIZE_MISMATCH,
        PERSON_FILE,
        "6x4 pixels .*its image is 4x3",
    ),
    "person without pixels": (
        "lv_mhp_v2",
        draw(PERSON_FILE, folders.red(GREY[:3, :4])),
        Kind.EMPTY_PERSON,
        PERSON_FILE,
        "no labelled pixel",
    ),
    "person file missing": (
        "lv_mhp_v2",
        remove("train/parsing_annos/10_02_02.png"),
        Kind.WRONG_PERSON_COUNT,
        PERSON_FILE,
        "2 people, but the people there are 1",
    ),
    "person files of two counts": (
        "lv_mhp_v2",
        rename("train/parsing_annos/10_02_02.png", "train/parsing_annos/10_03_02.png"),
        Kind.WRONG_PERSON_COUNT,
        PERSON_FILE,
        "2 and 3 people",
    ),
    "person file misnamed": (
        "lv_mhp_v2",
        write("train/parsing_annos/copy.png", b""),
        Kind.UNLISTED,
        "train/parsing_annos/copy.png",
        "<image id>_<people>_<person>.png",
    ),
    "person file without image": (
        "lv_mhp_v2",
        draw("train/parsing_annos/12_01_01.png", folders.red(GREY)),
        Kind.LABELS_WITHOUT_IMAGE,
        "train/parsing_annos/12_01_01.png",
        "no image '12' in train/images",
    ),
    "labels without image": (
        "cihp",
        draw(f"{T}/Human_ids/0000009.png", GREY),
        Kind.LABELS_WITHOUT_IMAGE,
        f"{T}/Human_ids/0000009.png",
        f"no image '0000009' in {T}/Images",
    ),
    "image not listed": (
        "cihp",
        draw(f"{T}/Images/0000009.jpg", RENDERING),
        Kind.UNLISTED,
        f"{T}/Images/0000009.jpg",
        "no list",
    ),
    "annotated frame not listed": (
        "vip",
        replace_line("lists/train_id.txt", f"{FRAME}\n", ""),
        Kind.UNLISTED,
        f"Images/{FRAME}.jpg",
        "no list",
    ),
    "line repeated": (
        "cihp",
        replace_line("train_id.txt", "0000002\n", "0000002\n0000001\n"),
        Kind.REPEATED_LINE,
        "train_id.txt",
        "line 3 repeats '0000001' of line 1",
    ),
    "line leads out of the folder": (
        "cihp",
        replace_line("train_id.txt", "0000002\n", "0000002\n../0000003\n"),
        Kind.MALFORMED_LINE,
        "train_id.txt",
        "line 3 is no image id: '../0000003' leads out of its folder",
    ),
    "line names no frame": (
        "vip",
        replace_line("lists/train_id.txt", f"{FRAME}\n", f"{FRAME}\nvideos3\n"),
        Kind.MALFORMED_LINE,
        "lists/train_id.txt",
        "line 2 is no <video>/<frame>: 'videos3'",
    ),
    "line is not text": (
        "cihp",
        write("train_id.txt", b"0000001\n\xff\xfe0\n0000002\n"),
        Kind.MALFORMED_LINE,
        "train_id.txt",
        "line 2 is not UTF-8 text",
    ),
    "image of 16 bits": (
        "cihp",
        draw(f"{T}/Images/0000001.jpg", GREY.astype(np.uint16), "PNG"),
        Kind.SIXTEEN_BIT_IMAGE,
        f"{T}/Images/0000001.jpg",
        "16 bits",
    ),
    "image of floats": (
        "cihp",
        draw(f"{T}/Images/0000001.jpg", GREY.astype(np.float32), "TIFF"),
        Kind.UNREADABLE_IMAGE,
        f"{T}/Images/0000001.jpg",
        "the range of its values",
    ),
    "no person": (
        "lv_mhp_v2",
        lambda root: [
            folders.save(root / PERSON_FILE.replace("_01.", f"_0{k}."), folders.red(GREY[:3, :4]))
            for k in (1, 2)
        ],
        Kind.NO_PEOPLE,
        "train/images/10.jpg",
        "nobody",
    ),
    "all labels missing": (
        "lv_mhp_v2",
        lambda root: [(root / f"train/parsing_annos/10_02_0{k}.png").unlink() for k in (1, 2)],
        Kind.MISSING_LABELS,
        "train/parsing_annos/10_*.png",
        "no person",
    ),
    "instance map missing": (
        "cihp",
        remove(f"{T}/Instance_ids/0000001.png"),
        Kind.MISSING_INSTANCES,
        f"{T}/Instance_ids/0000001.png",
        "does not exist",
    ),
    "instance table missing": (
        "vip",
        remove(f"Annotations/Instance_ids/{FRAME}.txt"),
        Kind.MISSING_INSTANCES,
        f"Annotations/Instance_ids/{FRAME}.txt",
        "does not exist",
    ),
    "instance table empty": (
        "cihp",
        write(f"{T}/Instance_ids/0000001.txt", b"\n"),
        Kind.UNREADABLE_INSTANCES,
        f"{T}/Instance_ids/0000001.txt",
        "is empty",
    ),
    "instance table is binary": (
        "cihp",
        write(f"{T}/Instance_ids/0000001.txt", b"\xff\xfe\x00"),
        Kind.UNREADABLE_INSTANCES,
        f"{T}/Instance_ids/0000001.txt",
        "decode",
    ),
    "instance map of another size": (
        "cihp",
        draw(f"{T}/Instance_ids/0000001.png", GREY.T),
        Kind.UNREADABLE_INSTANCES,
        f"{T}/Instance_ids/0000001.png",
        "its image is 6x4",
    ),
    "instance map is a rendering": (
        "cihp",
        draw(f"{T}/Instance_ids/0000001.png", RENDERING),
        Kind.UNREADABLE_INSTANCES,
        f"{T}/Instance_ids/0000001.png",
        "several channels",
    ),
    "instance map truncated": (
        "cihp",
        cut(f"{T}/Instance_ids/0000001.png", 50),
        Kind.UNREADABLE_INSTANCES,
        f"{T}/Instance_ids/0000001.png",
        "",
    ),
    "instance line with words missing": (
        "cihp",
        replace_line(f"{T}/Instance_ids/0000001.txt", "15 15 1", "15 15"),
        Kind.MALFORMED_INSTANCE,
        f"{T}/Instance_ids/0000001.txt",
        "line 3, '15 15'",
    ),
    "instance line with a wrong person": (
        "cihp",
        replace_line(f"{T}/Instance_ids/0000001.txt", "56 16 3", "56 16 2"),
        Kind.MALFORMED_INSTANCE,
        f"{T}/Instance_ids/0000001.txt",
        r"line 4: instance 56 is not class 16 \+ 20 \* \(human 2 - 1\)",
    ),
    "instance line with a number beyond all": (
        "cihp",
        replace_line(f"{T}/Instance_ids/0000001.txt", "15 15 1", f"15 15 1\n{'9' * 5000} 1 1"),
        Kind.MALFORMED_INSTANCE,
        f"{T}/Instance_ids/0000001.txt",
        "line 4, '9999",
    ),
    "instance line repeated": (
        "vip",
        replace_line(f"Annotations/Instance_ids/{FRAME}.txt", "14 14 1", "13 13 1\n14 14 1"),
        Kind.MALFORMED_INSTANCE,
        f"Annotations/Instance_ids/{FRAME}.txt",
        "line 2 repeats instance 13",
    ),
    "instance line without pixels": (
        "cihp",
        replace_line(f"{T}/Instance_ids/0000001.txt", "56 16 3", "56 16 3\n58 18 3"),
        Kind.LINE_WITHOUT_PIXELS,
        f"{T}/Instance_ids/0000001.txt",
        r"instance\(s\) 58$",
    ),
    "instance pixels without line": (
        "cihp",
        replace_line(f"{T}/Instance_ids/0000001.txt", "56 16 3\n", ""),
        Kind.PIXELS_WITHOUT_LINE,
        f"{T}/Instance_ids/0000001.png",
        r"instance\(s\) 56$",
    ),
    "instance map disagrees": (
        "cihp",
        change_pixel(f"{T}/Instance_ids/0000001.png", 0, 2, 14),
        Kind.INSTANCE_MISMATCH,
        f"{T}/Instance_ids/0000001.png",
        "1 pixels .*: 14 instead of 13 at x 2, y 0",
    ),
    "frame between the annotated ones": (
        "vip",
        lambda root: [
            folders.add_labels(root / "Annotations", "videos3/000000000002"),
            replace_line("lists/train_id.txt", f"{FRAME}\n", f"{FRAME}\nvideos3/000000000002\n")(
                root
            ),
        ],
        Kind.UNEXPECTED_FRAME,
        "lists/train_id.txt",
        "line 2: frame 2",
    ),
    "folder of labels missing": (
        "cihp",
        lambda root: (root / T / "Human_ids").rename(root / "elsewhere"),
        Kind.MISSING_FOLDER,
        f"{T}/Human_ids",
        "does not exist",
    ),
    "folder of instances missing": (
        "cihp",
        lambda root: (root / T / "Instance_ids").rename(root / "elsewhere"),
        Kind.NO_INSTANCES,
        f"{T}/Instance_ids",
        "does not exist",
    ),
}

# Other kinds that the same damage necessarily brings.
ACCOMPANIED = {
    "no person": {Kind.EMPTY_PERSON},
    "instance line with words missing": {Kind.PIXELS_WITHOUT_LINE},
}


@pytest.mark.parametrize("name", CASES)
def test_bad_file(tmp_path, name):
    data_set, go_wrong, kind, file, reason = CASES[name]
    root = folders.MAKERS[data_set](tmp_path / "data")
    go_wrong(root)
    findings, reports = look_through(root, data_set)

    (named,) = (f for f in findings if f.kind not in ACCOMPANIED.get(name, ()))
    assert (named.kind, named.file) == (kind, file)
    assert re.search(reason, named.reason)
    assert str(tmp_path) not in named.reason
    spoiled = {f.image_id for f in findings if f.kind.severity is Severity.UNUSABLE}
    for report in reports:
        has_people = report.image_id not in spoiled and not (
            kind is Kind.NO_PEOPLE and report.image_id == named.image_id
        )
        assert bool(report.people) == has_people


def test_every_kind_of_file_problem_has_a_case():
    others = {Kind.MISSING_LIST, Kind.COUNT}  # of data sets, not of files
    assert {case[2] for case in CASES.values()} == set(Kind) - others


@pytest.mark.parametrize("name", folders.MAKERS)
def test_sound_folders_raise_no_alarm(tmp_path, name):
    findings, reports = look_through(folders.MAKERS[name](tmp_path), name)
    assert findings == []
    assert len(reports) == 2
    for report in reports:
        assert [person.number for person in report.people] == ([1, 2] if name[0] == "l" else [1, 3])


def test_damage_of_one_file_does_not_hide_that_of_others(tmp_path):
    root = folders.make_cihp(tmp_path)
    cut(f"{T}/Images/0000001.jpg", 15)(root)
    cut(f"{T}/Category_ids/0000001.png", 50)(root)
    cut(f"{T}/Human_ids/0000001.png", 50)(root)
    change_pixel(f"{T}/Category_ids/0000002.png", 0, 1, 77)(root)
    remove(f"{T}/Instance_ids/0000002.txt")(root)
    findings, _ = look_through(root, "cihp")
    assert {(f.image_id, f.kind) for f in findings} == {
        ("0000001", Kind.UNREADABLE_IMAGE),
        ("0000001", Kind.UNREADABLE_LABELS),
        ("0000002", Kind.LABEL_OUT_OF_RANGE),
        ("0000002", Kind.MISSING_INSTANCES),
        ("0000002", Kind.INSTANCE_MISMATCH),
    }
    assert sum(f.kind is Kind.UNREADABLE_LABELS for f in findings) == 2


def test_exif_orientation_counts(tmp_path):
    root = folders.make_cihp(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    Image.new("RGB", (6, 4)).save(root / T / "Images" / "0000001.jpg", exif=exif)
    findings, _ = look_through(root, "cihp")
    assert {f.kind for f in findings} == {Kind.SIZE_MISMATCH}
    assert "6x4 pixels (width x height), but its image is 4x6" in findings[0].reason


def test_person_of_background_only(tmp_path):
    root = folders.make_cihp(tmp_path)
    change_pixel(f"{T}/Human_ids/0000001.png", 3, 5, 7)(root)
    findings, reports = look_through(root, "cihp")
    (finding,) = findings
    assert finding.kind is Kind.EMPTY_PERSON and "number(s) 7 " in finding.reason
    assert [person.number for person in reports[0].people] == [1, 3]


def test_instances_of_more_than_8_bits(tmp_path):
    root = folders.make_cihp(tmp_path)
    for kind, old, new in (("Human_ids", 3, 15), ("Instance_ids", 56, 296)):
        with Image.open(root / T / kind / "0000001.png") as image:
            pixels = np.array(image).astype(np.uint16)
        pixels[pixels == old] = new
        folders.save(
            root / T / kind / "0000001.png", pixels.astype(np.uint16 if new > 255 else np.uint8)
        )
    replace_line(f"{T}/Instance_ids/0000001.txt", "56 16 3", "296 16 15")(root)
    assert look_through(root, "cihp")[0] == []


def test_files_of_other_kinds_are_passed_over(tmp_path):
    root = folders.make_cihp(tmp_path)
    for file in ("Images/._0000001.jpg", "Images/Thumbs.db", "Human_ids/.DS_Store"):
        write(f"{T}/{file}", b"")(root)
    (root / "train_id.txt").write_bytes(b"\xef\xbb\xbf0000001\r\n\r\n0000002\r\n")
    assert look_through(root, "cihp")[0] == []


@pytest.mark.parametrize(
    ("name", "load"), [("cihp", load_cihp), ("lv_mhp_v2", load_lv_mhp_v2), ("vip", load_vip)]
)
@pytest.mark.parametrize("change", ["none", "suffixes in upper case"])
def test_same_files_as_the_loaders(tmp_path, monkeypatch, name, load, change):
    monkeypatch.setenv("AIPARSING_INDEX_CACHE", "0")
    root = folders.MAKERS[name](tmp_path)
    if change != "none":
        folders.put_suffixes_in_upper_case(root)
    findings, _ = look_through(root, name)
    assert findings == []
    images = take_inventory(root, DATA_SETS[name], ["train"]).images["train"]
    height, width = (3, 4) if name == "lv_mhp_v2" else (4, 6)
    assert [files.record(root, height, width) for files in images] == load(root, "train")


def test_a_lower_case_suffix_comes_first_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("AIPARSING_INDEX_CACHE", "0")
    root = folders.make_cihp(tmp_path)
    for suffix in (".JPG", ".png", ".JPEG"):
        (root / T / "Images" / f"0000001{suffix}").write_bytes(b"")
    rename(f"{T}/Images/0000002.jpg", f"{T}/Images/0000002.Png")(root)
    (root / T / "Images" / "0000002.JPEG").write_bytes(
        (root / T / "Images" / "0000001.jpg").read_bytes()
    )
    images = take_inventory(root, DATA_SETS["cihp"], ["train"]).images["train"]
    expected = [f"{T}/Images/0000001.jpg", f"{T}/Images/0000002.JPEG"]
    assert [files.image for files in images] == expected
    assert [record["file_name"] for record in load_cihp(root, "train")] == [
        str(root / file) for file in expected
    ]


def test_vip_without_the_folder_of_annotations(tmp_path):
    root = folders.make_vip(tmp_path)
    for folder in (root / "Annotations").iterdir():
        folder.rename(root / folder.name)
    (root / "Annotations").rmdir()
    (root / "lists" / "train_id.txt").rename(root / "train_id.txt")
    findings, reports = look_through(root, "vip")
    assert findings == [] and len(reports) == 2


def test_frames_of_one_split_are_not_unlisted_in_another(tmp_path):
    root = folders.make_vip(tmp_path)
    lines = (root / "lists" / "train_id.txt").read_text().splitlines()
    (root / "lists" / "train_id.txt").write_text(lines[0])
    (root / "lists" / "val_id.txt").write_text(lines[1])
    assert take_inventory(root, DATA_SETS["vip"], ["val"]).findings == []


def test_own_data_needs_nothing_that_only_the_published_has(tmp_path):
    own = DATA_SETS["vip"].as_own_data()
    root = folders.make_vip(tmp_path)
    for suffix in (".png", ".txt"):
        os.remove(root / f"Annotations/Instance_ids/{FRAME}{suffix}")
    for folder in ("Images", "Annotations/Category_ids", "Annotations/Human_ids"):
        (suffix,) = {path.suffix for path in (root / folder / "videos3").iterdir()}
        rename(f"{folder}/{FRAME}{suffix}", f"{folder}/videos3/first{suffix}")(root)
    replace_line("lists/train_id.txt", FRAME, "videos3/first")(root)
    assert take_inventory(root, own, ["train"]).findings == []
    kinds = {f.kind for f in take_inventory(root, DATA_SETS["vip"], ["train"]).findings}
    assert Kind.MALFORMED_LINE in kinds


def test_reports_survive_json(tmp_path):
    root = folders.make_cihp(tmp_path)
    change_pixel(f"{T}/Category_ids/0000001.png", 0, 1, 99)(root)
    inventory = take_inventory(root, DATA_SETS["cihp"], ["train"])
    report = ImageVerifier(root, 20, with_rle=True)(inventory.images["train"][0])
    assert report.findings and report.people
    assert ImageReport.from_json(json.loads(json.dumps(report.to_json()))) == report

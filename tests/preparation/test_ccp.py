"""CCP, made up: three photographs of a person drawn from rectangles, with landmarks to match."""

import functools
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import io as scipy_io

from aiparsing_d2.cli import main
from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.data.datasets import load_cihp
from aiparsing_d2.preparation import ccp
from aiparsing_d2.preparation.ccp import conversion, landmarks
from aiparsing_d2.preparation.ccp.tags import CIHP_LABEL_OF_TAG
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

HEIGHT, WIDTH = 420, 200
save_mat = functools.partial(scipy_io.savemat, do_compression=True)  # as CCP's files are
LABEL = {name: label for label, name in enumerate(CIHP_PART_LABELS.names)}

# Landmark -> x, y of a person who looks at us, so that their left is on our right. The torso's
# length, from mid-shoulder to mid-hip, is 100.
FRONT = {
    2: (105, 40), 5: (95, 40), 7: (112, 45), 8: (88, 45), 9: (105, 56), 10: (95, 56),
    11: (130, 90), 12: (70, 90), 13: (150, 130), 14: (50, 130), 15: (155, 175), 16: (45, 175),
    17: (156, 185), 18: (44, 185), 19: (154, 185), 20: (46, 185), 23: (115, 190), 24: (85, 190),
    25: (117, 270), 26: (83, 270), 27: (118, 350), 28: (82, 350), 29: (118, 360), 30: (82, 360),
    31: (122, 370), 32: (78, 370),
}  # fmt: skip


def body(**moved):
    points = np.zeros((33, 2))
    for index, point in {**FRONT, **{int(k[1:]): v for k, v in moved.items()}}.items():
        points[index] = point
    return points


def tag_map(*rectangles):
    """Tags of (tag, x0, y0, x1, y1), ends exclusive, one over the other."""
    tags = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for tag, x0, y0, x1, y1 in rectangles:
        tags[y0:y1, x0:x1] = ccp.TAGS.index(tag)
    return tags


PERSON = (
    ("skin", 86, 30, 115, 95),  # face and neck
    ("hair", 86, 20, 115, 32),
    ("dress", 70, 90, 131, 230),
    ("skin", 140, 120, 165, 200),  # left forearm and hand, beside the dress
    ("skin", 35, 120, 60, 200),
    ("skin", 105, 230, 130, 355),  # legs
    ("skin", 70, 230, 95, 355),
    ("shoes", 105, 355, 130, 375),
    ("shoes", 70, 355, 95, 375),
    ("belt", 70, 180, 131, 186),
    ("bag", 165, 180, 190, 230),
)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Photographs 0803 and 0804 (which has no labels) of training, and 0805."""
    root = tmp_path / "clothing-co-parsing"
    (root / "photos").mkdir(parents=True)
    (root / "annotations" / "pixel-level").mkdir(parents=True)
    names = np.array([list(ccp.TAGS)], dtype=object)
    save_mat(root / "label_list.mat", {"label_list": names})
    for number, tags in ((803, tag_map(*PERSON)), (804, tag_map()), (805, tag_map(*PERSON))):
        noise = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(noise).save(root / "photos" / f"{number:04d}.jpg")
        file = root / "annotations" / "pixel-level" / f"{number:04d}.mat"
        save_mat(file, {"groundtruth": tags})
    points = np.broadcast_to(4 * body(), (1004, 33, 2)).astype(np.uint16)
    monkeypatch.setattr(landmarks, "_quarter_pixels", lambda: points)
    return root


def convert(root, output, *options):
    return main(["prepare", "ccp", str(root), "--output", str(output), "--workers", "1", *options])


def test_all_tags_have_a_label():
    assert len(ccp.TAGS) == 59 == len(CIHP_LABEL_OF_TAG) == len(set(ccp.TAGS))
    without = {tag for tag, label in zip(ccp.TAGS, CIHP_LABEL_OF_TAG) if label == 255}
    assert without == set(
        "accessories belt bracelet earrings necklace ring watch skin suit boots clogs flats heels "
        "loafers pumps sandals shoes sneakers wedges".split()
    )
    by_tag = dict(zip(ccp.TAGS, CIHP_LABEL_OF_TAG))
    assert by_tag["jeans"] == LABEL["Pants"] and by_tag["purse"] == 0
    assert by_tag["tights"] == LABEL["Socks"] and by_tag["cardigan"] == LABEL["Coat"]


def test_landmarks_are_whole():
    first = ccp.photograph_landmarks(1)
    assert first.shape == (33, 2) and first.tolist()[0] == [339.75, 102.5]
    for number in (1, 536, 1004):
        left, right = ccp.photograph_landmarks(number)[[11, 12], 0]
        assert left > right or number != 1  # the person of 0001 looks at us
    with pytest.raises(ValueError, match="1..1004, not 1005"):
        ccp.photograph_landmarks(1005)


def test_parts_of_a_person_seen_from_the_front():
    parts = ccp.cihp_parts(tag_map(*PERSON), body())
    for (x, y), name in {
        (100, 45): "Face", (100, 85): "Torso-skin", (100, 25): "Hair", (100, 150): "Dress",
        (152, 140): "Left-arm", (48, 140): "Right-arm", (155, 198): "Left-arm",
        (117, 300): "Left-leg", (83, 300): "Right-leg",
        (118, 365): "Left-shoe", (82, 365): "Right-shoe", (175, 200): "Background",
    }.items():  # fmt: skip
        assert parts[y, x] == LABEL[name], name
    assert (parts[180:186, 70:131] == 255).all()


def test_mirroring_a_photograph_swaps_left_and_right():
    tags, points = tag_map(*PERSON), body()
    mirrored = points.copy()
    mirrored[:, 0] = WIDTH - 1 - mirrored[:, 0]
    for left, right in [(2, 5)] + [(i, i + 1) for i in (*range(7, 21, 2), *range(23, 32, 2))]:
        mirrored[[left, right]] = mirrored[[right, left]]
    expected = CIHP_PART_LABELS.flip_table()[ccp.cihp_parts(tags, points)[:, ::-1]]
    np.testing.assert_array_equal(ccp.cihp_parts(tags[:, ::-1].copy(), mirrored), expected)


def test_neck_is_not_face():
    """Face ends at 56 + 10, the neck begins at 56 + 16 / 2 - 6: half-way between is 62."""
    parts = ccp.cihp_parts(tag_map(("skin", 92, 36, 108, 92)), body())
    column = parts[36:92, 100]
    assert (column[: 62 - 36] == LABEL["Face"]).all()
    assert (column[63 - 36 :] == LABEL["Torso-skin"]).all()


@pytest.mark.parametrize("x", [92, 100, 109])
def test_hand_before_the_thigh_is_an_arm(x):
    """And the same skin without a hand there is a leg."""
    hand = {"p15": (x, 205), "p17": (x - 2, 215), "p19": (x + 2, 215), "p13": (150, 150)}
    tags = tag_map(("jeans", 70, 190, 131, 350), ("skin", x - 7, 204, x + 8, 228))
    parts = ccp.cihp_parts(tags, body(**hand))
    assert (parts[204:228, x - 7 : x + 8] == LABEL["Left-arm"]).all()
    legs = ccp.cihp_parts(tags, body())[204:228, x - 7 : x + 8]
    assert set(np.unique(legs)) <= {LABEL["Left-leg"], LABEL["Right-leg"]}


def test_belly_is_no_leg():
    parts = ccp.cihp_parts(tag_map(("skin", 80, 172, 121, 188)), body())
    assert (parts[172:188, 80:121] == LABEL["Torso-skin"]).all()


def test_suit_is_a_coat_above_the_hips():
    parts = ccp.cihp_parts(tag_map(("suit", 70, 90, 131, 350)), body())
    assert (parts[90:190, 70:131] == LABEL["Coat"]).all()
    assert (parts[190:350, 70:131] == LABEL["Pants"]).all()


def test_specks_become_the_main_part_of_their_patch():
    """The left leg's side begins at 100, so that a column of 41 is nearer to the right leg."""
    parts = ccp.cihp_parts(tag_map(("skin", 99, 240, 140, 340)), body())
    assert set(np.unique(parts)) == {0, LABEL["Left-leg"]}
    parts = ccp.cihp_parts(tag_map(("skin", 90, 240, 140, 340)), body())
    assert set(np.unique(parts)) == {0, LABEL["Left-leg"], LABEL["Right-leg"]}


def test_two_shoes_in_profile_are_one_of_each_side():
    """Both are nearer to the left foot; the one nearer to the right foot is the right shoe."""
    feet = {"p27": (90, 350), "p29": (88, 360), "p31": (110, 365)}
    feet |= {"p28": (60, 350), "p30": (58, 352), "p32": (62, 352)}
    tags = tag_map(("boots", 80, 340, 115, 370), ("boots", 125, 340, 160, 370))
    parts = ccp.cihp_parts(tags, body(**feet))
    assert (parts[340:370, 80:115] == LABEL["Right-shoe"]).all()
    assert (parts[340:370, 125:160] == LABEL["Left-shoe"]).all()


def test_pieces_of_one_sandal_are_of_one_side():
    straps = ("sandals", 105, 352, 130, 356), ("sandals", 105, 359, 130, 363)
    parts = ccp.cihp_parts(tag_map(*straps), body())
    assert set(np.unique(parts)) == {0, LABEL["Left-shoe"]}


def test_a_shoe_alone_is_of_the_nearer_foot():
    """A shoe is not halved where less than a fifth is nearer to the other foot."""
    parts = ccp.cihp_parts(tag_map(("shoes", 68, 355, 102, 375)), body())
    assert set(np.unique(parts)) == {0, LABEL["Right-shoe"]}
    both = ccp.cihp_parts(tag_map(("shoes", 70, 355, 131, 375)), body())
    assert set(np.unique(both)) == {0, LABEL["Right-shoe"], LABEL["Left-shoe"]}


def test_data_set(repository, tmp_path, capsys):
    output = tmp_path / "ccp"
    assert convert(repository, output) == 0
    out = capsys.readouterr().out
    assert "train: 1 photograph of" in out and "val: 1 photograph of" in out
    assert "Left out, as nobody's head is labelled: 0804" in out

    (record,) = load_cihp(output, "train")
    assert record["image_id"] == "0803" and (record["height"], record["width"]) == (420, 200)
    with open(record["file_name"], "rb") as file:
        assert file.read() == (repository / "photos" / "0803.jpg").read_bytes()
    annotations = read_person_annotations(record, CIHP_PART_LABELS.num_classes)
    # The forearms are the outermost, hair and shoes the ends; the bag is not the person's.
    assert annotations.boxes.tolist() == [[35, 20, 165, 375]]
    assert (annotations.person_maps[0] == annotations.category_map).all()
    assert (annotations.person_maps[0] == 255).sum() == 6 * 61

    manifest = json.loads((output / "ccp.json").read_text())
    train = manifest["train"]
    assert train["images"] == 1 and train["people"]["Left-shoe"] == 1
    assert train["pixels"]["Left-shoe"] == 25 * 20 and train["pixels"]["ignored"] == 6 * 61
    assert [record["image_id"] for record in load_cihp(output, "val")] == ["0805"]


def test_people_without_a_head_are_left_out(repository, tmp_path):
    file = repository / "annotations" / "pixel-level" / "0803.mat"
    save_mat(file, {"groundtruth": tag_map(*PERSON[2:])})
    assert convert(repository, tmp_path / "ccp") == 0
    manifest = json.loads((tmp_path / "ccp" / "ccp.json").read_text())
    assert manifest["left_out"] == ["0803", "0804"] and "train" not in manifest
    assert not (tmp_path / "ccp" / "train_id.txt").exists()


def test_own_tags_as_labels(repository, tmp_path):
    """Without left and right, mirrored photographs keep their labels."""
    from detectron2.data import transforms as T

    from aiparsing_d2.structures.part_labels import PartLabels, distinct_colors

    assert convert(repository, tmp_path / "ccp_tags", "--labels", "tags") == 0
    (record,) = load_cihp(tmp_path / "ccp_tags", "val")
    labels = PartLabels(names=ccp.TAGS, colors=distinct_colors(59))
    mapper = ParsingDatasetMapper(True, augmentations=[T.RandomFlip(1.0)], part_labels=labels)
    (person,) = mapper(record)["instances"].gt_part_maps.to_full().numpy()
    np.testing.assert_array_equal(person, tag_map(*PERSON)[:, ::-1])


def test_people_of_backgrounds_are_to_be_ignored(repository, tmp_path):
    boxes = json.loads((conversion_folder() / "ignore_boxes.json").read_text())
    photographs = np.array([int(image_id) for image_id in boxes])
    assert (photographs >= 1).all() and (photographs < 805).all()
    corners = np.array([box for boxes_of_one in boxes.values() for box in boxes_of_one])
    assert (corners[:, :2] < corners[:, 2:]).all() and (corners >= 0).all()

    first = min(photographs)
    for folder, suffix in (("photos", "jpg"), ("annotations/pixel-level", "mat")):
        shutil.copy(
            repository / folder / f"0803.{suffix}", repository / folder / f"{first:04d}.{suffix}"
        )
    assert convert(repository, tmp_path / "ccp") == 0
    written = json.loads((tmp_path / "ccp" / "ignore_boxes.json").read_text())
    assert written == {f"{first:04d}": boxes[f"{first:04d}"]}


def conversion_folder():
    return Path(conversion.__file__).parent


def test_last_photograph(repository, tmp_path):
    assert convert(repository, tmp_path / "ccp", "--last", "804") == 0
    assert not (tmp_path / "ccp" / "val_id.txt").exists()


def test_an_interrupted_run_goes_on(repository, tmp_path, monkeypatch, capsys):
    output = tmp_path / "ccp"
    assert convert(repository, tmp_path / "whole") == 0
    convert_photograph = conversion._convert_photograph

    def stop_at_805(request, number):
        if number == 805:
            raise KeyboardInterrupt
        return convert_photograph(request, number)

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_convert_photograph", stop_at_805)
        assert convert(repository, output) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert not (output / "train_id.txt").exists()  # not to be taken for a data set
    first = output / "Training" / "Category_ids" / "0803.png"
    os.utime(first, (1, 1))
    assert convert(repository, output, "--labels", "tags") == 1
    assert "labels 'cihp' instead of 'tags'" in capsys.readouterr().err
    assert convert(repository, output) == 0
    assert first.stat().st_mtime == 1
    assert files_of(output) == files_of(tmp_path / "whole")
    assert convert(repository, output) == 0  # nothing is left to do
    assert convert(repository, output, "--last", "803") == 1


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_processes_do_not_change_the_files(repository, tmp_path):
    # Processes of their own read the landmarks that come with the package.
    shutil.rmtree(tmp_path / "ccp", ignore_errors=True)
    assert convert(repository, tmp_path / "one", "--labels", "tags") == 0
    assert convert(repository, tmp_path / "two", "--labels", "tags", "--workers", "2") == 0
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def _die(*args):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_ends_the_conversion(repository, tmp_path, monkeypatch, capsys):
    """As SciPy's does on some damaged files; a pool would wait for ever."""
    monkeypatch.setattr(conversion, "_convert_photograph", _die)
    assert convert(repository, tmp_path / "out", "--workers", "2") == 1
    assert "A worker process ended before its work was done" in capsys.readouterr().err


def test_a_folder_in_use_is_left_alone(repository, tmp_path, capsys):
    output = tmp_path / "mine"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    assert convert(repository, output) == 1
    assert "holds other files" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "photos" / "0803.jpg").unlink(), "0803.jpg does not exist, but"),
        (lambda root: (root / "label_list.mat").unlink(), "is this the folder of CCP"),
        (lambda root: shutil.rmtree(root / "photos"), "does not exist, but"),
        (
            lambda root: (root / "annotations/pixel-level/0805.mat").write_bytes(b"MATLAB"),
            "0805.mat cannot be read",
        ),
        (
            lambda root: scipy_io.savemat(
                root / "annotations/pixel-level/0805.mat", {"groundtruth": tag_map()}
            ),
            "0805.mat cannot be read as a MATLAB file: it is not compressed",
        ),
        (
            lambda root: save_mat(root / "annotations/pixel-level/0805.mat", {"truth": tag_map()}),
            "0805.mat has no variable 'groundtruth'",
        ),
        (
            lambda root: save_mat(
                root / "annotations/pixel-level/0805.mat", {"groundtruth": tag_map()[1:]}
            ),
            r"0805.mat has labels of \(419, 200\) pixels",
        ),
        (
            lambda root: save_mat(
                root / "annotations/pixel-level/0805.mat", {"groundtruth": tag_map() + 59}
            ),
            "0805.mat holds uint8 labels up to 59",
        ),
        (
            lambda root: save_mat(root / "label_list.mat", {"label_list": np.zeros(0)}),
            "does not hold the 59 tags",
        ),
    ],
)
def test_errors_name_the_file(repository, tmp_path, capsys, spoil, message):
    spoil(repository)
    assert convert(repository, tmp_path / "ccp") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(message, error), error


def test_a_damaged_file_does_not_end_the_process(tmp_path):
    """SciPy crashes on some files of which one byte is another; none gets that far."""
    tags = np.arange(60, dtype=np.uint8).reshape(6, 10)
    file = tmp_path / "0805.mat"
    save_mat(file, {"groundtruth": tags})
    content = file.read_bytes()
    num_refused = 0
    for place in range(len(content)):
        for mask in (1, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= mask
            file.write_bytes(damaged)
            try:
                read = conversion._read_mat(file, "groundtruth")
            except ValueError as error:
                assert "0805.mat cannot be read" in str(error)
                num_refused += 1
            else:
                assert np.array_equal(read, tags)  # the header's text, or bits of no use
    assert num_refused > 2.9 * (len(content) - 124)
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match="0805.mat (cannot be read|has no variable)"):
            conversion._read_mat(file, "groundtruth")


def test_an_empty_repository(repository, tmp_path, capsys):
    for folder in ("photos", "annotations"):
        shutil.rmtree(repository / folder)
    assert convert(repository, tmp_path / "ccp") == 1
    assert "has no photograph with labels" in capsys.readouterr().err
    assert not (tmp_path / "ccp").exists()


def test_without_scipy(repository, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert convert(repository, tmp_path / "ccp") == 1
    assert "aiparsing_d2[photographs]" in capsys.readouterr().err

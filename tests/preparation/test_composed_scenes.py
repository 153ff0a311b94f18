"""Validation sets of crowds and of cut people, composed from a small made data set."""

import hashlib

import numpy as np
import pytest

from aiparsing_d2.cli import main
from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.datasets import load_cihp, register_cihp
from aiparsing_d2.preparation import composed_scenes
from aiparsing_d2.preparation.composed_scenes import COMPOSITIONS, compose_data_set
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS


@pytest.fixture
def source(cihp_folder):
    """Four photographs of 200x200, one person each: head (13) over body (5) over legs (16, 17)."""
    for number in range(1, 5):
        category_map = np.zeros((200, 200), dtype=np.uint8)
        left = 30 + 5 * number
        category_map[20:50, left + 20 : left + 60] = 13
        category_map[50:110, left : left + 80] = 5
        category_map[110:180, left + 10 : left + 36] = 16
        category_map[110:180, left + 44 : left + 70] = 17
        human_map = (category_map > 0).astype(np.uint8)
        image = np.full((200, 200, 3), 40 * number, dtype=np.uint8)
        cihp_folder.add(f"{number:07d}", category_map, human_map, image)
    return load_cihp(cihp_folder.root, "train")


def compose(kind, source, root, num_images=6, seed=0):
    compose_data_set(
        COMPOSITIONS[kind], source, CIHP_PART_LABELS, root, num_images=num_images, seed=seed
    )
    return load_cihp(root, "val")


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_crowds_have_two_to_six_people_of_very_different_sizes(source, tmp_path):
    records = compose("crowds", source, tmp_path / "crowd", num_images=24)
    assert len(records) == 24
    people = [read_person_annotations(record, 20) for record in records]
    numbers = [len(annotations.boxes) for annotations in people]
    assert min(numbers) >= 2 and max(numbers) <= 6 and len(set(numbers)) >= 4
    heights = np.concatenate(
        [
            (annotations.boxes[:, 3] - annotations.boxes[:, 1]) / record["height"]
            for record, annotations in zip(records, people)
        ]
    )
    assert heights.min() < 0.25 and heights.max() == 1
    assert {record["width"] > record["height"] for record in records} == {True, False}


def test_crops_cut_a_person_at_every_side(source, tmp_path):
    records = compose("crops", source, tmp_path / "crops", num_images=40)
    sides = set()
    for record in records:
        annotations = read_person_annotations(record, 20)
        assert len(annotations.boxes) == 1
        x0, y0, x1, y1 = annotations.boxes[0]
        touched = {
            side
            for side, touches in {
                "left": x0 == 0,
                "top": y0 == 0,
                "right": x1 == record["width"],
                "bottom": y1 == record["height"],
            }.items()
            if touches
        }
        assert touched, record["file_name"]
        sides |= touched
    assert sides == {"left", "top", "right", "bottom"}


@pytest.mark.parametrize("kind", ["crowds", "crops"])
def test_the_same_call_makes_the_same_files_and_goes_on_after_an_interruption(
    kind, source, tmp_path
):
    compose(kind, source, tmp_path / "a")
    whole = digests(tmp_path / "a")
    compose(kind, source, tmp_path / "b", seed=1)
    assert whole["Validation/Images/0000001.jpg"] != digests(tmp_path / "b").get(
        "Validation/Images/0000001.jpg"
    )
    # An image whose last file is missing is made again.
    for name in ("Validation/Human_ids/0000003.png", "Validation/Images/0000005.jpg", "val_id.txt"):
        (tmp_path / "a" / name).unlink()
    (tmp_path / "a" / "Validation/Human_ids/0000005.png").unlink()
    compose(kind, source, tmp_path / "a")
    assert digests(tmp_path / "a") == whole


def test_other_folders_are_left_alone(source, tmp_path):
    compose("crops", source, tmp_path / "a", num_images=2)
    with pytest.raises(FileExistsError, match="other settings"):
        compose("crops", source, tmp_path / "a", num_images=3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("…")
    with pytest.raises(FileExistsError, match="not empty"):
        compose("crops", source, tmp_path / "mine")


def test_what_cannot_be_composed_ends_and_leaves_no_folder(
    source, tmp_path, cihp_folder, monkeypatch
):
    def refuses(kind, records, message, **settings):
        with pytest.raises(ValueError, match=message):
            compose(kind, records, tmp_path / "out", **settings)
        assert not (tmp_path / "out").exists()

    monkeypatch.setattr(composed_scenes, "_MAX_TRIES", 20)
    cihp_folder.split = "val"
    small = np.ones((60, 60), dtype=np.uint8)
    cihp_folder.add("small", 5 * small, small)
    refuses("crops", load_cihp(cihp_folder.root, "val"), "cut person came about in 20 tries.*64")
    (cihp_folder.root / "val_id.txt").unlink()
    nobody = np.zeros((200, 200), dtype=np.uint8)
    cihp_folder.add("nobody", nobody, nobody)
    records = load_cihp(cihp_folder.root, "val")
    refuses("crops", records, "cut person came about")
    refuses("crowds", records, "no scene of two to six people came about.*people with labels")
    refuses("crowds", [], "no images")
    refuses("crops", source, "non-negative", seed=-1)
    assert len(compose("crops", source, tmp_path / "out")) == 6


def test_the_command(source, tmp_path, cihp_folder, capsys):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    register_cihp("photographs", cihp_folder.root, "train", part_labels=CIHP_PART_LABELS)
    try:
        arguments = ["--dataset", "photographs", "--num-images", "2"]
        assert main(["compose", "crops", *arguments, "--output", str(tmp_path / "crops")]) == 0
        assert len(load_cihp(tmp_path / "crops", "val")) == 2
        assert main(["compose", "crowds", *arguments, "--output", str(tmp_path / "crops")]) == 1
        assert "other settings" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            main(["compose", "crops", *arguments, "--output", str(tmp_path / "y"), "--seed", "-1"])
        assert "-1 is neither 0 nor a positive integer" in capsys.readouterr().err
    finally:
        DatasetCatalog.remove("photographs")
        MetadataCatalog.remove("photographs")
    assert main(["compose", "crops", *arguments, "--output", str(tmp_path / "x")]) == 1
    assert "photographs" in capsys.readouterr().err

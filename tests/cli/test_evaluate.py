"""The command evaluate, through files from end to end."""

from __future__ import annotations

import argparse
import csv
import json
import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from aiparsing_d2.cli import evaluate
from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.datasets.cihp import load_cihp, register_cihp
from aiparsing_d2.evaluation import Prediction
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.parallel import WorkerDiedError
from aiparsing_d2.submissions import (
    CihpSubmission,
    LvMhpV2Submission,
    PersonMapsSubmission,
    VipSubmission,
)

DATASET = "evaluate_test"
OUTPUT_FILES = {"scores.json", "scores.csv", "scores.md", "images.csv", "worst_images.png"}


def run(*argv) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["evaluate", "--workers", "1", *map(str, argv)])
    return args.run(args)


@pytest.fixture(autouse=True)
def no_index_cache(monkeypatch):
    monkeypatch.setenv("AIPARSING_INDEX_CACHE", "0")


@pytest.fixture
def data_set(cihp_folder, category_map, human_map):
    """A registered split of three images; the second one is mirrored, the third has nobody."""
    cihp_folder.split = "val"
    cihp_folder.add("0000001", category_map, human_map)
    cihp_folder.add("0000002", category_map[:, ::-1].copy(), human_map[:, ::-1].copy())
    cihp_folder.add("0000003", 0 * category_map, 0 * human_map)
    register_cihp(DATASET, cihp_folder.root, "val")
    yield cihp_folder.root
    DatasetCatalog.remove(DATASET)
    MetadataCatalog.remove(DATASET)


def write_results(root, folder, kind=PersonMapsSubmission):
    """Perfect results, but for the second image, where the left person is lost."""
    submission = kind(folder, 20)
    for record in load_cihp(root, "val"):
        truth = read_person_annotations(record, 20)
        maps = np.where(truth.person_maps == 255, 16, truth.person_maps).astype(np.uint8)
        keep = slice(0, 1 if record["image_id"] == "0000002" else None)
        scores = np.array([0.9, 0.8])[: len(maps)]
        prediction = Prediction(maps[keep], scores[keep], boxes=truth.boxes[keep])
        submission.write(record["image_id"], prediction, (record["height"], record["width"]))
    return folder


def test_scores_files_and_sheet(data_set, tmp_path, capsys):
    results = write_results(data_set, tmp_path / "results")
    output = tmp_path / "scores"
    assert run("--dataset", DATASET, "--predictions", results, "--output", output) == 0

    scores = json.loads((output / "scores.json").read_text())
    # Three of the four people are found, and right.
    assert scores["results"]["parsing"]["APp50"] == pytest.approx(75)
    assert scores["results"]["parsing"]["PCP50"] == pytest.approx(75)
    assert scores["num_images"] == 3
    assert scores["format"] == "person_maps"
    assert scores["settings"]["semseg_thresh"] == 0.3
    printed = capsys.readouterr().out
    assert "3 images, in percent" in printed
    assert " 75.00 |" in printed
    assert "note:" not in printed

    with open(output / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == ["0000002", "0000001", "0000003"]
    assert (rows[0]["missed_persons"], rows[0]["false_detections"]) == ("1", "0")
    assert {path.name for path in output.iterdir()} == OUTPUT_FILES
    with Image.open(output / "worst_images.png") as sheet:
        assert sheet.width == 3 * 400 + 4 * 12


def test_an_output_that_cannot_be_written_is_told_first(tmp_path, capsys):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "report"
    assert run("--predictions", "none", "--dataset", "none", "--output", output) == 1
    assert capsys.readouterr().err == f"error: {output} cannot be written to: Not a directory\n"


def test_output_is_not_overwritten_unasked(data_set, tmp_path, capsys):
    results = write_results(data_set, tmp_path / "results")
    argv = ("--dataset", DATASET, "--predictions", results, "--output", tmp_path / "scores")
    assert run(*argv, "--worst", 0) == 0
    assert not (tmp_path / "scores" / "worst_images.png").exists()
    before = (tmp_path / "scores" / "scores.json").read_bytes()
    capsys.readouterr()
    assert run(*argv, "--semseg-thresh", 1) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "scores.json exists; give another folder, or --overwrite" in captured.err
    assert (tmp_path / "scores" / "scores.json").read_bytes() == before
    assert run(*argv, "--semseg-thresh", 1, "--overwrite", "--worst", 1) == 0
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert scores["settings"]["semseg_thresh"] == 1
    # No sheet of an earlier call is left beside other figures.
    assert (tmp_path / "scores" / "worst_images.png").exists()
    assert run(*argv, "--overwrite", "--worst", 0) == 0
    assert not (tmp_path / "scores" / "worst_images.png").exists()
    assert scores["results"]["parsing"]["IoU-Face"] == 0


def test_ignored_pixels_count_in_the_union_of_apr_unless_left_out(data_set, tmp_path):
    results = write_results(data_set, tmp_path / "results")
    argv = ("--dataset", DATASET, "--predictions", results, "--worst", 0)
    apr = []
    for name, options in (("union", ()), ("skipped", ("--part-regions-skip-ignored",))):
        assert run(*argv, "--output", tmp_path / name, *options) == 0
        scores = json.loads((tmp_path / name / "scores.json").read_text())
        assert scores["settings"]["part_regions_skip_ignored"] is bool(options)
        apr.append(scores["results"]["parsing"]["APr-80"])
    # One of four classes: a leg of three pixels and an ignored one, found in one of two images.
    assert apr[1] - apr[0] == pytest.approx(100 * (1 / 2) / 4)


def test_a_folder_that_is_not_registered(data_set, tmp_path, capsys):
    results = write_results(data_set, tmp_path / "results", CihpSubmission)
    where = ("--root", data_set, "--layout", "cihp", "--split", "val")
    assert run(*where, "--predictions", results) == 0
    assert "(cihp) on" in capsys.readouterr().out
    assert run(*where[:4], "--predictions", results) == 1
    assert "--root with --layout and --split" in capsys.readouterr().err
    assert run(*where, "--dataset", DATASET, "--predictions", results) == 1
    assert run("--predictions", results) == 1


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_videos(category_map, human_map, tmp_path, capsys):
    root, results = tmp_path / "vip", tmp_path / "results"
    category_map[category_map == 255] = 16
    submission = VipSubmission(results, 20)
    # The frames have the same name; in the second video nobody is found.
    for video, found in (("videos1", 2), ("videos2", 0)):
        name = f"{video}/000000000001"
        write_png(root / "Images" / f"{name}.png", np.zeros((*category_map.shape, 3), np.uint8))
        write_png(root / "Annotations" / "Category_ids" / f"{name}.png", category_map)
        write_png(root / "Annotations" / "Human_ids" / f"{name}.png", human_map)
        people = np.where(human_map == np.array([1, 4])[:, None, None], category_map, np.uint8(0))
        prediction = Prediction(people[:found], np.array([0.9, 0.8])[:found])
        submission.write(name, prediction, category_map.shape)
    (root / "lists").mkdir()
    lines = "videos1/000000000001\nvideos2/000000000001\n"
    (root / "lists" / "val_id.txt").write_text(lines)
    where = ("--root", root, "--layout", "vip", "--split", "val")
    output = tmp_path / "scores"
    assert run(*where, "--predictions", results, "--output", output) == 0
    assert "(vip) on" in capsys.readouterr().out
    scores = json.loads((output / "scores.json").read_text())["results"]
    assert scores["parsing"]["APp-90"] == scores["parsing"]["APr-90"] == pytest.approx(50)
    assert scores["bbox"]["AP50"] == pytest.approx(100 * 51 / 101)  # 101 points, recall 0 to .5


def test_people_in_files_of_their_own(tmp_path, capsys):
    root, results = tmp_path / "mhp", tmp_path / "results"
    people = np.zeros((2, 4, 6), dtype=np.uint8)
    people[0, :, :3], people[1, :, 3:] = 4, 58  # hair, and the last label
    write_png(root / "val" / "images" / "7.png", np.zeros((4, 6, 3), np.uint8))
    for k, person_map in enumerate(people, start=1):
        rgb = np.stack([person_map, 0 * person_map, 0 * person_map], axis=-1)
        write_png(root / "val" / "parsing_annos" / f"7_02_{k:02d}.png", rgb)
    (root / "list").mkdir()
    (root / "list" / "val.txt").write_text("7\n")
    submission = LvMhpV2Submission(results, 59, ScoreThresholds(semantic=0.005))
    prediction = Prediction(people, np.array([0.9, 0.01]))
    submission.write_index([submission.write("7", prediction, (4, 6))])
    where = ("--root", root, "--layout", "lv_mhp_v2", "--split", "val")
    output = tmp_path / "scores"
    assert run(*where, "--predictions", results, "--output", output) == 0
    printed = capsys.readouterr().out
    assert "note: APr: undefined, the format holds no scores of part regions" in printed
    scores = json.loads((output / "scores.json").read_text())
    assert scores["settings"]["semseg_thresh"] == 0.005
    parsing = scores["results"]["parsing"]
    assert parsing["mIoU"] == parsing["APpvol"] == parsing["PCP50"] == 100
    assert parsing["APr50"] is None


def test_pictures_without_people_are_drawn_too(data_set, tmp_path, capsys):
    results = write_results(data_set, tmp_path / "results", CihpSubmission)
    shutil.rmtree(results / "instance_segmentation")
    output = tmp_path / "scores"
    assert run("--dataset", DATASET, "--predictions", results, "--output", output) == 0
    printed = capsys.readouterr().out
    assert "note: APp, PCP: undefined, there is no folder instance_segmentation" in printed
    scores = json.loads((output / "scores.json").read_text())["results"]
    assert scores["parsing"]["APp50"] is None
    assert "bbox" not in scores
    with Image.open(output / "worst_images.png") as sheet:
        # The predicted face of the first image, in the third column.
        face = np.array(MetadataCatalog.get(DATASET).part_colors[13])
        column = np.asarray(sheet)[:, 2 * 412 + 12 :].astype(int)
        assert (np.abs(column - 0.7 * face).max(axis=-1) <= 1).sum() > 1000


def test_missing_and_broken_results(data_set, tmp_path, capsys):
    results = write_results(data_set, tmp_path / "results")
    argv = ("--dataset", DATASET, "--predictions", results)
    (results / "0000002.json").unlink()
    assert run(*argv) == 1
    assert "no result of 1 of the 3 images: '0000002'" in capsys.readouterr().err
    assert run(*argv, "--missing", "empty", "--output", tmp_path / "scores") == 0
    assert (
        "note: without a result, counted as images without people: 1 of 3 images"
        in capsys.readouterr().out
    )

    (results / "0000001_2.png").write_bytes(b"")
    assert run(*argv, "--missing", "empty") == 1
    assert "image '0000001': " in capsys.readouterr().err
    assert run(*argv, "--missing", "empty", "--on-error", "skip") == 0
    assert (
        "note: cannot be scored, left out of all figures: 1 of 3 images" in capsys.readouterr().out
    )


def test_a_killed_worker_is_one_line(data_set, tmp_path, capsys, monkeypatch):
    def lose_a_worker(*args, **kwargs):
        raise WorkerDiedError("Use fewer workers.")

    results = write_results(data_set, tmp_path / "results")
    monkeypatch.setattr("aiparsing_d2.submissions.score_submission", lose_a_worker)
    assert run("--dataset", DATASET, "--predictions", results) == 1
    assert capsys.readouterr().err == "error: Use fewer workers.\n"


def test_unknown_names_are_errors(data_set, tmp_path, capsys):
    results = write_results(data_set, tmp_path / "results")
    assert run("--dataset", "cihp_vall", "--predictions", results) == 1
    error = capsys.readouterr().err
    assert "no data set 'cihp_vall' is registered" in error
    assert "cihp_val" in error and "coco_2017_val" not in error
    assert run("--dataset", DATASET, "--predictions", tmp_path / "nowhere") == 1
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert run("--import", "no_such_module", "--dataset", DATASET, "--predictions", results) == 1
    assert "no_such_module" in capsys.readouterr().err


def test_data_sets_without_the_metadata_of_parts(data_set, tmp_path, capsys):
    results = write_results(data_set, tmp_path / "results")
    name = "evaluate_test_of_metadata"
    DatasetCatalog.register(name, lambda: load_cihp(data_set, "val"))
    try:
        argv = ("--dataset", name, "--predictions", results)
        assert run(*argv) == 1
        assert f"Data set '{name}' has no part labels" in capsys.readouterr().err
        known = MetadataCatalog.get(DATASET).as_dict()
        labels = {key: value for key, value in known.items() if key.startswith("part_")}
        MetadataCatalog.get(name).set(**labels)
        assert run(*argv) == 1
        assert "has no semseg_thresh: give --semseg-thresh" in capsys.readouterr().err
        assert run(*argv, "--semseg-thresh", 0.1) == 0
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_modules_that_register_data_sets(data_set, tmp_path, monkeypatch, capsys):
    results = write_results(data_set, tmp_path / "results")
    (tmp_path / "evaluate_test_module.py").write_text(
        "from aiparsing_d2.data.datasets import register_cihp\n"
        f"register_cihp('evaluate_test_of_a_module', {str(data_set)!r}, 'val')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    argv = ("--import", "evaluate_test_module", "--dataset", "evaluate_test_of_a_module")
    assert run(*argv, "--predictions", results) == 0
    assert "on evaluate_test_of_a_module: 3 images" in capsys.readouterr().out
    DatasetCatalog.remove("evaluate_test_of_a_module")
    MetadataCatalog.remove("evaluate_test_of_a_module")


def test_an_unreadable_image_is_left_off_the_sheet(data_set, tmp_path, capsys):
    results = write_results(data_set, tmp_path / "results")
    records = load_cihp(data_set, "val")  # looks at all images before one breaks
    assert len(records) == 3
    broken = data_set / "Validation" / "Images" / "0000002.png"
    content = broken.read_bytes()
    DatasetCatalog.get(DATASET)
    DatasetCatalog.remove(DATASET)
    DatasetCatalog.register(DATASET, lambda: records)
    broken.write_bytes(content[: len(content) // 2])
    output = tmp_path / "scores"
    assert run("--dataset", DATASET, "--predictions", results, "--output", output) == 0
    assert "left off the sheet" in capsys.readouterr().err
    assert {path.name for path in output.iterdir()} == OUTPUT_FILES

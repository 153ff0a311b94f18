"""The command parse, from files to files."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures_on_disk import names_below, save_picture
from PIL import Image

from aiparsing_d2.cli import main
from aiparsing_d2.cli.stop_signals import StopSignals
from aiparsing_d2.inference import ParsedImage, ParsingPredictor
from aiparsing_d2.inference.saving import RESULT_KINDS
from aiparsing_d2.inference.video import VIDEO_KINDS
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS


def test_results_are_those_of_the_predictor(parse_anew, predictor, tmp_path, capsys):
    picture = save_picture(tmp_path / "a photo.v1.png")
    assert parse_anew(picture, "--save", "overlay,json,parts") == 0
    out = tmp_path / "out"
    names = {f"a photo.v1.{suffix}" for suffix in ("overlay.jpg", "json", "parts.png")}
    assert names_below(out) == names
    assert capsys.readouterr().out == f"{out}: 3 people in 1 picture\n"

    parsed = predictor(picture)
    assert json.loads((out / "a photo.v1.json").read_text()) == json.loads(parsed.to_json())
    parts = Image.open(out / "a photo.v1.parts.png")
    np.testing.assert_array_equal(np.asarray(parts), parsed.semantic_map())
    colors = CIHP_PART_LABELS.colorize(parsed.semantic_map())
    np.testing.assert_array_equal(np.asarray(parts.convert("RGB")), colors)
    overlay = np.asarray(Image.open(out / "a photo.v1.overlay.jpg")).astype(int)
    assert np.abs(overlay - parsed.plot(legend=True)).mean() < 10


def test_pictures_side_by_side(parse, predictor, tmp_path):
    """Each is parsed as if one core were all there is, however many share the pictures."""
    pictures = [save_picture(tmp_path / f"{n}.png", width=60 + 20 * n) for n in range(6)]
    expected = [json.loads(predictor(picture).to_json()) for picture in pictures]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert parse(*pictures, "--save", "json") == 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert before == 1  # as conftest.py sets it
    out = tmp_path / "out"
    assert [json.loads((out / f"{n}.json").read_text()) for n in range(6)] == expected


def test_all_kinds_hold_the_same_people(parse, predictor, tmp_path, capsys):
    picture = save_picture(tmp_path / "a.b.png")
    assert parse(picture, "--save", "instances,coco,npz,cutouts,person_maps") == 0
    out, parsed = tmp_path / "out", predictor(picture)
    assert len(parsed) == 3
    instances = Image.open(out / "a.b.instances.png")
    np.testing.assert_array_equal(np.asarray(instances), parsed.instance_map())
    coco = json.loads((out / "a.b.coco.json").read_text())
    assert coco == json.loads(json.dumps(parsed.to_coco(image_id="a.b")))
    loaded = ParsedImage.load(out / "a.b.npz")
    assert [person.score for person in loaded] == [person.score for person in parsed]
    assert names_below(out / "a.b.person_maps") == {"1.png", "2.png", "3.png"}
    for number, person in enumerate(parsed, start=1):
        labels = Image.open(out / "a.b.person_maps" / f"{number}.png")
        np.testing.assert_array_equal(np.asarray(labels), person.part_map())
        if person.area():
            cutout = Image.open(out / "a.b.cutouts" / f"{number}.png")
            np.testing.assert_array_equal(np.asarray(cutout), person.crop())
    (out / "a.b.cutouts" / "9.png").touch()
    assert parse(picture, "--save", "cutouts") == 0  # kept
    assert (out / "a.b.cutouts" / "9.png").exists()
    assert parse(picture, "--save", "cutouts", "--overwrite") == 0
    assert not (out / "a.b.cutouts" / "9.png").exists()
    assert {path.suffix for path in out.iterdir()} == {
        ".png", ".json", ".npz", ".cutouts", ".person_maps"
    }  # fmt: skip


def test_a_folder_of_results_that_cannot_be_finished(parse, tmp_path, monkeypatch, capsys):
    picture = save_picture(tmp_path / "1.png")
    assert parse(picture, "--save", "person_maps") == 0
    before = names_below(tmp_path / "out")

    def full_disk(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aiparsing_d2.inference.ParsedPerson.part_map", full_disk)
    assert parse(picture, "--save", "person_maps", "--overwrite") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert names_below(tmp_path / "out") == before


def test_patterns_and_names_from_standard_input(parse, tmp_path, monkeypatch, capsys):
    for name in ("a/1.png", "a/b/2.png", "c/3 ü.png", "[d].png"):
        save_picture(tmp_path / "in" / name)
    pattern = tmp_path / "in" / "a" / "**" / "*.png"
    names = f"{tmp_path / 'in/c/3 ü.png'}\r\n\n{tmp_path / 'in/[d].png'}\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(names.encode())))
    assert parse(pattern, "-", "--save", "json") == 0
    assert names_below(tmp_path / "out") == {"1.json", "2.json", "3 ü.json", "[d].json"}
    assert parse(tmp_path / "in" / "*.tiff", "--save", "json") == 1
    assert "*.tiff: nothing has such a name" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert parse("-", "--save", "json") == 1
    assert "-: no names on standard input" in capsys.readouterr().err


def test_pictures_without_people_are_named(parse, predictor, tmp_path, monkeypatch, capsys):
    pictures = [save_picture(tmp_path / f"{n}.png") for n in range(7)]
    monkeypatch.setattr(predictor, "score_threshold", 1.0)
    assert parse(*pictures, "--save", "json") == 0
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith(f"Nobody found in {pictures[0]}, ")
    assert f"{pictures[4]} and 2 more; a lower --threshold" in printed


def test_names_in_coco_results_tell_folders_apart(parse, tmp_path):
    for name in ("1.png", "beach/1.png"):
        save_picture(tmp_path / "in" / name)
    assert parse(tmp_path / "in", "--save", "coco") == 0
    ids = {
        person["image_id"]
        for file in (tmp_path / "out").rglob("*.coco.json")
        for person in json.loads(file.read_text())
    }
    assert ids == {"1", "beach/1"}


def test_folders_and_what_is_no_picture_in_them(parse, tmp_path):
    folder = tmp_path / "in"
    for name in ("1.png", "below/1.JPG", "below/deeper/ü.webp"):
        save_picture(folder / name)
    (folder / "notes.txt").write_text("no picture")
    assert parse(folder, "--save", "json") == 0
    expected = {"1.json", "below/1.json", "below/deeper/ü.json"}
    assert names_below(tmp_path / "out") == expected


def test_results_inside_the_folder_are_no_pictures(parse, tmp_path):
    save_picture(tmp_path / "1.png")
    assert parse(tmp_path) == 0 and parse(tmp_path) == 0
    assert names_below(tmp_path / "out") == {"1.overlay.jpg", "1.json"}


def test_broken_pictures_are_named_and_the_others_parsed(parse, tmp_path, capsys):
    folder = tmp_path / "in"
    save_picture(folder / "1.png")
    save_picture(folder / "5.png")
    (folder / "2.jpg").write_text("a text")
    (folder / "3.jpg").touch()
    (folder / "4.png").write_bytes((folder / "1.png").read_bytes()[:500])
    assert parse(folder, tmp_path / "none.jpg", "--save", "json") == 1
    assert names_below(tmp_path / "out") == {"1.json", "5.json"}
    printed = capsys.readouterr()
    for name in ("2.jpg", "3.jpg", "4.png", "none.jpg"):
        lines = [line for line in printed.err.splitlines() if line.count(name)]
        assert len(lines) == 1 and "Parsing" not in lines[0]
    assert printed.out.endswith("6 people in 2 pictures, 4 failed\n")
    bar = printed.err.split("\r")[-1]
    assert "5/5" in bar and "3 failed]" in bar  # what does not exist was no task


def test_what_is_there_is_kept(parse, tmp_path, capsys):
    pictures = [save_picture(tmp_path / f"{n}.png") for n in (1, 2)]
    out = tmp_path / "out"
    assert parse(pictures[0], "--save", "json") == 0
    (out / "1.json").write_text("corrected by hand")
    assert parse(*pictures, "--save", "json") == 0
    assert capsys.readouterr().out.endswith(
        "3 people in 1 picture, 1 kept as they were (--overwrite makes them anew)\n"
    )
    assert parse(*pictures) == 0  # adds the overlays
    assert (out / "1.json").read_text() == "corrected by hand"
    assert names_below(out) == {f"{n}.{s}" for n in (1, 2) for s in ("json", "overlay.jpg")}
    assert parse(*pictures, "--overwrite") == 0
    assert json.loads((out / "1.json").read_text())["width"] == 90


def test_nothing_to_do_loads_no_model(parse, tmp_path, monkeypatch):
    picture = save_picture(tmp_path / "1.png")
    assert parse(picture) == 0
    monkeypatch.setattr("aiparsing_d2.cli.parse._make_predictor", None)
    assert parse(picture) == 0


def test_pictures_whose_results_would_have_one_name(parse, tmp_path, capsys):
    first, second = save_picture(tmp_path / "a/1.png"), save_picture(tmp_path / "b/1.jpg")
    again = Path(os.path.relpath(first))
    assert parse(first, again, tmp_path / "b", "--save", "json") == 1
    assert f"{second}: {first} has the same name" in capsys.readouterr().err
    assert names_below(tmp_path / "out") == {"1.json"}


@pytest.fixture
def send_signal(monkeypatch):
    """Send the process a signal, as from elsewhere, and wait until its main thread has noticed."""
    noticed = threading.Semaphore(0)
    note = StopSignals._note

    def note_and_tell(self, number, frame):
        try:
            note(self, number, frame)
        finally:
            noticed.release()

    def send(number):
        time.sleep(0.05)  # one that comes while the main thread lies down to wait is seen late
        signal.pthread_kill(threading.main_thread().ident, number)
        assert noticed.acquire(timeout=20)

    monkeypatch.setattr(StopSignals, "_note", note_and_tell)
    return send


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped(parse, predictor, tmp_path, monkeypatch, capsys, send_signal, number, status):
    """What is begun is finished, and the next call goes on from there."""
    for n in range(20):
        save_picture(tmp_path / f"in/{n:02}.png")
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    num_parsed = 0

    def parse_prepared(prepared):
        nonlocal num_parsed
        num_parsed += 1
        if num_parsed == 7:
            send_signal(number)
        return ParsingPredictor.parse_prepared(predictor, prepared)

    monkeypatch.setattr(predictor, "parse_prepared", parse_prepared)
    assert parse(tmp_path / "in", "--save", "json") == status
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert names_below(tmp_path / "out") == {f"{n:02}.json" for n in range(7)}
    message = "Interrupted: 7 of 20 pictures done; the same command goes on from here."
    assert capsys.readouterr().err.splitlines()[-1] == message
    assert parse(tmp_path / "in", "--save", "json") == 0 and num_parsed == 20
    assert len(names_below(tmp_path / "out")) == 20


def test_stopped_while_making_results_anew(
    parse, predictor, tmp_path, monkeypatch, capsys, send_signal
):
    def parse_prepared(prepared):
        send_signal(signal.SIGINT)
        return ParsingPredictor.parse_prepared(predictor, prepared)

    monkeypatch.setattr(predictor, "parse_prepared", parse_prepared)
    pictures = [save_picture(tmp_path / f"{n}.png") for n in (1, 2)]
    assert parse(*pictures, "--save", "json", "--overwrite") == 130
    message = "1 of 2 pictures done; the same command with --overwrite starts anew."
    assert message in capsys.readouterr().err


def test_a_second_interrupt_does_not_wait(
    parse, predictor, tmp_path, monkeypatch, capsys, send_signal
):
    """For other pictures than those that are in the model."""

    def parse_prepared(prepared):
        send_signal(signal.SIGINT)
        send_signal(signal.SIGINT)

    monkeypatch.setattr(predictor, "parse_prepared", parse_prepared)
    assert parse(save_picture(tmp_path / "1.png")) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "Interrupted."
    assert names_below(tmp_path / "out") == set()


def test_ranks_share_the_pictures(parse, tmp_path, monkeypatch, capsys):
    """Each parses its own, also when others have finished some of theirs before it looks."""
    for n in range(5):
        save_picture(tmp_path / f"in/{n}.png", width=50 + 10 * n)
    (tmp_path / "in" / "5.png").touch()
    inputs = tmp_path / "in", tmp_path / "none.png"
    assert parse(*inputs, "--save", "json,parts") == 1
    expected = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "out")
    capsys.readouterr()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, status, names in ((0, 1, "024"), (1, 1, "13")):
        monkeypatch.setenv("RANK", str(rank))
        assert parse(*inputs, "--save", "json,parts") == status
        out, err = capsys.readouterr()
        assert f"out: rank {rank} of 2: " in out and f"in {len(names)} pictures, 1 failed" in out
        assert ("none.png" in err) == (rank == 0) and ("5.png" in err) == (rank == 1)
        for name in names:
            assert (tmp_path / "out" / f"{name}.json").exists()
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == expected


@pytest.mark.parametrize("rank, num_ranks", [("2", "2"), ("1", None), ("x", "2"), ("-1", "2")])
def test_wrong_ranks(parse, tmp_path, monkeypatch, capsys, rank, num_ranks):
    monkeypatch.setenv("RANK", rank)
    if num_ranks:
        monkeypatch.setenv("WORLD_SIZE", num_ranks)
    assert parse(save_picture(tmp_path / "1.png")) == 1
    assert f"RANK={rank}" in capsys.readouterr().err


def test_ranks_do_not_read_one_standard_input(parse, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert parse("-") == 1
    assert "cannot share standard input" in capsys.readouterr().err


@pytest.mark.slow
def test_torchrun(model_files, tmp_path):
    """A rank that ends with an error does not end the other before its work is done."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "000.png").touch()
    for n in range(1, 12, 2):  # all go to rank 1
        save_picture(tmp_path / f"in/{n:03}.png", 400, 400)
        save_picture(tmp_path / f"in/{n + 1:03}.txt.png").rename(tmp_path / f"in/{n + 1:03}.png")
        (tmp_path / "in" / f"{n + 1:03}.png").write_text("no picture")
    config, weights = map(str, model_files)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", "-m", "aiparsing_d2", "parse", str(tmp_path / "in")]
    command += ["--output", str(tmp_path / "out"), "--save", "json", "--threshold", "0"]
    command += ["--config-file", config, "--weights", weights, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "rank 0 of 2: 0 people in 0 pictures, 7 failed" in done.stdout
    assert "rank 1 of 2: 18 people in 6 pictures" in done.stdout
    assert names_below(tmp_path / "out") == {f"{n:03}.json" for n in range(1, 12, 2)}


def test_a_result_that_cannot_be_written(parse, tmp_path, monkeypatch, capsys):
    def full_disk(self, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aiparsing_d2.inference.ParsedImage.to_json", full_disk)
    assert parse(save_picture(tmp_path / "1.png"), "--save", "json") == 1
    assert "1.png: [Errno 28] No space left on device" in capsys.readouterr().err
    assert names_below(tmp_path / "out") == set()


def test_mistakes_before_anything_is_parsed(parse_anew, tmp_path, capsys):
    picture = save_picture(tmp_path / "1.png")
    assert parse_anew(picture, "--weights", tmp_path / "none.pth") == 1
    assert "none.pth" in capsys.readouterr().err
    assert parse_anew(picture, "--device", "banana") == 1
    assert "there is no device 'banana' here" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert parse_anew(tmp_path / "empty") == 1
    assert "empty: no pictures" in capsys.readouterr().err
    assert main(["parse", str(picture), "--output", str(tmp_path / "out"), "--model", "none"]) == 1
    assert "none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    assert main(["parse", str(picture), "--output", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err
    for wrong in (
        ["--threshold", "2"],
        ["--save", "video"],
        ["--model", "a", "--config-file", "b"],
    ):
        with pytest.raises(SystemExit) as end:
            main(["parse", str(picture), "--output", str(tmp_path / "out"), *wrong])
        assert end.value.code == 2
    assert (
        "'video' is not one of overlay, people, parts, instances, json" in capsys.readouterr().err
    )


def test_help_answers_without_torch(capsys):
    code = (
        "import sys\nfrom aiparsing_d2.cli import main\n"
        "try:\n    main(['parse', '--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'detectron2' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
    listed = re.findall(r"^  (\w+) +(\.[\w.]+)", done.stdout, re.MULTILINE)
    of_pictures = [(name, kind.suffix) for name, kind in RESULT_KINDS.items()]
    of_videos = [(name, VIDEO_KINDS[name].suffix) for name in ("overlay", "people", "json", "vip")]
    assert listed == of_pictures + of_videos

"""Videos and cameras of the command parse; a file stands in for a camera."""

from __future__ import annotations

import json
import os
import re
import signal

import numpy as np
import pytest
from pictures_on_disk import names_below, save_picture

from aiparsing_d2.inference import ParsingPredictor
from aiparsing_d2.inference.video_files import VideoFile, VideoWriter


def save_video(path, num_frames=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(0).integers(0, 256, (8, 9, 3))
    pixels = blocks.repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)
    with VideoWriter(path, 10) as writer:
        for number in range(num_frames):
            writer.write(np.roll(pixels, number, axis=1), number / 10)
    return path


@pytest.fixture
def interrupting(monkeypatch):
    """Sends the process a signal when the model has seen so many frames."""

    def begin(number, after):
        seen = []
        parse = ParsingPredictor.parse_prepared

        def count(self, picture):
            seen.append(picture)
            if len(seen) == after:
                os.kill(os.getpid(), number)
            return parse(self, picture)

        monkeypatch.setattr(ParsingPredictor, "parse_prepared", count)

    return begin


def test_a_video_and_what_is_kept_of_it(parse, predictor, tmp_path, capsys):
    video = save_video(tmp_path / "in" / "my clip.mp4")
    out = tmp_path / "out"
    assert parse(video) == 0
    assert names_below(out) == {"my clip.overlay.mp4", "my clip.jsonl"}
    printed = capsys.readouterr()
    assert re.search(r"out: \d (person|people) in 4 frames of 1 video\n$", printed.out)
    assert "my clip: 100%" in printed.err

    lines = [json.loads(line) for line in (out / "my clip.jsonl").read_text().splitlines()]
    for line, frame in zip(lines, VideoFile(video), strict=True):
        expected = json.loads(predictor(frame.image, channel_order="RGB").to_json())["people"]
        assert [p["box"] for p in line["people"]] == [p["box"] for p in expected]
        assert (line["frame"], line["time"]) == (frame.number, frame.time)

    (out / "my clip.jsonl").write_text("corrected by hand")
    assert parse(video) == 0
    assert capsys.readouterr().out.endswith(
        "out: 1 kept as they were (--overwrite makes them anew)\n"
    )
    assert parse(video, "--save", "json,parts") == 0  # adds the parts
    assert (out / "my clip.jsonl").read_text() == "corrected by hand"
    assert len(names_below(out / "my clip.frames.parts")) == 4
    assert parse(video, "--overwrite") == 0
    assert len((out / "my clip.jsonl").read_text().splitlines()) == 4


def test_every_nth_frame(parse, tmp_path):
    assert parse(save_video(tmp_path / "clip.MP4", 5), "--every", 2, "--save", "json") == 0
    lines = (tmp_path / "out" / "clip.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == [0, 2, 4]
    for wrong in (0, -1, "x"):
        with pytest.raises(SystemExit):
            parse(tmp_path / "clip.MP4", "--every", wrong)


def test_pictures_and_videos_together(parse, tmp_path, capsys):
    folder = tmp_path / "in"
    save_picture(folder / "1.png")
    save_video(folder / "clip.mp4")
    assert parse(folder, "--save", "json") == 0  # of folders, the pictures
    assert names_below(tmp_path / "out") == {"1.json"}
    assert parse(folder, folder / "*.mp4", "--save", "json", "--overwrite") == 0
    assert names_below(tmp_path / "out") == {"1.json", "clip.jsonl"}
    assert re.search(
        r"3 people in 1 picture, \d (person|people) in 4 frames of 1 video\n$",
        capsys.readouterr().out,
    )


def test_a_result_folder_of_vip(parse, tmp_path, capsys):
    video, picture = save_video(tmp_path / "clip.mp4", 2), save_picture(tmp_path / "1.png")
    assert parse(picture, "--save", "vip") == 1
    assert "pictures cannot be saved as vip, which is for videos" in capsys.readouterr().err
    assert parse(video, "--save", "vip") == 0
    frames = tmp_path / "out" / "clip.vip" / "clip" / "global_parsing"
    assert names_below(frames) == {"00000000.png", "00000001.png"}


@pytest.mark.parametrize("kinds", ["", ","])
def test_no_kind_at_all_is_told(parse, tmp_path, capsys, kinds):
    with pytest.raises(SystemExit):
        parse(tmp_path / "clip.mp4", "--save", kinds)
    assert "argument --save: names no kind of overlay" in capsys.readouterr().err


def test_bad_videos_are_named_and_the_others_parsed(parse, tmp_path, monkeypatch, capsys):
    (tmp_path / "text.mp4").write_text("a text")
    good = save_video(tmp_path / "good.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(good.read_bytes()[:-300])
    again = save_video(tmp_path / "b" / "good.mp4")
    inputs = [tmp_path / "text.mp4", tmp_path / "none.mp4", cut, good, again]
    assert parse(*inputs, "--save", "json") == 1
    assert names_below(tmp_path / "out") == {"good.jsonl"}
    printed = capsys.readouterr()
    assert printed.out.endswith("frames of 1 video, 4 failed\n")
    for message in (
        "text.mp4 is no video that can be read",
        "none.mp4: no such file",
        "cut.mp4 is no video that can be read",
        f"{again}: {good} has the same name",
    ):
        assert len([line for line in printed.err.splitlines() if message in line]) == 1, message

    monkeypatch.setattr(VideoFile, "__iter__", lambda self: iter([]))
    assert parse(good, "--save", "json", "--overwrite") == 1
    printed = capsys.readouterr()
    assert f"{good}: no frame of it can be read" in printed.err
    assert printed.out.endswith("out: 0 people in 0 videos, 1 failed\n")
    assert (tmp_path / "out" / "good.jsonl").exists()  # the earlier one


def test_missing_frames_are_told(parse, tmp_path, monkeypatch, capsys):
    video = save_video(tmp_path / "clip.mp4")
    read = VideoFile.__init__

    def announce_ten(self, *args, **options):
        read(self, *args, **options)
        self._count = 10

    monkeypatch.setattr(VideoFile, "__init__", announce_ten)
    assert parse(video, "--save", "json") == 1
    assert "clip.mp4: only 4 of 10 frames are there: it may be cut off" in capsys.readouterr().err
    assert len((tmp_path / "out" / "clip.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(parse, interrupting, tmp_path, capsys, number, status):
    videos = [save_video(tmp_path / f"{n}.mp4", 40) for n in (1, 2)]
    interrupting(number, after=5)
    out = tmp_path / "out"
    assert parse(*videos) == status
    assert "Interrupted: 0 of 2 videos done; the same command" in capsys.readouterr().err
    assert names_below(out) == {"1.overlay.unfinished.mp4", "1.unfinished.jsonl"}
    lines = (out / "1.unfinished.jsonl").read_text().splitlines()
    assert 4 <= len(lines) < 20
    assert len(list(VideoFile(out / "1.overlay.unfinished.mp4"))) == len(lines)


def test_an_interrupted_video_is_begun_anew(parse, interrupting, tmp_path):
    video = save_video(tmp_path / "clip.mp4", 12)
    interrupting(signal.SIGINT, after=2)
    assert parse(video, "--save", "json") == 130
    assert parse(video, "--save", "json") == 0
    assert names_below(tmp_path / "out") == {"clip.jsonl"}
    assert len((tmp_path / "out" / "clip.jsonl").read_text().splitlines()) == 12


def test_a_camera_until_it_is_interrupted(parse, interrupting, tmp_path, capsys):
    camera = f"camera:{save_video(tmp_path / 'stream.mkv', 500)}"
    interrupting(signal.SIGINT, after=2)
    assert parse(camera) == 0
    names = sorted(names_below(tmp_path / "out"))
    assert re.fullmatch(r"camera_\d{8}-\d{6}.jsonl", names[0])
    assert re.fullmatch(r"camera_\d{8}-\d{6}.overlay.mp4", names[1]) and len(names) == 2
    lines = (tmp_path / "out" / names[0]).read_text().splitlines()
    assert len(list(VideoFile(tmp_path / "out" / names[1]))) == len(lines) >= 2
    assert re.search(rf"in {len(lines)} frames of 1 video\n$", capsys.readouterr().out)
    assert parse("camera:99") == 1
    assert "camera:99: no such camera" in capsys.readouterr().err

"""What the page does with a clip, without the page."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from two_people import find
from video_streams import SCREEN_RECORDING, write_stream

from aiparsing_d2.app import clip as clip_module
from aiparsing_d2.app.clip import Clip, is_clip
from aiparsing_d2.app.upload import UploadRefusedError
from aiparsing_d2.inference.video_files import VideoFile


@pytest.fixture(autouse=True)
def many_reports(monkeypatch):
    monkeypatch.setattr(clip_module, "_BETWEEN_REPORTS", 0.005)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results"


def parsed(clip, folder):
    """Parse to the end; gives the frames of the data."""
    for _ in clip.parse(folder):
        pass
    return [json.loads(line) for line in clip.files[1].read_text().splitlines()]


def test_a_video_and_its_data(parser, clip_file, picture, folder):
    clip = Clip(parser, clip_file, 0.3)
    assert (clip.name, clip.num_frames) == ("on the beach", 40)
    frames = parsed(clip, folder)
    assert [file.name for file in clip.files] == ["on the beach.overlay.mp4", "on the beach.jsonl"]
    assert [frame["frame"] for frame in frames] == list(range(40))
    assert frames[-1]["time"] == clip.seconds == pytest.approx(39 / 25, abs=1e-4)
    for frame in frames:
        assert [(p["track_id"], round(p["score"], 4)) for p in frame["people"]] == [
            (1, 0.9),
            (2, 0.4),
        ]
    assert (clip.num_done, clip.num_people, clip.is_cut) == (40, 2, False)
    assert clip.parts == {"Hair", "Coat", "Face"}

    drawn = find(picture, 0.3)
    drawn.instances.track_ids = torch.tensor([1, 2])
    video = list(VideoFile(clip.files[0]))
    assert len(video) == 40
    assert np.abs(video[-1].image.astype(int) - drawn.plot()).mean() < 15
    assert np.abs(video[-1].image.astype(int) - picture).mean() > 40


def test_the_threshold(parser, finder, clip_file, folder):
    clip = Clip(parser, clip_file, 0.5)
    assert {len(frame["people"]) for frame in parsed(clip, folder)} == {1}
    assert clip.num_people == 1 and set(finder.calls) == {0.5}


@pytest.mark.parametrize(
    "max_frames, every, num_done, is_cut",
    [(40, 1, 40, False), (39, 2, 20, False), (10, 4, 10, False), (7, 5, 7, True)],
)
def test_of_a_long_clip_some_frames(parser, clip_file, folder, max_frames, every, num_done, is_cut):
    parser.max_frames = max_frames
    clip = Clip(parser, clip_file, 0.3)
    frames = parsed(clip, folder)
    assert [frame["frame"] for frame in frames] == list(range(0, every * num_done, every))
    assert clip.num_frames == clip.num_done == len(list(VideoFile(clip.files[0]))) == num_done
    assert clip.is_cut == is_cut
    assert clip.seconds == pytest.approx(every * (num_done - 1) / 25, abs=1e-4)


@pytest.mark.parametrize(
    "frame_rate, num_frames, every",
    [
        (30, 300, 1),
        (30, 301, 2),
        (30, 1800, 6),
        (30, 9000, 6),
        (29.97, 9000, 5),
        (60, 9000, 12),
        (2, 9000, 1),
        (25, None, 1),
    ],
)
def test_at_least_five_frames_a_second(frame_rate, num_frames, every):
    video = SimpleNamespace(frame_rate=frame_rate, num_frames=num_frames)
    assert clip_module._every(video, 300) == every


def test_of_a_screen_recording_all_frames_for_which_there_is_room(parser, folder, tmp_path):
    """Of which the rate announces four times as many."""
    clip = Clip(parser, write_stream(tmp_path / "screen.mkv", SCREEN_RECORDING), 0.3)
    assert (clip.every, clip.num_frames) == (1, 89)


def test_a_picture_does_not_wait_for_a_clip(parser, finder, clip_file, picture_file, folder):
    finder.seconds = 0.02
    clip = Clip(parser, clip_file, 0.3)
    for _ in clip.parse(folder):
        if clip.num_done:
            parser.parse(picture_file, 0.5)
            break
    assert 0.5 in finder.calls and finder.calls.count(0.3) < 20


def test_pictures_and_clips_do_not_mix_their_thresholds(parser, clip_file, picture_file, folder):
    clip = Clip(parser, clip_file, 0.5)
    with ThreadPoolExecutor(1) as pool:
        frames = pool.submit(parsed, clip, folder)
        found = [len(parser.parse(picture_file, 0.3).found) for _ in range(20)]
    assert found == [2] * 20
    assert {len(frame["people"]) for frame in frames.result()} == {1}


def test_stopping_keeps_what_is_there(parser, finder, clip_file, folder):
    finder.seconds = 0.02
    clip = Clip(parser, clip_file, 0.3)
    for _ in clip.parse(folder):
        if clip.num_done == 3:
            clip.stop()
    assert 3 <= clip.num_done < 10
    lines = clip.files[1].read_text().splitlines()
    assert len(lines) == len(list(VideoFile(clip.files[0]))) == clip.num_done
    assert len(finder.calls) < 20  # some were parsed ahead


def test_a_visitor_who_leaves_ends_it(parser, finder, clip_file, folder):
    finder.seconds = 0.02
    clip = Clip(parser, clip_file, 0.3)
    parsing = clip.parse(folder)
    next(parsing)
    assert folder.exists()
    parsing.close()
    assert len(finder.calls) < 20 and clip.files == [] and not folder.exists()


def test_another_file_ends_it(parser, finder, clip_file, folder):
    finder.seconds = 0.02
    clip = Clip(parser, clip_file, 0.3)
    with ThreadPoolExecutor(1) as pool:
        reports = pool.submit(list, clip.parse(folder))
        while not finder.calls:
            time.sleep(0.001)
        clip.discard()
        assert len(finder.calls) < 20 and clip.files == [] and not folder.exists()
        reports.result()
    clip = Clip(parser, clip_file, 0.3)
    clip.discard()
    assert list(clip.parse(folder)) == [] and clip.num_done == 0 and not folder.exists()


def test_clips_are_parsed_one_after_the_other(parser, finder, clip_file, tmp_path):
    finder.seconds = 0.01
    clips = [Clip(parser, clip_file, threshold) for threshold in (0.35, 0.5, 0.6, 0.7)]
    with ThreadPoolExecutor(3) as pool:
        results = []
        for number, clip in enumerate(clips[:3]):
            results.append(pool.submit(parsed, clip, tmp_path / str(number)))
            while clip not in parser.clips:
                time.sleep(0.001)
        assert [clip.num_before for clip in clips] == [0, 1, 2, 0]
        waiting = clips[3].parse(tmp_path / "left")
        next(waiting)
        assert clips[3].num_before == 3
        waiting.close()  # at once, as its turn has not come
        assert parser.clips == clips[:3] and clips[0].num_done < 40
        clips[1].discard()
        assert parser.clips == [clips[0], clips[2]] and clips[0].num_done < 40
        assert len(results[0].result()) == len(results[2].result()) == 40
        with pytest.raises(IndexError):  # it has no files
            results[1].result()
    assert parser.clips == [] and not (tmp_path / "left").exists()
    assert finder.calls == [0.35] * 40 + [0.6] * 40


def test_what_is_no_clip_is_refused_without_the_servers_folders(parser, tmp_path):
    file = tmp_path / "holiday.mp4"
    file.write_bytes(b"hello")
    with pytest.raises(UploadRefusedError) as error:
        Clip(parser, file, 0.3)
    assert str(error.value) == (
        "holiday.mp4 is no video that can be read: Invalid data found when processing input"
    )


def test_without_pyav_the_extra_is_named(parser, clip_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UploadRefusedError, match=r"pip install 'aiparsing_d2\[video\]'"):
        Clip(parser, clip_file, 0.3)


def test_large_frames_are_refused(parser, finder, clip_file, folder):
    parser.max_megapixels = 0.002
    clip = Clip(parser, clip_file, 0.3)
    with pytest.raises(UploadRefusedError, match="beach.mp4 has 0.0024 megapixels; at most 0.002 "):
        parsed(clip, folder)
    assert finder.calls == [] and not folder.exists()


def test_a_full_disk_is_told(parser, clip_file, folder, monkeypatch):
    def write(*arguments):
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr("aiparsing_d2.inference.video_files.VideoWriter.write", write)
    clip = Clip(parser, clip_file, 0.3)
    with pytest.raises(UploadRefusedError) as error:
        parsed(clip, folder)
    assert str(error.value) == "on the beach.mp4: No space left on device"
    assert not folder.exists()


def test_clips_are_told_by_their_names():
    names = ["a.mp4", "b.MOV", "c.webm", "d.jpg", "mp4", "e.mp4.png"]
    assert [is_clip(name) for name in names] == [True] * 3 + [False] * 3

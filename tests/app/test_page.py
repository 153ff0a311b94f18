"""What happens on the page, without a browser."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="needs the extra 'app'")

import gradio

from aiparsing_d2.app.clip import Clip
from aiparsing_d2.app.page import Page, serving


@pytest.fixture
def page(parser, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    return Page(parser, folder, 0.3)


def clicked(x: float, y: float) -> gradio.SelectData:
    return gradio.SelectData(None, {"index": [x, y], "value": None})


@pytest.fixture
def upload(page, picture_file):
    *_, last = page.parse(str(picture_file), 0.3)
    return last[page.upload]


def test_a_picture_shows_the_results(page, picture_file):
    first, last = page.parse(str(picture_file), 0.3)
    assert "Looking for people in on the beach.png" in first[page.status]
    assert first[page.results]["visible"] is False and last[page.results]["visible"] is True
    assert len(last[page.upload].found) == 2


def test_taking_the_file_away_clears_the_page(page):
    (cleared,) = page.parse(None, 0.3)
    assert cleared[page.upload] is None and cleared[page.status] == ""
    assert cleared[page.results]["visible"] is False
    assert cleared[page.part]["value"] is None and cleared[page.part]["choices"] == []


def test_an_error_is_told_as_text(page, tmp_path):
    file = tmp_path / "<b>x.jpg"
    file.write_text("hello")
    first, last = page.parse(str(file), 0.3)
    assert first[page.upload] is None and page.results not in last
    assert "<b>" not in first[page.status] + last[page.status]
    assert "&lt;b&gt;x.jpg is not a readable image" in last[page.status]


def shown_of_clip_and_picture(page, updates):
    """Whether two components of clips, and two of pictures, are shown."""
    return [updates[c]["visible"] for c in (page.video, page.again, page.drawing, page.part)]


def test_a_clip_shows_the_video(page, clip_file):
    first, second, *reports, last = page.parse(str(clip_file), 0.3)
    assert "Looking for people in on the beach.mp4" in first[page.status]
    assert second[page.clip].num_frames == 40
    assert reports and all("<progress" in report[page.status] for report in reports)
    assert all(report[page.stop]["visible"] is True for report in reports)
    assert last[page.status] == "<p>2 different people in 40 frames.</p>"
    assert last[page.stop]["visible"] is False and last[page.results]["visible"] is True
    assert shown_of_clip_and_picture(page, last) == [True, True, False, False]
    files = [Path(last[button]["value"]) for button in page.clip_downloads]
    assert [file.name for file in files] == ["on the beach.overlay.mp4", "on the beach.jsonl"]
    assert last[page.video]["value"] == str(files[0]) and all(file.is_file() for file in files)
    assert "Coat" in last[page.legend] and "Pants" not in last[page.legend]
    assert page.upload not in last


def test_a_picture_after_a_clip(page, clip_file, picture_file):
    *_, last = page.parse(str(picture_file), 0.3)
    assert shown_of_clip_and_picture(page, last) == [False, False, True, True]


def test_another_file_ends_a_clip(page, finder, clip_file, picture_file):
    finder.seconds = 0.02
    parsing = page.parse(str(clip_file), 0.3)
    next(parsing)
    clip = next(parsing)[page.clip]
    with ThreadPoolExecutor(1) as pool:
        reports = pool.submit(list, parsing)
        first, last = page.parse(str(picture_file), 0.3, clip)
    assert first[page.clip] is None and first[page.stop]["visible"] is False
    assert len(last[page.upload].found) == 2
    assert all(page.results not in report for report in reports.result())
    assert clip.files == [] and len(finder.calls) < 20


def test_a_clip_that_waits_for_another(page, parser, clip_file, monkeypatch):
    monkeypatch.setattr("aiparsing_d2.app.clip._BETWEEN_REPORTS", 0.005)
    may_end = threading.Event()
    parser.in_line(None, lambda folder: may_end.wait(), None)
    _, _, *reports = itertools.islice(page.parse(str(clip_file), 0.3), 4)
    assert [report[page.stop]["visible"] for report in reports] == [False, False]
    assert "<p>on the beach waits for 1 clip before it …</p>" in reports[0][page.status]
    may_end.set()


def test_what_is_left_out_of_a_clip_is_told(page, parser, clip_file):
    parser.max_frames = 7
    *_, last = page.parse(str(clip_file), 0.95)
    assert last[page.status] == (
        "<p>Nobody was found in 7 frames, one of every 5. A lower score finds more people. "
        "What comes after 1.2 s was left out.</p>"
    )


def test_a_broken_clip_is_told(page, tmp_path):
    file = tmp_path / "a<b>.mp4"
    file.write_text("hello")
    *_, last = page.parse(str(file), 0.3)
    assert 'role="alert">a&lt;b&gt;.mp4 is no video that can be read: ' in last[page.status]
    assert last[page.stop]["visible"] is False


def test_everybody_and_one_person(page, upload):
    everybody = page.show(upload, -1, 0.3, True)
    assert everybody[page.status] == "<p>2 people in a picture of 60 × 40 pixels.</p>"
    assert everybody[page.shown]["choices"] == [
        ("Everybody (2)", -1),
        ("Person 1 (0.90)", 0),
        ("Person 2 (0.40)", 1),
    ]
    assert [name for name, _ in everybody[page.part]["choices"]] == [
        "Person 1: everything",
        "Person 1: Hair",
        "Person 1: Coat",
        "Person 2: everything",
        "Person 2: Face",
    ]
    legend = everybody[page.legend]
    assert [name in legend for name in ("Hair", "Coat", "Face", "Pants")] == [True] * 3 + [False]

    second = page.show(upload, 1, 0.3, True)
    assert second[page.shown]["value"] == 1
    assert "Face" in second[page.legend] and "Hair" not in second[page.legend]
    drawing, data, labels = (Path(second[button]) for button in page.downloads)
    assert second[page.drawing] == str(drawing)
    assert len(json.loads(data.read_text())["people"]) == 1
    with Image.open(drawing) as one, Image.open(labels) as map_:
        assert one.size == (1000, 667) and map_.size == (60, 40)


def test_labels_off(page, upload):
    with_labels, without = (page.show(upload, -1, 0.3, labels) for labels in (True, False))
    assert without[page.legend] == ""
    drawings = [Path(values[page.drawing]).read_bytes() for values in (with_labels, without)]
    assert drawings[0] != drawings[1]


def test_the_threshold_takes_people_away_and_brings_them(page, upload):
    fewer = page.show(upload, 1, 0.5, True)
    assert fewer[page.shown]["value"] == -1  # the second is not there any more
    assert fewer[page.status].startswith("<p>1 person ")
    nobody = page.show(upload, -1, 0.95, True)
    assert "Nobody was found with a score of 0.95" in nobody[page.status]
    assert nobody[page.part]["choices"] == [] and Path(nobody[page.drawing]).is_file()
    again = page.show(fewer[page.upload], -1, 0.3, True)
    assert len(again[page.shown]["choices"]) == 3


def test_a_part_stays_chosen_as_long_as_it_is_there(page, upload):
    assert page.show(upload, -1, 0.3, True, "1/Face")[page.part]["value"] == "1/Face"
    assert page.show(upload, 0, 0.3, False, "1/Face")[page.part]["value"] == "1/Face"
    assert page.show(upload, -1, 0.5, True, "1/Face")[page.part]["value"] is None


def test_a_click_chooses_the_part(page, upload):
    scale = 1000 / 60
    assert page.pick(upload, -1, 0.3, clicked(27 * scale, 20 * scale)) == "0/Coat"
    assert page.pick(upload, 1, 0.3, clicked(27 * scale, 20 * scale)) == "1/Face"
    assert page.pick(upload, -1, 0.5, clicked(45 * scale, 20 * scale)) is None
    assert page.pick(upload, -1, 0.3, clicked(2, 2)) is None
    assert page.pick(None, -1, 0.3, clicked(2, 2)) is None


def test_the_part_is_shown_and_offered(page, upload):
    shown = page.show_part(upload, "0/Coat")
    assert shown[page.part_results]["visible"] is True
    assert shown[page.mask] == shown[page.part_downloads[0]]
    assert Path(shown[page.cutout]).name == "on the beach.person1.Coat.cutout.png"
    assert "whole" in page.show_part(upload, "1/")[page.mask]
    for nothing in (page.show_part(upload, None), page.show_part(None, "0/Coat")):
        assert nothing[page.part_results]["visible"] is False
        assert list(nothing) == [page.part_results]


def test_a_taken_port_is_named_and_nothing_is_left(parser):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen at 127.0.0.1, port {port}: "):
            with serving(parser, port=port):
                pass
    assert "GRADIO_TEMP_DIR" not in os.environ


def test_the_end_of_the_server_ends_clips(parser, finder, clip_file, tmp_path):
    finder.seconds = 0.05
    with serving(parser):
        clip = Clip(parser, clip_file, 0.3)
        parsing = clip.parse(tmp_path / "results")
        next(parsing)
    assert parser.clips == [] and clip.num_done < 40 and not (tmp_path / "results").exists()

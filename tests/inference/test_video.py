"""From the frames of a video to files, with a predictor that sees rectangles."""

from __future__ import annotations

import gc
import json
import threading
import weakref

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from PIL import Image

from aiparsing_d2.inference import ParsedImage
from aiparsing_d2.inference.saving import RESULT_KINDS
from aiparsing_d2.inference.video import (
    VIDEO_KINDS,
    parse_video,
    save_frames,
    video_result_files,
)
from aiparsing_d2.inference.video_files import VideoFile, VideoFrame
from aiparsing_d2.structures import PartMaps, PersonMasks
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS
from aiparsing_d2.submissions.vip import VipSubmission

COAT = CIHP_PART_LABELS.names.index("Coat")
RED, BLUE = (200, 30, 30), (30, 30, 200)
RATE = 25


class Rectangles:
    """Takes the pixels in red and in blue for the coats of two people, whoever is larger first."""

    device = torch.device("cpu")

    def prepare(self, image, *, channel_order):
        assert channel_order == "RGB"
        return image.copy()

    def parse_prepared(self, image):
        masks = [(image == color).all(axis=2) for color in (RED, BLUE)]
        masks = sorted((mask for mask in masks if mask.any()), key=np.sum, reverse=True)
        maps = np.array(masks, dtype=np.uint8).reshape(-1, *image.shape[:2]) * COAT
        part_maps = PartMaps.from_full(maps.astype(np.uint8))
        instances = Instances(
            image.shape[:2],
            pred_boxes=part_maps.get_bounding_boxes(),
            scores=torch.linspace(0.75, 0.5, len(maps)),
            pred_classes=torch.zeros(len(maps), dtype=torch.int64),
            pred_part_maps=part_maps,
            pred_masks=PersonMasks(part_maps),
        )
        return ParsedImage(instances, CIHP_PART_LABELS, image)


def frame(number: int) -> VideoFrame:
    """A red person who walks to the right and becomes smaller than the blue one, who stands."""
    image = np.full((64, 96, 3), 90, dtype=np.uint8)
    image[10:40, 70:85] = BLUE
    image[10 : 50 - 4 * number, 5 + 3 * number : 20 + 3 * number] = RED
    return VideoFrame(2 * number, number / RATE, image)


def frames(count: int = 6):
    return map(frame, range(count))


def save(folder, kinds, video=None, name="clip"):
    return save_frames(parse_video(Rectangles(), video or frames()), folder, name, kinds, RATE)


def test_people_keep_their_identity():
    parsed = list(parse_video(Rectangles(), frames()))
    assert [(f.number, f.time) for f in parsed] == [(2 * n, n / RATE) for n in range(6)]
    colors = [
        [person.image[int(person.box[1]), int(person.box[0])].tolist() for person in f.people]
        for f in parsed
    ]
    assert colors[0] == [list(RED), list(BLUE)] and colors[-1] == [list(BLUE), list(RED)]
    for f, order in zip(parsed, colors):
        assert [p.track_id for p in f.people] == [1 if c == list(RED) else 2 for c in order]
        detections = f.people.to_supervision()
        assert detections.tracker_id.tolist() == [p.track_id for p in f.people]


def test_every_kind(tmp_path):
    parsed = list(parse_video(Rectangles(), frames()))
    assert save(tmp_path, VIDEO_KINDS, name="a/b.c") == 6
    files = video_result_files(tmp_path, "a/b.c", VIDEO_KINDS)
    assert sorted((tmp_path / "a").iterdir()) == sorted(files.values())

    lines = [json.loads(line) for line in files["json"].read_text().splitlines()]
    for line, f in zip(lines, parsed, strict=True):
        assert (line.pop("frame"), line.pop("time")) == (f.number, f.time)
        assert [p["track_id"] for p in line["people"]] == [p.track_id for p in f.people]
        assert line == json.loads(f.people.to_json())
    for kind, color_by in (("overlay", "part"), ("people", "person")):
        video = list(VideoFile(files[kind]))
        assert [f.time for f in video] == pytest.approx([f.time for f in parsed], abs=1e-4)
        for drawn, f in zip(video, parsed, strict=True):
            difference = drawn.image.astype(int) - f.people.plot(color_by=color_by)
            assert np.abs(difference).mean() < 12
    submission = VipSubmission(files["vip"], 20)
    assert submission.image_ids() == {f"b.c/{f.number:08d}" for f in parsed}
    for f in parsed:
        prediction = submission.read(f"b.c/{f.number:08d}", (64, 96))
        np.testing.assert_array_equal(prediction.category_map, f.people.semantic_map())
    for kind in set(RESULT_KINDS) - {"overlay", "people", "json"}:
        suffix = RESULT_KINDS[kind].suffix
        names = {f"{f.number:08d}{suffix}" for f in parsed}
        assert {path.name for path in files[kind].iterdir()} == names
    labels = Image.open(files["parts"] / "00000010.parts.png")
    np.testing.assert_array_equal(np.asarray(labels), parsed[5].people.semantic_map())
    loaded = ParsedImage.load(files["npz"] / "00000010.npz")
    assert [person.track_id for person in loaded] == [2, 1]


def test_what_ends_early_stays_readable_and_is_begun_anew(tmp_path):
    def broken():
        yield from frames(4)
        raise OSError("the disk is gone")

    kinds = ["overlay", "json", "parts"]
    save(tmp_path, ["json"], frames(2))
    before = (tmp_path / "clip.jsonl").read_text()
    with pytest.raises(OSError, match="the disk is gone"):
        save(tmp_path, kinds, broken())
    names = {"clip.overlay.unfinished.mp4", "clip.unfinished.jsonl", "clip.frames.unfinished.parts"}
    assert {path.name for path in tmp_path.iterdir()} == {*names, "clip.jsonl"}
    assert (tmp_path / "clip.jsonl").read_text() == before
    assert len((tmp_path / "clip.unfinished.jsonl").read_text().splitlines()) == 4
    assert len(list(VideoFile(tmp_path / "clip.overlay.unfinished.mp4"))) == 4

    assert save(tmp_path, kinds) == 6
    names = {"clip.overlay.mp4", "clip.jsonl", "clip.frames.parts"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert len((tmp_path / "clip.jsonl").read_text().splitlines()) == 6


def test_no_frame(tmp_path):
    with pytest.raises(ValueError, match="no frame"):
        save(tmp_path, ["overlay", "json", "parts"], iter([]))
    assert list(tmp_path.iterdir()) == []


def test_nobody(tmp_path):
    empty = [VideoFrame(0, 0.0, np.zeros((64, 96, 3), np.uint8))]
    assert save(tmp_path, VIDEO_KINDS, empty) == 1
    assert json.loads((tmp_path / "clip.jsonl").read_text())["people"] == []


def test_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path):
    alive = []

    def many():
        images = weakref.WeakSet()
        for number in range(300):
            image = np.zeros((16, 16, 3), np.uint8).view(Pixels)
            images.add(image)
            gc.collect(0)
            alive.append(len(images))
            yield VideoFrame(number, number / RATE, image)

    class Pixels(np.ndarray):
        __hash__ = object.__hash__
        __eq__ = object.__eq__

    class Nobody(Rectangles):
        def prepare(self, image, *, channel_order):
            return image

        def parse_prepared(self, image):
            parsed = super().parse_prepared(np.asarray(image))
            parsed.image = image
            return parsed

    frames = parse_video(Nobody(), many())
    assert save_frames(frames, tmp_path, "clip", ["json", "parts"], RATE) == 300
    # Some are read ahead, some parsed ahead, and each thread holds one or two.
    assert max(alive) <= 16 and max(alive[200:]) <= max(alive[:100]) + 2


def test_whoever_leaves_ends_the_reading():
    ended = threading.Event()

    def endless():
        try:
            number = 0
            while True:
                yield frame(number % 3)
                number += 1
        finally:
            ended.set()

    threads = threading.active_count()
    parsed = parse_video(Rectangles(), endless())
    next(parsed)
    parsed.close()
    assert ended.is_set() and threading.active_count() == threads

"""What the page does with a picture, without the page."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from two_people import COAT, FACE, HAIR, HEIGHT, WIDTH, part_maps

from aiparsing_d2.app.upload import UploadRefusedError


def read(file):
    with Image.open(file) as image:
        return np.array(image)


def test_people_down_to_the_threshold(parser, picture_file, picture):
    upload = parser.parse(picture_file, 0.3)
    assert upload.name == "on the beach" and (upload.found.image == picture).all()
    assert [len(upload.people(threshold)) for threshold in (0.3, 0.41, 0.95)] == [2, 1, 0]
    assert upload.people(0.41).people[0].score == pytest.approx(0.9)
    (second,) = upload.person(1)
    assert second.score == pytest.approx(0.4) and second.parts == ["Face"]


def test_a_higher_threshold_asks_the_model_no_more(parser, finder, picture_file):
    upload = parser.parse(picture_file, 0.5)
    assert len(upload.found) == 1
    assert parser.with_threshold(upload, 0.8) is upload
    lower = parser.with_threshold(upload, 0.2)
    assert len(lower.found) == 2 and lower.name == upload.name
    assert parser.with_threshold(lower, 0.5) is lower
    assert finder.calls == [0.5, 0.2]


def test_sessions_do_not_mix_their_thresholds(parser, picture_file):
    thresholds = [0.3, 0.5] * 20
    with ThreadPoolExecutor(4) as pool:
        uploads = list(pool.map(lambda t: parser.parse(picture_file, t), thresholds))
    assert [len(upload.found) for upload in uploads] == [2, 1] * 20


def test_the_part_at_a_place(parser, picture_file):
    upload = parser.parse(picture_file, 0.3)
    # The longer side, of 60 pixels, is drawn 1000 pixels long.
    assert upload.drawing_scale == pytest.approx(1000 / 60)

    def at(column, row, people=(0, 1)):
        return upload.part_at((column + 0.5) * 1000 / 60, (row + 0.5) * 1000 / 60, people)

    best = np.where(part_maps()[0] > 0, part_maps()[0], part_maps()[1])
    names = {HAIR: (0, "Hair"), COAT: (0, "Coat"), FACE: (1, "Face"), 0: None}
    found = [[at(column, row) for column in range(WIDTH)] for row in range(HEIGHT)]
    assert found == [[names[label] for label in row] for row in best.tolist()]
    # Columns 25..29 are both people's.
    assert at(27, 20) == (0, "Coat") and at(27, 20, [1]) == (1, "Face") and at(12, 20, [1]) is None
    # The last pixel of the drawing.
    assert upload.part_at(999, 666, [0, 1]) is None


def test_files(parser, picture_file, picture, tmp_path):
    upload = parser.parse(picture_file, 0.3)
    drawing = upload.save_drawing(upload.people(0.3), tmp_path, labels=True)
    assert drawing.name == "on the beach.drawing.png" and read(drawing).shape == (667, 1000, 3)
    plain = read(upload.save_drawing(upload.people(0.3), tmp_path, labels=False))
    boxes = (plain == [255, 0, 255]).all(axis=2)
    assert not boxes.any()

    data, labels = upload.save_data(upload.person(1), tmp_path)
    assert [person["score"] for person in json.loads(data.read_text())["people"]] == [
        pytest.approx(0.4)
    ]
    assert (read(labels) == part_maps()[1]).all()

    mask, cutout = upload.save_part(0, "Coat", tmp_path)
    assert mask.name == "on the beach.person1.Coat.mask.png"
    assert (read(mask) == 255 * (part_maps()[0] == COAT)).all()
    assert (read(cutout)[..., :3] == picture[15:35, 10:30]).all()
    mask, cutout = upload.save_part(0, None, tmp_path)
    assert (read(mask) == 255 * (part_maps()[0] > 0)).all()
    assert read(cutout).shape == (30, 20, 4)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"hello", "holiday.jpg is not a readable image: its format is not known"),
        (b"", "holiday.jpg is not a readable image: its format is not known"),
    ],
)
def test_what_is_no_picture_is_refused_without_the_servers_folders(
    parser, tmp_path, content, message
):
    file = tmp_path / "holiday.jpg"
    file.write_bytes(content)
    with pytest.raises(UploadRefusedError) as error:
        parser.parse(file, 0.3)
    assert str(error.value) == message


def test_a_large_picture_is_refused_before_it_is_decoded(parser, finder, tmp_path, monkeypatch):
    file = tmp_path / "large.png"
    Image.new("RGB", (200, 51)).save(file)
    monkeypatch.setattr("aiparsing_d2.app.upload.read_image", None)
    with pytest.raises(UploadRefusedError, match="large.png has 0.0102 megapixels; at most 0.01 "):
        parser.parse(file, 0.3)
    assert finder.calls == []


def test_a_picture_too_thin_to_be_resized_is_refused(parser, finder, picture_file, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("a picture of 1 x 20000 (height x width) cannot be resized")

    monkeypatch.setattr(finder, "prepare", refuse, raising=False)
    monkeypatch.setattr(type(finder), "__call__", refuse, raising=False)
    with pytest.raises(UploadRefusedError, match="1 x 20000 .* cannot be resized"):
        parser.parse(picture_file, 0.3)

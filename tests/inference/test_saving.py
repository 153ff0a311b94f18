"""Saving a parsed picture as files, by the names of the kinds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tiny_predictor import random_picture

from aiparsing_d2.inference import ParsedImage
from aiparsing_d2.inference.saving import RESULT_KINDS, result_files, save


@pytest.fixture(scope="module")
def parsed(predictor) -> ParsedImage:
    return predictor(random_picture(70, 90), channel_order="RGB")


def test_every_kind(parsed, tmp_path):
    written = save(parsed, tmp_path, "beach/1.v2", RESULT_KINDS)
    assert written == list(result_files(tmp_path, "beach/1.v2", RESULT_KINDS).values())
    assert sorted(tmp_path.glob("beach/*")) == sorted(written)
    files = dict(zip(RESULT_KINDS, written))
    assert json.loads(files["json"].read_text()) == json.loads(parsed.to_json())
    coco = json.loads(files["coco"].read_text())
    assert {person["image_id"] for person in coco} == {"beach/1.v2"}
    assert len(ParsedImage.load(files["npz"])) == len(parsed) > 0
    np.testing.assert_array_equal(np.asarray(Image.open(files["parts"])), parsed.semantic_map())
    np.testing.assert_array_equal(np.asarray(Image.open(files["instances"])), parsed.instance_map())
    assert Image.open(files["overlay"]).size == (90, 70)
    people = [f"{n}.png" for n in range(1, len(parsed) + 1)]
    assert sorted(path.name for path in files["person_maps"].iterdir()) == people
    first = Image.open(files["cutouts"] / "1.png")
    np.testing.assert_array_equal(np.asarray(first), parsed[0].crop())


def test_earlier_results_are_replaced(parsed, tmp_path):
    (tmp_path / "1.cutouts").mkdir()
    for old in ("1.json", "1.cutouts/99.png"):
        (tmp_path / old).write_text("old")
    save(parsed, tmp_path, "1", ["json", "cutouts"])
    assert json.loads((tmp_path / "1.json").read_text())
    assert not (tmp_path / "1.cutouts" / "99.png").exists()


def test_unknown_kind_writes_nothing(parsed, tmp_path):
    with pytest.raises(ValueError, match="'video' is not one of overlay, people, parts"):
        save(parsed, tmp_path / "out", "1", ["json", "video"])
    assert not (tmp_path / "out").exists()

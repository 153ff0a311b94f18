"""What the weights in the package make of a photograph, and of pictures without people."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aiparsing_d2.inference import ParsingPredictor

PHOTOGRAPH = Path(__file__).parents[2] / "docs/images/astronaut.jpg"


@pytest.fixture(scope="module")
def predictor():
    return ParsingPredictor(device="cpu")


def test_the_astronaut_is_found_with_her_parts(predictor):
    (person,) = predictor(PHOTOGRAPH)
    x0, y0, x1, y1 = person.box
    # She fills the lower left of 512 x 512 pixels; read off the photograph.
    assert x0 < 60 and y0 < 40 and 360 < x1 and 480 < y1
    labels = person.part_map()
    names = predictor.part_labels.names
    assert names[labels[120, 225]] == "Face"
    assert names[labels[30, 225]] == "Hair"
    assert names[labels[380, 120]] in ("UpperClothes", "Coat", "Jumpsuits")
    # Flag, rocket and wall.
    assert not labels[:150, :60].any() and not labels[:250, 400:].any()


def test_the_mirrored_astronaut_has_the_same_parts(predictor):
    image = Image.open(PHOTOGRAPH)
    (person,) = predictor(image)
    (mirrored,) = predictor(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    theirs = predictor.part_labels.flip_table()[mirrored.part_map()[:, ::-1]]
    # One kind of upper garment may be taken for another.
    assert (person.part_map() == theirs).mean() > 0.85


@pytest.mark.parametrize("value", [0, 128, 255])
def test_nobody_is_found_on_a_plain_wall(predictor, value):
    assert not len(predictor(np.full((400, 300, 3), value, np.uint8)))

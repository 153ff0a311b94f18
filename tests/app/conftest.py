import numpy as np
import pytest
import two_people
from PIL import Image

from aiparsing_d2.app.upload import UploadParser
from aiparsing_d2.inference.video_files import VideoWriter


@pytest.fixture
def picture():
    """RGB, every channel of every pixel another value."""
    size = two_people.HEIGHT * two_people.WIDTH * 3
    return (np.arange(size) % 251).astype(np.uint8).reshape(two_people.HEIGHT, two_people.WIDTH, 3)


@pytest.fixture
def picture_file(picture, tmp_path):
    file = tmp_path / "on the beach.png"
    Image.fromarray(picture).save(file)
    return file


@pytest.fixture
def clip_file(picture, tmp_path):
    """40 frames, 25 a second."""
    file = tmp_path / "on the beach.mp4"
    with VideoWriter(file, 25) as writer:
        for number in range(40):
            writer.write(picture, number / 25)
    return file


@pytest.fixture
def finder():
    return two_people.Finder()


@pytest.fixture
def parser(finder):
    return UploadParser(finder, max_megapixels=0.01)

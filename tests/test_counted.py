"""Numbers in messages."""

import pytest

from aiparsing_d2.counted import counted


@pytest.mark.parametrize(
    "number, thing, words",
    [
        (0, "person", "0 people"),
        (1, "person", "1 person"),
        (2, "person", "2 people"),
        (1, "video", "1 video"),
        (4, "frame", "4 frames"),
        (2000, "batch", "2,000 batches"),
    ],
)
def test_one_and_many(number, thing, words):
    assert counted(number, thing) == words

import re

from aiparsing_d2.cli import main


def test_prints_speed_floor_and_memory(capsys):
    arguments = "--height 60 --width 80 --persons 3 --predictions 4 --repeats 1 --images 20".split()
    assert main(["benchmark", "evaluate", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "60 x 80 pixels, 20 classes, 3 people, 4 predictions" in printed
    rows = re.findall(r"^\| (side by side|everybody .*?) +((?:\| +[\d.]+ )+)", printed, re.M)
    assert len(rows) == 2
    for _, cells in rows:
        speed, milliseconds, floor, ratio = map(float, cells.split("|")[1:])
        assert speed > 0 and milliseconds > floor and ratio > 1
    assert re.search(r"from image 10 to 20 \(-?\d+ bytes per image", printed)

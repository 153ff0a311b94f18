import json

import pytest

from aiparsing_d2.cli import main


def test_prints_speed_floor_and_memory(tmp_path, capsys):
    arguments = "--height 60 --width 80 --persons 3 --predictions 4 --repeats 2 --images 20".split()
    assert main(["benchmark", "evaluate", *arguments, "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "benchmark_evaluate.json").read_text())["rows"]
    assert [row["people"] for row in rows] == ["side by side", "everybody fills the image"]
    for row in rows:
        assert row["ms"] > row["floor_ms"] > 0 and row["times_the_floor"] >= row["low"] > 1
        assert row["images_per_second"] == pytest.approx(1000 / row["ms"])
        assert (row["memory"]["warm_up"], row["memory"]["images"]) == (10, 20)
    printed = capsys.readouterr().out
    assert "60 x 80 pixels, 20 classes, 3 annotated and 4 predicted people" in printed
    assert "from image 10 to 20 (" in printed and "| side by side " in printed


def test_memory_may_be_left_out(capsys):
    arguments = "--height 60 --width 80 --repeats 1 --images 0".split()
    assert main(["benchmark", "evaluate", *arguments]) == 0
    assert "Peak memory" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("--classes 1", "num_classes must be between 2 and 255, got 1"),
        ("--height 3", "4 people do not fit side by side into an image of 3 x 80 pixels"),
        ("--persons 73", "73 people do not fit side by side into an image of 60 x 80 pixels"),
    ],
)
def test_images_that_cannot_be_made_up(arguments, problem, capsys):
    given = f"--height 60 --width 80 --repeats 1 --images 0 {arguments}".split()
    assert main(["benchmark", "evaluate", *given]) == 1
    assert capsys.readouterr().err.startswith(f"error: {problem}")


def test_the_least_images_that_can_be_made_up():
    given = "--height 4 --width 80 --persons 72 --classes 2 --repeats 1 --images 0".split()
    assert main(["benchmark", "evaluate", *given]) == 0

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

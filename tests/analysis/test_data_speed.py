import json

import pytest
import torch

from aiparsing_d2.cli import main


@pytest.fixture(autouse=True)
def threads():
    """What the command sets for its process."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


def test_prints_all_figures_and_leaves_nothing(tmp_path, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    arguments = "--images 9 --size 64 80 --repeats 2 --mapped-images 1".split()
    output = tmp_path_factory.mktemp("output")
    assert main(["benchmark", "data", *arguments, "--output", str(output)]) == 0
    rows = json.loads((output / "benchmark_data.json").read_text())["rows"]
    assert [row["unit"] for row in rows] == ["s", "s", "images/s", "images/s"]
    assert [row["repeats"] for row in rows] == [1, 2, 2, 2]
    assert all(0 < row["low"] <= row["figure"] <= row["high"] for row in rows)
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert "9 images" in lines[0] and "cache" in lines[1]
    assert "training" in lines[2] and "inference" in lines[3]
    assert list(tmp_path.iterdir()) == []

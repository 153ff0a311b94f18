import re

import pytest
import torch

from aiparsing_d2.cli import main


@pytest.fixture(autouse=True)
def threads():
    """What the command sets for its process."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


def test_prints_all_figures_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    arguments = "--images 9 --size 64 80 --repeats 1 --mapped-images 1".split()
    assert main(["benchmark", "data", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = [re.search(r" ([\d.]+) (s|images/s)$", line) for line in lines]
    assert [figure[2] for figure in figures] == ["s", "s", "images/s", "images/s"]
    assert all(float(figure[1]) > 0 for figure in figures[2:])
    assert "9 images" in lines[0] and "cache" in lines[1]
    assert "training" in lines[2] and "inference" in lines[3]
    assert list(tmp_path.iterdir()) == []

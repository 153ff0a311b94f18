import importlib.util
import re
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).parents[2] / "tools" / "benchmark_data.py"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_data", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # What the tool sets for its process.
    monkeypatch.setenv("FVCORE_CACHE", "")
    num_threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(num_threads)


def test_prints_all_figures_and_leaves_nothing(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    benchmark.main("--images 9 --size 64 80 --repeats 1 --mapped-images 1".split())
    lines = capsys.readouterr().out.splitlines()
    figures = [re.search(r" ([\d.]+) (s|images/s)$", line) for line in lines]
    assert [figure[2] for figure in figures] == ["s", "s", "images/s", "images/s"]
    assert all(float(figure[1]) > 0 for figure in figures[2:])
    assert "9 images" in lines[0] and "cache" in lines[1]
    assert "training" in lines[2] and "inference" in lines[3]
    assert list(tmp_path.iterdir()) == []

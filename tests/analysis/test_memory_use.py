import json
import re
from pathlib import Path

import pytest
import torch

from aiparsing_d2.analysis import memory_use
from aiparsing_d2.cli import main
from aiparsing_d2.engine.dry_run import peak_resident_memory

CONFIG = "demo/aiparsing_tiny_FPN_drawn_cihp"
TINY = "--device cpu --repeats 2 --warm-up 2 --max-seconds 600 --image-size 96 128".split()


def test_memory(tmp_path):
    arguments = ["--config", CONFIG, "--people", "1", "--batch-sizes", "1", *TINY]
    assert main(["benchmark", "memory", *arguments, "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "benchmark_memory.json").read_text())["rows"]
    assert [(row["work"], row["count"]) for row in rows] == [("inference", 1), ("training step", 1)]
    for row in rows:
        # Before, and after each run.
        assert len(row["all_mib"]) == 5 and row["all_mib"] == sorted(row["all_mib"])
        assert 100 < row["before_mib"] == row["all_mib"][0] < row["peak_mib"] == row["all_mib"][-1]
        assert row["mib_per_run"] == pytest.approx(row["all_mib"][4] - row["all_mib"][3], abs=1e-6)
        assert row["mib_per_one_more"] is None
    assert "| training step " in (tmp_path / "benchmark_memory.md").read_text()


def test_a_peak_does_not_fall(monkeypatch):
    read = iter([5, 9, 8, 10])
    monkeypatch.setattr(memory_use, "peak_resident_memory", lambda: next(read))
    assert memory_use._peaks(lambda: None, 3, torch.device("cpu")) == [5, 9, 9, 10]


def test_slopes_over_people(tmp_path, monkeypatch):
    def peaks(measure, config, precision, count, *args):
        return [2**20 * mib for mib in (10, 20 + 3 * count, 21 + 3 * count, 24 + 3 * count)]

    monkeypatch.setattr(memory_use, "_in_fresh_process", peaks)
    arguments = "--people 1 5 50 --batch-sizes --precisions bf16".split()
    plot = tmp_path / "plots" / "memory.png"
    arguments += ["--output", str(tmp_path), "--plot", str(plot)]
    assert main(["benchmark", "memory", *arguments, *TINY]) == 0
    rows = json.loads((tmp_path / "benchmark_memory.json").read_text())["rows"]
    assert [row["peak_mib"] for row in rows] == [27, 39, 174]
    assert [row["mib_per_one_more"] for row in rows] == pytest.approx([3, 3, 3])
    assert {row["precision"] for row in rows} == {"bf16"}
    assert plot.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "output, plot, message",
    [
        ("new", "new/plot.jbg", r"--plot \S*plot.jbg has to end with .*\.pdf, .*\.png, "),
        ("new", "file/plot.png", "file cannot be written to: Not a directory"),
        ("file", "new/plot.png", "file cannot be written to: Not a directory"),
    ],
)
def test_what_cannot_be_written_is_told_first(tmp_path, monkeypatch, capsys, output, plot, message):
    monkeypatch.setattr(memory_use, "measure_memory", None)
    (tmp_path / "file").touch()
    arguments = ["--output", str(tmp_path / output), "--plot", str(tmp_path / plot), *TINY]
    assert main(["benchmark", "memory", *arguments]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_leak_is_a_slope_over_the_later_runs():
    row = memory_use._row({}, [2**20 * mib for mib in (5, 90, 100, 101, 103, 105)])
    assert (row["before_mib"], row["peak_mib"]) == (5, 105)
    assert row["mib_per_run"] == pytest.approx(2)


def test_the_peak_is_of_this_process_alone(tmp_path):
    """A child of a large process is small."""
    child = memory_use.ProcessPoolExecutor(1, mp_context=memory_use.get_context("spawn"))
    ballast = b"x" * 2**29
    with child as pool:
        peak = pool.submit(peak_resident_memory).result()
    assert len(ballast) < peak_resident_memory()
    if Path("/proc/self/status").exists():
        assert peak < peak_resident_memory() - 2**28

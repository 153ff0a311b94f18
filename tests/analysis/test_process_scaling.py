"""Processes side by side."""

import json

import pytest
import torch

from aiparsing_d2.analysis.measuring import Case, run_once
from aiparsing_d2.analysis.process_scaling import _together
from aiparsing_d2.cli import main


@pytest.fixture(autouse=True)
def threads():
    """What the command sets for its process."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


def test_processes_share_threads_and_begin_together(tmp_path):
    status = main(
        "benchmark processes --config demo/aiparsing_tiny_FPN_drawn_cihp --processes 1 2 "
        "--people 2 --image-size 64 80 --repeats 2 --warm-up 0 --num-threads 2 --device cpu "
        "--output".split()
        + [str(tmp_path), "--plot", str(tmp_path / "cost.png")]
    )
    assert status == 0
    assert (tmp_path / "cost.png").stat().st_size > 0
    alone, two = json.loads((tmp_path / "benchmark_processes.json").read_text())["rows"]
    assert (alone["processes"], alone["threads"]) == (1, 2)
    assert (two["processes"], two["threads"]) == (2, 1)
    assert two["precision"] == "fp32" and two["image_size"] == [64, 80]
    ratios = [both / one for both, one in zip(two["all_ms"], alone["all_ms"])]
    assert (two["ratio"]["low"], two["ratio"]["high"]) == (min(ratios), max(ratios))
    for row in (alone, two):
        assert row["repeats"] == 2
        assert row["images_per_second"] == pytest.approx(1000 / row["ms"])


class OneOfMany:
    """Stands for a process."""

    def __init__(self, name: str, milliseconds: float, events: list[str]):
        self.name, self.milliseconds, self.events = name, milliseconds, events

    def check(self):
        self.events.append(f"{self.name} is ready")

    def outputs(self):
        self.events.append(f"{self.name} warms up")

    def begin(self):
        self.events.append(f"{self.name} begins")

    def finish(self):
        self.events.append(f"{self.name} ends")
        return self.milliseconds


def test_the_slowest_process_counts():
    events = []
    case = _together([OneOfMany("a", 30.0, events), OneOfMany("b", 50.0, events)], {})
    assert isinstance(case, Case)
    times, _ = run_once(case, torch.device("cpu"))
    assert times == {"all": 25.0}
    assert events[-4:] == ["a begins", "b begins", "a ends", "b ends"]
    assert set(events[:-4]) == {"a is ready", "b is ready", "a warms up", "b warms up"}

"""Reading, the network and writing at the same time, with a model that does nothing."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from aiparsing_d2.inference.overlapped_parsing import _share_cores, parse_overlapped

WAIT = 20  # seconds, after which an event will not come any more


class Picture:
    """Counts how many of its kind are in memory."""

    live: weakref.WeakSet = weakref.WeakSet()

    def __init__(self, number: int):
        self.number = number
        self.pixels = np.zeros(10)
        Picture.live.add(self)


class StandIn:
    """Has the predictor's interface."""

    device = torch.device("cpu")

    def __init__(self):
        self.seen = []

    def prepare(self, picture, *, channel_order):
        return picture

    def parse_prepared(self, picture):
        self.seen.append(picture.number)
        if picture.number % 5 == 2:
            raise RuntimeError(f"{picture.number} is too large")
        return Picture(picture.number)


def test_outcomes_are_in_order_and_errors_cost_their_picture_alone():
    def read(number):
        if number % 5 == 1:
            raise OSError(f"{number} is broken")
        return Picture(number)

    def write(number, parsed):
        assert parsed.number == number
        if number % 5 == 3:
            raise PermissionError(f"{number} is in the way")
        return number * 10

    outcomes = list(parse_overlapped(StandIn(), range(23), read, write))
    assert [outcome.task for outcome in outcomes] == list(range(23))
    errors = {1: "is broken", 2: "is too large", 3: "is in the way"}
    for number, result, error in outcomes:
        if number % 5 in errors:
            assert result is None and str(error) == f"{number} {errors[number % 5]}"
        else:
            assert result == number * 10 and error is None


def test_all_three_happen_at_once():
    """Each waits for the others to be at work on other pictures."""
    in_network, is_written, is_read_ahead = (threading.Event() for _ in range(3))

    def read(number):
        if number == 3:
            is_read_ahead.set()
        return Picture(number)

    class Waiting(StandIn):
        def parse_prepared(self, picture):
            if picture.number == 2:
                in_network.set()
                assert is_written.wait(WAIT) and is_read_ahead.wait(WAIT)
            return picture

    def write(number, parsed):
        if number == 1:
            assert in_network.wait(WAIT)
            is_written.set()

    for outcome in parse_overlapped(Waiting(), range(6), read, write):
        assert outcome.error is None


def test_few_pictures_are_in_memory():
    Picture.live.clear()
    taken, most = 0, 0

    def tasks():
        nonlocal taken
        while taken < 200:
            yield taken
            taken += 1

    for outcome in parse_overlapped(StandIn(), tasks(), Picture, lambda number, parsed: None):
        most = max(most, len(Picture.live))
        assert taken <= outcome.task + 10
    assert 1 <= most <= 12
    del outcome
    assert len(Picture.live) == 0


@pytest.fixture
def three_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_pictures_go_through_the_model_side_by_side(three_cores):
    """Each on a core of its own, and what reads and writes takes no more."""
    together = threading.Barrier(3)
    num_cores = {"read": set(), "parse": set(), "write": set()}

    class Model(StandIn):
        def parse_prepared(self, picture):
            num_cores["parse"].add(torch.get_num_threads())
            together.wait(WAIT)  # never over if fewer work at once
            return picture

    def read(number):
        num_cores["read"].add(torch.get_num_threads())
        return Picture(number)

    def write(number, parsed):
        num_cores["write"].add(torch.get_num_threads())
        return parsed.number

    outcomes = list(parse_overlapped(Model(), range(12), read, write))
    assert [outcome.result for outcome in outcomes] == list(range(12))
    assert num_cores == {"read": {1}, "parse": {1}, "write": {1}}
    # Threads that others make later are as they would have been.
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == torch.get_num_threads() == 3


@pytest.mark.parametrize("num_threads, expected", [(1, (1, 1)), (4, (4, 1)), (9, (4, 2))])
def test_cores_are_shared(num_threads, expected, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    assert _share_cores(torch.device("cpu")) == expected
    assert _share_cores(torch.device("cuda")) == (1, num_threads)


def test_ended_while_several_are_in_the_model(three_cores):
    model, written = StandIn(), []

    def write(number, parsed):
        written.append(number)

    outcomes = parse_overlapped(
        model, range(3, 203, 5), Picture, write, lambda: len(model.seen) >= 7
    )
    assert len(list(outcomes)) == len(model.seen) == len(written) <= 9


@pytest.mark.parametrize("num_done", [0, 1, 7])
def test_ended(num_done):
    """What the network has seen is written, and nothing is begun after that."""
    model, written = StandIn(), []

    def write(number, parsed):
        written.append(number)

    outcomes = parse_overlapped(
        model, range(3, 203, 5), Picture, write, lambda: len(model.seen) >= num_done
    )
    assert len(list(outcomes)) == num_done == len(model.seen) == len(written)


def test_left_early():
    """As by an error in the loop around it: threads end."""
    before = threading.active_count()
    for _ in parse_overlapped(StandIn(), range(100), Picture, lambda number, parsed: None):
        break
    assert threading.active_count() == before

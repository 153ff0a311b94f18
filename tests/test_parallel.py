"""Work in several processes: order, look-ahead, errors, and what is killed or interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aiparsing_d2.parallel import WorkerDiedError, map_in_processes

SCRIPT = """
import os, sys, time
from aiparsing_d2.parallel import map_in_processes

def linger(state):
    if sys.argv[1] == state:
        os.write(1, f"{os.getpid()}\\n".encode())  # at once: two processes write
    time.sleep(0.3)

def work(task):
    linger("working")

if __name__ == "__mp_main__":
    linger("starting")
if __name__ == "__main__":
    try:
        with map_in_processes(work, range(1000), 2) as results:
            for _ in results:
                pass
    except KeyboardInterrupt:
        sys.exit(130)
"""


def process_of(task: int) -> tuple[int, int]:
    time.sleep(0.05 * (task % 3))
    return task, os.getpid()


def fail_at_five(task: int) -> int:
    if task == 5:
        raise FileNotFoundError(2, "gone", "five.png")
    return task


def die_at_five(task: int) -> int:
    if task == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def note_start(task: int) -> str:
    return os.environ["NOTED_BY_INITIALIZER"]


def set_note() -> None:
    os.environ["NOTED_BY_INITIALIZER"] = "yes"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_one_worker_is_this_process(num_workers):
    with map_in_processes(process_of, range(3), num_workers) as results:
        assert list(results) == [(task, os.getpid()) for task in range(3)]


def test_results_come_in_order_from_other_processes():
    with map_in_processes(process_of, range(20), 2) as results:
        tasks, processes = zip(*results)
    assert tasks == tuple(range(20))
    assert os.getpid() not in processes and len(set(processes)) == 2


def test_no_tasks():
    with map_in_processes(process_of, [], 2) as results:
        assert list(results) == []


def test_tasks_are_read_a_few_ahead():
    read = []
    tasks = (read.append(task) or task for task in range(100))
    with map_in_processes(fail_at_five, tasks, 2) as results:
        assert next(results) == 0
        assert len(read) == 8
        assert next(results) == 1
        assert len(read) == 9


def test_initializer_runs_in_the_workers_only():
    with map_in_processes(note_start, range(4), 2, set_note) as results:
        assert set(results) == {"yes"}
    assert "NOTED_BY_INITIALIZER" not in os.environ


@pytest.mark.parametrize("num_workers", [1, 2])
def test_errors_of_the_function_reach_the_caller(num_workers):
    done = []
    with pytest.raises(FileNotFoundError, match="gone.*five.png"):
        with map_in_processes(fail_at_five, range(100), num_workers) as results:
            done.extend(results)
    assert done == [0, 1, 2, 3, 4]


def test_a_killed_worker_is_an_error_within_seconds():
    start = time.monotonic()
    with pytest.raises(WorkerDiedError, match="killed.*memory.*fewer workers than 2"):
        with map_in_processes(die_at_five, range(100), 2) as results:
            list(results)
    assert time.monotonic() - start < 20


def test_what_cannot_be_sent_to_a_worker_is_an_error():
    with pytest.raises(Exception, match="pickle"):
        with map_in_processes(lambda task: task, range(3), 2) as results:
            list(results)


@pytest.fixture(params=["starting", "working"])
def running(tmp_path, request):
    """A script in a process group of its own, and its two workers' ids."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), request.param],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers = set()
    while len(workers) < 2:
        workers.add(int(process.stdout.readline()))
    yield process, workers
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def assert_ended(workers):
    deadline = time.monotonic() + 30
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(process):
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # ended, but nobody has asked for its status


def test_an_interrupt_ends_all_processes_without_a_word(running):
    process, workers = running
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "")
    assert_ended(workers)


def test_workers_end_when_their_parent_is_killed(running):
    process, workers = running
    process.kill()
    process.wait()
    assert_ended(workers)

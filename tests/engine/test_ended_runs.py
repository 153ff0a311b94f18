"""Runs that are killed, terminated or interrupted, and go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from small_runs import (
    REPOSITORY,
    SMALL,
    TRAIN_NET,
    draw_data_set,
    environment,
    iterations,
    run,
    train_net,
)

KILLED_RUNS = REPOSITORY / "tests" / "killed_runs.py"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    draw_data_set(root)
    return root


def signalled(datasets, output_dir, signum):
    """The exit status, and the last words, of a training that gets a signal after two steps."""
    log = output_dir.with_suffix(".log")
    command = [sys.executable, TRAIN_NET, *SMALL, f"train.output_dir={output_dir}"]
    with (
        open(log, "w") as file,
        subprocess.Popen(
            [*command, "train.max_iter=100000"],
            env=environment(datasets),
            stdout=file,
            stderr=subprocess.STDOUT,
            # Jobs in the background of a shell ignore it, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process,
    ):
        metrics = output_dir / "metrics.json"
        end = time.monotonic() + 200
        try:
            while not metrics.is_file() or metrics.read_text().count("\n") < 2:
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.02)
            process.send_signal(signum)
            status = process.wait(100)
        finally:
            process.kill()
    return status, log.read_text()


@pytest.mark.fault("SIGTERM, as schedulers send before they kill")
def test_sigterm_saves_and_the_run_goes_on(datasets, tmp_path):
    output_dir = tmp_path / "run"
    status, log = signalled(datasets, output_dir, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM and "Traceback" not in log
    last = iterations(output_dir)[-1] + 1  # whose metrics are in the checkpoint only
    assert (output_dir / "last_checkpoint").read_text() == f"model_{last:07d}.pth"
    assert f"Ended by SIGTERM after iteration {last}" in log
    resumed = train_net(datasets, output_dir, "--resume", f"train.max_iter={last + 3}")
    assert resumed.returncode == 0, resumed.stderr
    assert iterations(output_dir) == [*range(last + 3)]


@pytest.mark.fault("Ctrl-C")
def test_ctrl_c_is_answered_with_the_command_that_goes_on(datasets, tmp_path):
    status, log = signalled(datasets, tmp_path / "run", signal.SIGINT)
    assert status == 130 and "Traceback" not in log
    line = log.splitlines()[-1]
    assert line.startswith("Interrupted. To go on: ") and line.endswith(" --resume")
    assert "train_net.py --config-file" in line


# In the order of killed_runs.py's run: each start gets a little further.
MOMENTS = [
    "before last_checkpoint gets its name",
    "before parsing_results.json gets its name",  # in the evaluation, not a checkpoint's
    "before model_best.json gets its name",  # model_best.pth has its own already
    "in a line of metrics.json",
    "after model_0000005.pth got its name",
    "after last_checkpoint got its name",  # an evaluation is due
    "after a line of metrics.json",
    "in the content of model_final",
    "before parsing_results.json gets its name",
]


@pytest.mark.fault("killed between the last periodic checkpoint and `model_final.pth`")
@pytest.mark.fault("SIGKILL, loss of power, at any moment, inside a write too")
def test_a_run_killed_at_the_worst_moments_ends_as_the_one_that_was_not(datasets, tmp_path):
    done = run(datasets, KILLED_RUNS, tmp_path / "runs", "--at", *MOMENTS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.fault("one of several processes is killed, in training or evaluation")
@pytest.mark.fault("SIGKILL, loss of power, at any moment, inside a write too")
@pytest.mark.slow
def test_thirty_random_kills(datasets, tmp_path):
    counts = ["--one", 15, "--average", 5, "--two", 10]
    done = run(datasets, KILLED_RUNS, tmp_path / "runs", *counts, timeout=3600)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": equal") == 30

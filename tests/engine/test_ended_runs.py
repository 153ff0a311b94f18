"""Runs that are killed, terminated or interrupted, and go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from small_runs import SMALL, TRAIN_NET, draw_data_set, environment, iterations, run, train_net


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
        ) as process,
    ):
        metrics = output_dir / "metrics.json"
        end = time.monotonic() + 200
        while not metrics.is_file() or metrics.read_text().count("\n") < 2:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        process.send_signal(signum)
        status = process.wait(100)
    return status, log.read_text()


def test_sigterm_saves_and_the_run_goes_on(datasets, tmp_path):
    output_dir = tmp_path / "run"
    status, log = signalled(datasets, output_dir, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM and "Traceback" not in log
    done = iterations(output_dir)
    last = done[-1]
    assert (output_dir / "last_checkpoint").read_text() == f"model_{last:07d}.pth"
    assert f"Ended by SIGTERM after iteration {last}" in log
    resumed = train_net(datasets, output_dir, "--resume", f"train.max_iter={last + 3}")
    assert resumed.returncode == 0, resumed.stderr
    assert iterations(output_dir) == [*range(last + 3)]


def test_ctrl_c_is_answered_with_the_command_that_goes_on(datasets, tmp_path):
    status, log = signalled(datasets, tmp_path / "run", signal.SIGINT)
    assert status == 130 and "Traceback" not in log
    line = log.splitlines()[-1]
    assert line.startswith("Interrupted. To go on: ") and line.endswith(" --resume")
    assert "train_net.py --config-file" in line


KILLED_WHILE_WRITING = f"""
import os, runpy, signal, sys, torch
torn, output_dir = sys.argv[1:]
save = torch.save

def save_half(content, file):
    if not os.path.basename(file.name).startswith(torn):
        return save(content, file)
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = save_half
sys.argv = ["train_net.py", *{SMALL!r}, "train.output_dir=" + output_dir, "train.max_iter=2"]
sys.argv += ["train.checkpointer.period=1"]
runpy.run_path({str(TRAIN_NET)!r}, run_name="__main__")
"""


@pytest.mark.parametrize("name, resumed_from", [("model_final", 1), ("model_0000001", 0)])
def test_a_kill_inside_a_write_leaves_no_torn_file(datasets, tmp_path, name, resumed_from):
    output_dir = tmp_path / "run"
    script = tmp_path / "script.py"
    script.write_text(KILLED_WHILE_WRITING)
    assert run(datasets, script, name, output_dir).returncode == -signal.SIGKILL
    assert not (output_dir / f"{name}.pth").exists()
    assert len(list(output_dir.glob("*.part"))) == 1
    last = f"model_{resumed_from:07d}.pth"
    assert (output_dir / "last_checkpoint").read_text() == last
    done = train_net(datasets, output_dir, "--resume", "train.max_iter=2")
    assert done.returncode == 0, done.stderr
    assert torch.load(output_dir / "model_final.pth", weights_only=True)["iteration"] == 1
    assert (output_dir / "last_checkpoint").read_text() == "model_final.pth"
    assert not list(output_dir.glob("*.part"))
    assert json.loads((output_dir / "parsing_results.json").read_text())["num_images"] == 3

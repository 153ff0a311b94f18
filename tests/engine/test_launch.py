"""One run of several processes, whoever starts them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from small_runs import SMALL, draw_data_set, iterations, run, train_net

from aiparsing_d2.engine import ConfigError, check_device, launch
from aiparsing_d2.engine.launch import check_batch_size

# What each process does: a training with its evaluation, then an evaluation alone. Ranks are told
# on the way.
TRAIN_AND_EVALUATE = f"""
import json, os, sys
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from aiparsing_d2.cli import make_parser
from aiparsing_d2.engine import launch, training
from aiparsing_d2.engine.launch import _call

def main(output_dir):
    ranks = comm.all_gather((comm.get_rank(), comm.get_local_rank(), comm.get_local_size()))
    assert ranks == [(0, 0, 2), (1, 1, 2)], ranks
    overrides = ["train.output_dir=" + output_dir, "train.max_iter=2"]
    weights = "train.init_checkpoint=" + os.path.join(output_dir, "model_final.pth")
    for arguments in ([], ["--eval-only", weights]):
        command = ["train", *{SMALL!r}, *overrides, *arguments]
        training.main(make_parser().parse_args(command))
        comm.synchronize()

if __name__ == "__main__":
    by, output_dir = sys.argv[1:]
    if by == "torchrun":
        launch(main, args=(output_dir,))
    else:
        detectron2_launch(_call, 2, dist_url="auto", args=(main, output_dir))
"""


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    draw_data_set(root)
    return root


def test_torchrun_makes_the_same_run_as_detectron2s_launch(datasets, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TRAIN_AND_EVALUATE)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    runs = {}
    for by, start in (("torchrun", torchrun), ("launch", [])):
        output_dir = tmp_path / by
        done = run(datasets, *start, script, by, output_dir)
        assert done.returncode == 0, done.stderr
        assert iterations(output_dir) == [0, 1]
        weights = torch.load(output_dir / "model_final.pth", weights_only=True)["model"]
        runs[by] = weights, results(output_dir), results(output_dir / "eval")
    weights, after_training, alone = runs["torchrun"]
    assert after_training == alone == runs["launch"][1] == runs["launch"][2]
    assert all(tensor.equal(runs["launch"][0][name]) for name, tensor in weights.items())

    one = tmp_path / "one"
    final = f"train.init_checkpoint={tmp_path / 'torchrun' / 'model_final.pth'}"
    done = train_net(datasets, one, "--eval-only", final)
    assert done.returncode == 0, done.stderr
    assert results(one / "eval") == alone


GROUPS = """
import contextlib
import sys
import time
from pathlib import Path

import torch.distributed as dist
from detectron2.utils import comm

from aiparsing_d2.engine import leave_process_group

def threads_of_gloo():
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            names.append(path.read_text())
    return [name for name in names if "gloo" in name]

dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
comm._get_global_gloo_group()  # as gather() does, in more than one process
comm._LOCAL_PROCESS_GROUP = dist.new_group([0])
assert threads_of_gloo()
leave_process_group()
for _ in range(100):  # the kernel lists an ended thread for a moment
    if threads_of_gloo():
        time.sleep(0.1)
assert not threads_of_gloo() and not dist.is_initialized()
assert comm._LOCAL_PROCESS_GROUP is None
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of threads")
def test_leaving_the_process_group_ends_its_threads(tmp_path):
    command = [sys.executable, "-c", GROUPS, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def results(folder):
    return json.loads((folder / "parsing_results.json").read_text())


KILLED = """
import os, signal
from detectron2.utils import comm
from aiparsing_d2.engine import launch

def main():
    if comm.get_rank() == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    comm.synchronize()

if __name__ == "__main__":
    launch(main)
"""


@pytest.mark.fault("one of several processes is killed, in training or evaluation")
@pytest.mark.parametrize("max_restarts", [0, 1])
def test_a_killed_process_ends_all_or_all_start_again(tmp_path, max_restarts):
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    restarts = ["--max-restarts", max_restarts]
    done = run(tmp_path, *torchrun, *restarts, script, timeout=120)
    assert (done.returncode == 0) == (max_restarts == 1), done.stderr
    assert max_restarts == 1 or "SIGKILL" in done.stderr


RANKS = """
from detectron2.utils import comm
from aiparsing_d2.engine import launch

def main():
    ranks = comm.all_gather((comm.get_rank(), comm.get_local_rank(), comm.get_local_size()))
    assert ranks == [(0, 0, 1), (1, 0, 1)], ranks

if __name__ == "__main__":
    launch(main)
"""


def test_the_torchruns_of_two_machines_make_one_run(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(RANKS)
    torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    address = ["--master_addr", "127.0.0.1", "--master_port", str(find_free_port())]
    with ThreadPoolExecutor() as machines:
        both = [
            machines.submit(run, tmp_path, *torchrun, *address, "--node_rank", rank, script)
            for rank in (0, 1)
        ]
    for machine in both:
        assert machine.result().returncode == 0, machine.result().stderr


def find_free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


TORCHRUN = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "1",
}


@pytest.mark.fault("more `--num-gpus`, or torchrun processes, than GPUs")
@pytest.mark.parametrize(
    "environment, num_gpus, num_machines, gpus, message",
    [
        ({}, 8, 1, 0, "--num-gpus 8, but this machine has no GPUs.*torchrun --nproc_per_node N"),
        ({}, 8, 1, 1, "--num-gpus 8, but this machine has 1 GPU. Give --num-gpus 1 or less"),
        ({"MASTER_PORT": None}, 1, 1, 0, "by torchrun, but not MASTER_PORT"),
        ({"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2"}, 1, 1, 0, "2 of 3 processes"),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, 3, 1, 0, "--num-gpus 3, but .* says 2"),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, 2, 2, 0, "--num-machines 2, but .* says 1"),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, 1, 1, 1, "1 GPU, and each process needs"),
    ],
)
def test_numbers_of_processes_that_cannot_be_are_refused(
    monkeypatch, environment, num_gpus, num_machines, gpus, message
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if environment:
        set_environment(monkeypatch, environment)
    with pytest.raises(ConfigError, match=message) as error:
        launch(pytest.fail, num_gpus, num_machines)
    assert "\n" not in str(error.value)


def test_torchrun_of_one_process_needs_no_group(monkeypatch):
    set_environment(monkeypatch, {})
    sizes = []
    launch(lambda: sizes.append(comm.get_world_size()))
    assert sizes == [1]
    assert not torch.distributed.is_initialized()


def test_the_device_is_one_that_the_processes_can_share(monkeypatch):
    check_device("cpu")
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    check_device("cpu")
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda")
    with pytest.raises(ConfigError, match="train.device=cpu, but .* CUDA_VISIBLE_DEVICES= "):
        check_device("cpu")


@pytest.mark.fault("a setting is out of its range, or no GPU is there for `train.device=cuda`")
@pytest.mark.parametrize(
    "device, num_gpus, message",
    [
        ("cuda", 0, "train.device=cuda, but PyTorch finds no GPUs here, .* give train.device=cpu"),
        ("cuda:2", 2, "train.device=cuda:2, but PyTorch finds 2 GPUs here, .* a lower number"),
    ],
)
def test_a_gpu_that_is_not_there(monkeypatch, device, num_gpus, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    with pytest.raises(ConfigError, match=message):
        check_device(device)


def test_a_batch_is_shared_evenly(monkeypatch):
    check_batch_size(3)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    check_batch_size(4)
    with pytest.raises(ConfigError, match="total_batch_size=3, but there are 2 processes, .* of 2"):
        check_batch_size(3)


def set_environment(monkeypatch, changes):
    for name, value in {**TORCHRUN, **changes}.items():
        if value is not None:
            monkeypatch.setenv(name, value)

"""Starting the processes of a run: by torchrun, or by Detectron2's own ``launch``."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from detectron2 import engine
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch import nn
from torch.multiprocessing import ProcessExitedException

from .config_error import ConfigError

__all__ = [
    "check_batch_size",
    "check_device",
    "create_ddp_model",
    "launch",
    "leave_process_group",
    "share_buffers",
]

_SET_BY_TORCHRUN = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)


def launch(
    main_func: Callable[..., None],
    num_gpus_per_machine: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
) -> None:
    """Detectron2's ``launch`` that also serves in a process which torchrun has started.

    Such a process has RANK and LOCAL_RANK in its environment. It becomes one of torchrun's
    WORLD_SIZE processes, over NCCL where there are GPUs and gloo on the CPU; Detectron2's would
    make a run of its own in each. The process group is destroyed when ``main_func`` is done.

    Args:
        main_func: called in each process; must be importable.
        num_gpus_per_machine, num_machines, machine_rank, dist_url: how Detectron2 starts processes.
            torchrun knows its own numbers, with which these must agree unless they are 1.
        args: of ``main_func``.

    Raises:
        ConfigError: there are not as many GPUs as processes, or torchrun's numbers are others.
    """
    if "RANK" in os.environ and "LOCAL_RANK" in os.environ:
        _check_environment(num_gpus_per_machine, num_machines)
        _join(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
        _call(main_func, *args)
        return
    num_gpus = torch.cuda.device_count()
    if num_gpus_per_machine > max(num_gpus, 1):
        raise ConfigError(
            f"--num-gpus {num_gpus_per_machine}, but this machine has {_count(num_gpus)}. "
            + (
                f"Give --num-gpus {num_gpus} or less"
                if num_gpus
                else "Leave --num-gpus out; several processes train on the CPU by "
                "'torchrun --nproc_per_node N -m aiparsing_d2 train ...'"
            )
        )
    if num_gpus_per_machine * num_machines == 1:
        _call(main_func, *args)
        return
    with _ending_children():
        engine.launch(
            _call,
            num_gpus_per_machine,
            num_machines=num_machines,
            machine_rank=machine_rank,
            dist_url=dist_url,
            args=(main_func, *args),
        )


@contextmanager
def _ending_children() -> Iterator[None]:
    """Pass SIGTERM on to the processes of the run, and wait for what they save.

    Ctrl-C reaches all processes of a terminal. A SIGINT that reaches this one alone ends them too.
    """

    def end(*_: Any) -> None:
        for child in multiprocessing.active_children():
            child.terminate()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        end()
        raise
    except ProcessExitedException as error:
        if error.exit_code != 128 + signal.SIGTERM:
            raise
        sys.exit(error.exit_code)
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_environment(num_gpus_per_machine: int, num_machines: int) -> None:
    missing = [name for name in _SET_BY_TORCHRUN if name not in os.environ]
    if missing:
        raise ConfigError(
            f"RANK and LOCAL_RANK are set, as by torchrun, but not {', '.join(missing)}: start "
            "the processes by torchrun, or unset the two for a run of one process"
        )
    world_size, local_size = (int(os.environ[n]) for n in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if world_size % local_size:
        raise ConfigError(
            f"torchrun started {local_size} of {world_size} processes on this machine: give the "
            "same --nproc_per_node on all machines"
        )
    for flag, value, known in (
        ("--num-gpus", num_gpus_per_machine, local_size),
        ("--num-machines", num_machines, world_size // local_size),
    ):
        if value not in (1, known):
            raise ConfigError(f"{flag} {value}, but torchrun says {known}: leave {flag} out")
    num_gpus = torch.cuda.device_count()
    if 0 < num_gpus < local_size:
        raise ConfigError(
            f"torchrun --nproc_per_node {local_size}, but this machine has {_count(num_gpus)}, and "
            "each process needs its own. Start no more, or train on the CPU: put "
            "CUDA_VISIBLE_DEVICES= before the command"
        )


def check_device(device: str) -> None:
    """Refuse a device that is not there, or that the processes cannot share their gradients from.

    Args:
        device: of the model, ``train.device``.

    Raises:
        ConfigError: there is no such GPU, or the processes were started for GPUs, and the device is
            another.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = torch.device(device)
    if wanted.type == "cuda" and (wanted.index or 0) >= num_gpus:
        advice = "a lower number" if num_gpus else "train.device=cpu"
        raise ConfigError(
            f"train.device={device}, but PyTorch finds {_count(num_gpus)} here, as 'aiparsing "
            f"doctor' tells; give {advice}"
        )
    if comm.get_world_size() > 1 and dist.get_backend() == "nccl" and "cuda" not in device:
        raise ConfigError(
            f"train.device={device}, but the processes were started for GPUs. To train on the CPU "
            "of this machine, put CUDA_VISIBLE_DEVICES= before the command"
        )


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch of which the processes of the run cannot have equal parts.

    Args:
        batch_size: of all processes together, ``dataloader.train.total_batch_size``.

    Raises:
        ConfigError: it is no multiple of their number.
    """
    number = comm.get_world_size()
    if batch_size % number:
        raise ConfigError(
            f"dataloader.train.total_batch_size={batch_size}, but there are {number} processes, "
            f"and all get as many images: give a multiple of {number}"
        )


def create_ddp_model(model: nn.Module, **kwargs: Any) -> nn.Module:
    """Detectron2's ``create_ddp_model`` for the CPU too, which main takes for a GPU.

    Args:
        model: on its device.
        kwargs: of ``DistributedDataParallel``.
    """
    if not next(model.parameters()).is_cuda:
        kwargs["device_ids"] = None
    return engine.create_ddp_model(model, **kwargs)


def share_buffers(model: nn.Module) -> None:
    """Give all processes the main one's buffers, which are those that checkpoints hold.

    Statistics of batch normalisation differ between processes in training. Before an evaluation,
    each process would otherwise score its images with its own.

    Args:
        model: on the device that the processes communicate from.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def _count(num_gpus: int) -> str:
    return f"{num_gpus or 'no'} GPU{'s' if num_gpus != 1 else ''}"


def _join(local_rank: int, local_size: int) -> None:
    """Become one of torchrun's processes, as Detectron2's ``launch`` does for its own."""
    if int(os.environ["WORLD_SIZE"]) == 1:
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(local_rank)
    store, rank, world_size = next(dist.rendezvous("env://", timeout=DEFAULT_TIMEOUT))
    if world_size == local_size:
        # A machine's torchrun keeps its store over restarts, and with it dead processes' addresses.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt_{attempt}", store)
    dist.init_process_group(
        "nccl" if has_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=DEFAULT_TIMEOUT,
    )
    if hasattr(comm, "create_local_process_group"):  # Detectron2 after v0.6
        comm.create_local_process_group(local_size)
    else:
        for first in range(0, dist.get_world_size(), local_size):
            ranks = range(first, first + local_size)
            group = dist.new_group(list(ranks))
            if dist.get_rank() in ranks:
                comm._LOCAL_PROCESS_GROUP = group
    comm.synchronize()


def leave_process_group() -> None:
    """Take this process out of its process groups, which ends gloo's threads.

    A process that ends with these threads running may abort. Detectron2 keeps the groups it has
    used, so that ``destroy_process_group`` alone leaves them running.
    """
    dist.destroy_process_group()
    comm._get_global_gloo_group.cache_clear()
    comm._LOCAL_PROCESS_GROUP = None
    gc.collect()  # models in cycles keep groups too


def _call(main_func: Callable[..., None], *args: Any) -> None:
    """Run one process of a run, and take it out of the process group at the end."""
    try:
        main_func(*args)
    except BaseException:
        # NCCL would wait for processes that know nothing of the error.
        if dist.is_initialized() and dist.get_backend() == "gloo":
            leave_process_group()
        raise
    if dist.is_initialized():
        leave_process_group()

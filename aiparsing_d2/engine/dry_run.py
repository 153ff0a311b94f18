"""A dry run: every stage of a training once, on the user's own config, before the long run starts.

Whatever is written goes to a temporary folder on the disk of ``train.output_dir``, which is removed
at the end. Then time, memory and disk of the whole run are estimated from what was measured.
"""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import math
import os
import re
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import default_writers
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig

from aiparsing_d2.counted import counted

from .checkpointing import check_init_checkpoint
from .config_error import ConfigError, building
from .config_file import saving_whole_configs
from .consistency import evaluator_nodes
from .data_set_registration import data_set_names
from .launch import check_device
from .training import TrainingRun, check_folder, prepare_training, read_config

__all__ = ["DryRunError", "main", "peak_resident_memory"]

_GIB = 2**30
_NUM_STEPS = 4  # the first one warms up
_NUM_TEST_BATCHES = 5
_LONGEST_STAGE = 12.0  # seconds after which no further step or batch is begun


class DryRunError(Exception):
    """A stage failed. The message names it; the cause is what it raised."""


@dataclass
class _Measured:
    """What the estimates are made of; times in seconds.

    Attributes:
        num_test_images: of the test set.
        batch_time: of the data loader alone, for a batch.
        step_time, data_time: of a whole step, and of its waiting for data.
        peak: bytes of memory at most, in training.
        test_time: of an evaluation, for an image.
        save_time, checkpoint_size: of a checkpoint, in seconds and bytes.
    """

    num_test_images: int = 0
    batch_time: float = 0.0
    step_time: float = 0.0
    data_time: float = 0.0
    peak: int = 0
    test_time: float = 0.0
    save_time: float = 0.0
    checkpoint_size: int = 0


def main(args: argparse.Namespace) -> None:
    """Try a training, in each process of it, and print what was done and what it will take.

    Args:
        args: as for :func:`aiparsing_d2.engine.training.main`; of a new training.

    Raises:
        DryRunError: a stage failed.
    """
    start = time.perf_counter()
    _say(f"Dry run of {args.config_file}")
    measured = _Measured()
    with _stage("config") as facts:
        cfg = read_config(args)
        check_folder(cfg)
        check_device(cfg.train.device)
        if comm.is_main_process():
            check_init_checkpoint(cfg.train.init_checkpoint)
        facts.append(f"fits together, for {cfg.train.device}")
    with _folder_beside(cfg.train.output_dir) as folder:
        _try_stages(args, _redirected(cfg, folder), measured)
        _estimate(cfg, measured, folder)
    _say(f"Nothing failed, in {time.perf_counter() - start:.0f} s.")


def _try_stages(args: argparse.Namespace, cfg: DictConfig, measured: _Measured) -> None:
    with _stage("data sets") as facts:
        for loader in ("train", "test"):
            node = cfg.dataloader.get(loader)
            if node is not None and "dataset" in node:
                with building(f"dataloader.{loader}.dataset"):
                    num_images = len(instantiate(node.dataset))
                names = ", ".join(data_set_names(cfg, loader))
                facts.append(f"{counted(num_images, 'image')} of {names}")
                if loader == "test":
                    measured.num_test_images = num_images
    with _stage("model") as facts:
        # As Detectron2's default_setup does, which writes much besides.
        seed = cfg.train.get("seed", -1)
        seed_all_rng(None if seed < 0 else seed + comm.get_rank())
        torch.backends.cudnn.benchmark = cfg.train.get("cudnn_benchmark", False)
        # What is built of a config is kept in it.
        run = prepare_training(args, copy.deepcopy(cfg))
        start = cfg.train.init_checkpoint or "random weights"
        count = sum(p.numel() for p in run.checkpointer.model.parameters())
        facts.append(f"{count / 1e6:.1f} M parameters, from {start}")
    with _stage("samples") as facts:
        _read_batches(run, cfg, measured, facts)
    with _stage("training") as facts:
        _train(run, cfg, measured, facts)
    with _stage("checkpoint") as facts:
        _save(run, cfg, measured, facts)
    with _stage("evaluation") as facts:
        if evaluator_nodes(cfg):
            _evaluate(run, cfg, measured, facts)
        else:
            facts.append("none, as there is no dataloader.evaluator")
    with _stage("resumption") as facts:
        iteration = run.trainer.iter
        written = {k: v.cpu().clone() for k, v in run.checkpointer.model.state_dict().items()}
        del run  # two models at once need not fit
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _resume(args, cfg, iteration, written, facts)


@contextmanager
def _stage(name: str) -> Iterator[list[str]]:
    """Time a stage, and print how long it took and the facts that the block adds.

    Raises:
        DryRunError: from whatever the block raises.
    """
    facts: list[str] = []
    start = time.perf_counter()
    try:
        yield facts
    except Exception as error:  # whatever a config can raise
        print(f"  {name:<11} failed after {time.perf_counter() - start:.1f} s", flush=True)
        reason = str(error) or type(error).__name__
        if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
            reason = f"out of memory ({reason.splitlines()[0]}); a smaller batch takes less: "
            reason += "train.scale_to_batch_size=N"
        raise DryRunError(f"the dry run failed in its stage {name!r}: {reason}") from error
    _say(f"  {name:<11}{time.perf_counter() - start:6.1f} s  {'; '.join(facts)}")


def _say(text: str) -> None:
    if comm.is_main_process():
        print(text, flush=True)


@contextmanager
def _folder_beside(output_dir: str) -> Iterator[str]:
    """Make a folder in the output folder, or in what is there above it; remove it afterwards."""
    with _stage("folder") as facts:
        place = os.path.abspath(output_dir)
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        made = tempfile.mkdtemp(prefix=".dry_run_", dir=place) if comm.is_main_process() else ""
        folder = comm.all_gather(made)[0]
        facts.append(f"{folder}, removed at the end")
    try:
        yield folder
        comm.synchronize()
    finally:
        if comm.is_main_process():
            shutil.rmtree(folder, ignore_errors=True)


def _redirected(cfg: DictConfig, folder: str) -> DictConfig:
    """Return a copy of the config that writes into a folder, and whose evaluation is not due."""
    cfg = copy.deepcopy(cfg)
    cfg.train.output_dir = folder
    cfg.train.eval_period = 0
    for key, evaluator in evaluator_nodes(cfg):
        if evaluator.get("output_dir"):
            evaluator.output_dir = os.path.join(folder, key)
    return cfg


def _read_batches(run: TrainingRun, cfg: DictConfig, measured: _Measured, facts: list[str]) -> None:
    num_workers = cfg.dataloader.train.get("num_workers", 0)
    start = time.perf_counter()
    times, sizes = [], []
    # The trainer's own: a second iterator of one loader disturbs it in Detectron2 v0.6.
    batches = run.trainer._data_loader_iter
    # Twice the workers: what they all have begun with says little.
    for batch in itertools.islice(batches, max(4, 2 * num_workers + 1)):
        times.append(time.perf_counter() - start)
        sizes.append(len(batch))
        if times[-1] > _LONGEST_STAGE:
            break
    # Starting the workers takes place before the first batch.
    measured.batch_time = (times[-1] - times[0]) / (len(times) - 1) if times[1:] else times[0]
    facts.append(
        f"{counted(len(times), 'batch')} of {counted(sizes[0], 'image')}, "
        f"{measured.batch_time:.2f} s each by "
        + (f"{num_workers} workers" if num_workers else "the process itself")
    )


def _train(run: TrainingRun, cfg: DictConfig, measured: _Measured, facts: list[str]) -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    times, waits, loss = _step(run, cfg, _NUM_STEPS)
    measured.step_time = statistics.median(times[1:] or times)
    measured.data_time = statistics.median(waits[1:] or waits)
    on_gpu = cfg.train.device.startswith("cuda")
    measured.peak = torch.cuda.max_memory_allocated() if on_gpu else peak_resident_memory()
    facts.append(
        f"{counted(len(times), 'step')} in {run.trainer.precision_name}, "
        f"{measured.step_time:.2f} s each after the first; loss {loss:.2f}"
    )


def _step(
    run: TrainingRun, cfg: DictConfig, num_steps: int
) -> tuple[list[float], list[float], float]:
    """Make some steps, as ``TrainerBase.train`` does.

    Returns:
        Seconds of each step, and of its waiting for data, and the last loss.
    """
    trainer = run.trainer
    trainer.start_iter, trainer.max_iter = run.start_iter, cfg.train.max_iter
    end = min(run.start_iter + num_steps, trainer.max_iter)
    times: list[float] = []
    waits: list[float] = []
    loss = math.nan
    with EventStorage(run.start_iter) as trainer.storage:
        trainer.before_train()
        for trainer.iter in range(run.start_iter, end):
            start = time.perf_counter()
            trainer.before_step()
            trainer.run_step()
            trainer.after_step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
            if comm.is_main_process():  # which gathers the metrics
                waits.append(trainer.storage.latest()["data_time"][0])
                loss = trainer.storage.latest()["total_loss"][0]
            # All processes make as many steps.
            if comm.all_gather(sum(times) > _LONGEST_STAGE)[0]:
                break
        if comm.is_main_process():
            for writer in default_writers(cfg.train.output_dir, cfg.train.max_iter):
                writer.write()
                writer.close()
    return times, waits or [0.0], loss


def _save(run: TrainingRun, cfg: DictConfig, measured: _Measured, facts: list[str]) -> None:
    with saving_whole_configs():
        if comm.is_main_process():
            LazyConfig.save(cfg, os.path.join(cfg.train.output_dir, "config.yaml"))
    start = time.perf_counter()
    name = f"model_{run.trainer.iter:07d}"
    run.checkpointer.save(name, iteration=run.trainer.iter)
    measured.save_time = time.perf_counter() - start
    comm.synchronize()
    file = os.path.join(cfg.train.output_dir, f"{name}.pth")
    measured.checkpoint_size = os.path.getsize(file)
    facts.append(f"{measured.checkpoint_size / 2**20:.0f} MiB")


class _FirstBatches:
    """The first batches of a data loader; notes when each is asked for."""

    def __init__(self, data_loader: Any, num_batches: int):
        self._data_loader = data_loader
        self._num_batches = min(num_batches, len(data_loader))
        self.times: list[float] = []
        self.num_images = 0

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Any]:
        for batch in itertools.islice(self._data_loader, self._num_batches):
            self.times.append(time.perf_counter())
            self.num_images += len(batch)
            yield batch
        self.times.append(time.perf_counter())


def _evaluate(run: TrainingRun, cfg: DictConfig, measured: _Measured, facts: list[str]) -> None:
    with building("dataloader.test"):
        loader = _FirstBatches(instantiate(cfg.dataloader.test), _NUM_TEST_BATCHES)
    with building("dataloader.evaluator"):
        evaluator = instantiate(cfg.dataloader.evaluator)
    inference_on_dataset(run.evaluated_model, loader, evaluator)
    first, *later = loader.times
    per_batch = (later[-1] - later[0]) / (len(later) - 1) if later[1:] else later[0] - first
    measured.test_time = per_batch * len(loader) / loader.num_images
    facts.append(f"{loader.num_images} images, {measured.test_time:.2f} s each after the first")


def _resume(
    args: argparse.Namespace,
    cfg: DictConfig,
    iteration: int,
    written: dict[str, torch.Tensor],
    facts: list[str],
) -> None:
    args = copy.copy(args)
    args.resume = True
    run = prepare_training(args, copy.deepcopy(cfg))
    if run.start_iter != iteration + 1:
        raise ConfigError(f"it goes on at iteration {run.start_iter}, not at {iteration + 1}")
    # A checkpoint holds the statistics of the main process.
    read = run.checkpointer.model.state_dict() if comm.is_main_process() else {}
    for name, value in read.items():
        if not torch.equal(value.cpu(), written[name]):
            raise ConfigError(f"{name} is not read back as it was written")
    _step(run, cfg, 1)
    facts.append(f"goes on at iteration {run.start_iter}")


# Estimates


def _estimate(cfg: DictConfig, measured: _Measured, folder: str) -> None:
    """Print what the run will take.

    Raises:
        DryRunError: its checkpoints do not fit on the disk.
    """
    train = cfg.train
    num_workers = cfg.dataloader.train.get("num_workers", 0)
    compute = measured.step_time - measured.data_time
    # Workers read ahead at a rate of their own; without any, a step begins with reading.
    seconds = max(compute, measured.batch_time) if num_workers else measured.step_time
    num_tests = (train.max_iter - 1) // train.eval_period + 1 if train.eval_period > 0 else 1
    num_tests *= bool(evaluator_nodes(cfg))
    test_seconds = measured.test_time * measured.num_test_images / comm.get_world_size()
    period, kept = train.checkpointer.period, train.checkpointer.get("max_to_keep")
    num_saved = train.max_iter // period
    total = train.max_iter * seconds + num_tests * test_seconds + num_saved * measured.save_time
    tests = f", {num_tests} x {_in_words(test_seconds)} of evaluation (more as people are found)"
    _say("The run, if nothing else uses this machine:")
    _say(
        f"  time    about {_in_words(total)}: {train.max_iter:,} steps of {seconds:.2f} s"
        + tests * bool(num_tests)
    )
    _say(f"  memory  {_describe_memory(cfg, measured)}; larger images may take more")
    with _stage("disk") as facts:
        # The newest is written before the oldest goes; the last and the best come on top.
        number = min(num_saved, kept + 1 if kept else num_saved) + 1
        number += bool(num_tests and train.get("best_checkpointer"))
        needed, free = number * measured.checkpoint_size, shutil.disk_usage(folder).free
        facts.append(
            f"{needed / _GIB:.1f} GiB for {number} checkpoints, {free / _GIB:.1f} GiB free"
        )
        if comm.is_main_process() and needed > free:
            raise ConfigError(
                f"{facts[0]}: make room, name another train.output_dir, or keep fewer by "
                "train.checkpointer.max_to_keep"
            )
    _advise_on_loader(num_workers, compute, measured)


def _describe_memory(cfg: DictConfig, measured: _Measured) -> str:
    if cfg.train.device.startswith("cuda"):
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        where = f"of {total / _GIB:.1f} GiB on the GPU"
    else:
        where = "resident, workers of data loaders not counted"
    return f"peak {measured.peak / _GIB:.1f} GiB {where}"


def _advise_on_loader(num_workers: int, compute: float, measured: _Measured) -> None:
    if measured.batch_time > (compute if num_workers else 0.2 * compute):
        _say(
            f"The data loader is slow: {measured.batch_time:.2f} s for a batch, {compute:.2f} s "
            f"for the rest of a step. It has {num_workers} workers, this machine "
            f"{os.cpu_count()} cores: dataloader.train.num_workers=N"
        )


def _in_words(seconds: float) -> str:
    """Return a time in its two largest units."""
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 48:
        return f"{hours // 24:.0f} d {hours % 24:.0f} h"
    if hours >= 1:
        return f"{hours // 1:.0f} h {minutes % 60:.0f} min"
    return f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"


def peak_resident_memory() -> int:
    """Return the highest resident memory of this process so far, in bytes."""
    if sys.platform == "linux":
        # ru_maxrss is there at least that of the process which started this one.
        with open("/proc/self/status") as status:
            found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read(), re.MULTILINE)
        if found:
            return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak

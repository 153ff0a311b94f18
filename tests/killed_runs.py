"""Kill small trainings at random moments, resume them, and compare with one that was not killed.

Half of the moments are spread over the time of a run; the others are inside of its writes: before,
in the middle of and after the content of a checkpoint, in the middle of a line of metrics.json, and
around the renaming of any file. Of two processes that torchrun has started, one is killed or all.

    python tests/killed_runs.py FOLDER --one 15 --average 5 --two 10 --seed 0

FOLDER gets the runs; DETECTRON2_DATASETS has what ``small_runs.draw_data_set`` draws. A line is
printed for each kill; the exit status is the number of runs that ended otherwise than the one not
killed.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import itertools
import json
import logging
import os
import random
import runpy
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.utils.tensorboard
from detectron2.utils.events import JSONWriter
from small_runs import SMALL, TRAIN_NET
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import aiparsing_d2.cli
import aiparsing_d2.engine.training
import aiparsing_d2.evaluation
import aiparsing_d2.modeling  # noqa: F401  children of this process start at once

# Checkpoints after iterations 1, 3, 5, 7, evaluations after 2, 5 and 7, metrics after 2, 5, 7.
OPTIONS = [
    "train.max_iter=8",
    "train.eval_period=3",
    "train.checkpointer.period=2",
    "train.checkpointer.max_to_keep=2",
    "train.log_period=3",
    # The second of three evaluations is the best, and a checkpoint is written just before it.
    "train.seed=3",
    "train.best_checkpointer.val_metric=bbox/AP50",
]
KINDS = {"one": [], "average": ["train.ema.enabled=True"], "two": []}
# What differs between any two runs.
_TIMES = {"time", "data_time", "eta_seconds", "images_per_second", "data_share"}


def train(folder: Path, options: list[str], watch: Callable[[], None]) -> None:
    """Run train_net.py in this process."""
    watch()
    sys.argv = [str(TRAIN_NET), *SMALL, *OPTIONS, f"train.output_dir={folder}", *options]
    runpy.run_path(str(TRAIN_NET), run_name="__main__")


def train_in_two_processes(folder: Path, options: list[str], watch: Callable[[], None]) -> None:
    """As torchrun does, but its processes need not import what this one has imported."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=str(os.getpid()),
        start_method="fork",
        monitor_interval=0.1,
    )
    elastic_launch(config, train)(folder, options, watch)


def start(kind: str, folder: Path, flags: list[str], watch: Callable[[], None]) -> int:
    """Start a training in a process group of its own; return the id of its first process."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setsid()
        log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        call = train_in_two_processes if kind == "two" else train
        call(folder, [*KINDS[kind], *flags], watch)
        status = 0
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def wait(process: int) -> int:
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with contextlib.suppress(ProcessLookupError):  # nobody is left behind
        os.killpg(process, signal.SIGKILL)
    return status


def run_until(seconds: float | None, process: int) -> int:
    """Wait for a process, or kill its group after some time; return its exit status."""
    if seconds is not None:
        time.sleep(seconds)
        os.killpg(process, signal.SIGKILL)  # also there when it has ended, as nobody has waited
    return wait(process)


def kill_group() -> None:
    os.killpg(0, signal.SIGKILL)


def kill_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch_writes(record: Path, kill_at: int | str | None, kill: Callable[[], None]) -> None:
    """Record the moments of this process' writes, and kill at one of them.

    Args:
        record: gets a line for each moment.
        kill_at: the moment's number in this process, or its name.
        kill: what kills.
    """
    numbers = itertools.count()
    save, replace, open_json = torch.save, os.replace, JSONWriter.__init__

    def moment(name: str) -> None:
        with open(record, "a") as file:
            print(name, file=file)
        if kill_at in (next(numbers), name):
            kill()

    def watched_save(content: Any, file: Any) -> None:
        whole = io.BytesIO()
        save(content, whole)
        name = Path(file.name).name.partition(".")[0]
        half = whole.tell() // 2
        moment(f"before the content of {name}")
        file.write(whole.getvalue()[:half])
        file.flush()
        moment(f"in the content of {name}")
        file.write(whole.getvalue()[half:])
        moment(f"after the content of {name}")

    def watched_replace(source: Any, target: Any) -> None:
        moment(f"before {Path(target).name} gets its name")
        replace(source, target)
        moment(f"after {Path(target).name} got its name")

    def watched_open(self: JSONWriter, *args: Any, **kwargs: Any) -> None:
        open_json(self, *args, **kwargs)
        write = self._file_handle.write

        def watched_write(line: str) -> None:
            write(line[: len(line) // 2])
            self._file_handle.flush()
            moment("in a line of metrics.json")
            write(line[len(line) // 2 :])
            self._file_handle.flush()
            moment("after a line of metrics.json")

        # A text file's own attribute cannot be set.
        self._file_handle = _Wrapped(self._file_handle, watched_write)

    torch.save, os.replace, JSONWriter.__init__ = watched_save, watched_replace, watched_open


class _Wrapped:
    def __init__(self, file: Any, write: Callable[[str], None]):
        self._file, self.write = file, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def checkpoint(file: Path) -> dict[str, Any]:
    return torch.load(file, map_location="cpu", weights_only=True)


def tensors(content: Any, place: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, by their places."""
    if isinstance(content, torch.Tensor):
        return {place: content}
    items = content.items() if isinstance(content, dict) else ()
    return {k: v for key, x in items for k, v in tensors(x, f"{place}/{key}").items()}


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.json without what differs between any two runs."""
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    lines = [{k: v for k, v in line.items() if k not in _TIMES} for line in lines]
    return sorted(lines, key=lambda line: line["iteration"])


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows."""
    events = EventAccumulator(str(folder)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in _TIMES]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def differences(expected: Path, found: Path) -> list[str]:
    """Compare all that two runs have left."""
    different = []
    names, others = (
        {f.name for f in x.iterdir() if "tfevents" not in f.name} for x in (expected, found)
    )
    different += [f"{name} is there in one only" for name in names ^ others]
    for name in sorted(n for n in names & others if n.endswith(".pth")):
        one, other = checkpoint(expected / name), checkpoint(found / name)
        ours, theirs = tensors(one), tensors(other)
        if ours.keys() != theirs.keys():
            different.append(f"{name}: other tensors")
        elif not all(ours[place].equal(theirs[place]) for place in ours):
            different.append(f"{name}: other values")
        for key in ("iteration", "best", "train_loader"):
            if one.get(key) != other.get(key):
                different.append(f"{name}: {key} {one.get(key)}, {other.get(key)}")
    for name in sorted(n for n in names & others if n.endswith(".json") and n != "metrics.json"):
        if (expected / name).read_text() != (found / name).read_text():
            different.append(f"other {name}")
    for name, read in (("metrics.json", metrics), ("TensorBoard", points)):
        if read(expected) != read(found):
            different.append(f"other {name}")
    once = Counter(line["iteration"] for line in metrics(found))
    different += [f"iteration {i} stands {n} times" for i, n in once.items() if n > 1]
    return different


def end_of_log(run: Path) -> str:
    return run.with_suffix(".log").read_text()[-2000:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, help="number of kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--at", nargs="*", help="moments at which one run is killed, in this order")
    args = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of each resumption
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    args.folder.mkdir(parents=True, exist_ok=True)
    choice = random.Random(args.seed)
    num_lost = 0
    for kind in KINDS:
        expected = args.folder / kind
        record = args.folder / f"{kind}.moments"
        begin = time.monotonic()
        if not getattr(args, kind) and not (args.at and kind == "one"):
            continue
        if wait(
            start(kind, expected, [], functools.partial(watch_writes, record, None, kill_group))
        ):
            sys.exit(f"the run not killed has failed: {end_of_log(expected)}")
        duration, moments = time.monotonic() - begin, record.read_text().splitlines()
        for number in range(getattr(args, kind)):
            problems, told = killed(kind, number, choice, duration, moments, args.folder)
            num_lost += bool(problems)
            print(f"{kind} {number}: {told}: {'; '.join(problems) or 'equal'}", flush=True)
    if args.at:
        problems = killed_at(args.at, args.folder)
        num_lost += bool(problems)
        print(f"{'; '.join(args.at)}: {'; '.join(problems) or 'equal'}")
    return num_lost


def killed_at(moments: list[str], folder: Path) -> list[str]:
    """Kill one run at these moments, one after the other; return what differs."""
    run, record = folder / "at", folder / "at.moments"
    for number, moment in enumerate([*moments, None]):
        flags = ["--resume"] if number else []
        watch = functools.partial(watch_writes, record, moment, kill_process)
        status = wait(start("one", run, flags, watch))
        if status != (-signal.SIGKILL if moment else 0):
            return [f"exit status {status}, not killed {moment}: {end_of_log(run)}"]
    return differences(folder / "one", run)


def killed(
    kind: str,
    number: int,
    choice: random.Random,
    duration: float,
    moments: list[str],
    folder: Path,
) -> tuple[list[str], str]:
    """Kill one run, resume it and compare; return what differs, and the moment."""
    run = folder / f"{kind}_{number}"
    record = run.with_suffix(".moments")
    kill = kill_process if kind == "two" and number % 4 == 1 else kill_group
    kill_at = choice.randrange(len(moments)) if number % 2 == 1 else None
    seconds = choice.uniform(0.3, duration) if kill_at is None else None
    watch = functools.partial(watch_writes, record, kill_at, kill)
    while not (status := run_until(seconds, start(kind, run, [], watch))):
        assert seconds is not None, f"moment {kill_at} did not come"
        seconds *= 0.8  # it had more of the machine than the one not killed
        shutil.rmtree(run)
        record.unlink()
    written = record.read_text().splitlines() if record.exists() else ["nothing is written"]
    moment = written[-1] if seconds is None else f"after {seconds:.2f} s, {written[-1]}"
    last = run / "last_checkpoint"
    moment += f"; resumed from {last.read_text() if last.exists() else 'nothing'}"
    if kill is kill_process:
        moment += f"; one process, exit status {status}"
    watch = functools.partial(watch_writes, record, None, kill)
    if wait(start(kind, run, ["--resume"], watch)):
        return [f"does not go on: {end_of_log(run)}"], moment
    problems = differences(folder / kind, run)
    if not problems:
        shutil.rmtree(run)
    return problems, moment


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python
"""Trains a model with and without its components and shows what each one is worth.

    python tools/run_ablation.py
    python tools/run_ablation.py --seeds 1 2 3 --rows baseline pgec train.max_iter=1000
    python tools/run_ablation.py --start-from output/train_demo/model_final.pth train.max_iter=500
    python tools/run_ablation.py --table photographs train.max_iter=600
    python tools/run_ablation.py --table photographs --jobs 4 --more-sets ccp_crowd_val

``--table table_vi``, the default: every row is the model of a small config (``--config-file``), on
drawn scenes unless told otherwise, less the components that the row's config in
configs/ablations/table_vi lacks. ``--table photographs``: the small model for photographs less one
thing at a time, evaluated on crowds and on crops too. The row without EMA takes the weights that
the whole model's runs had in training, and trains none of its own.

All rows get the same data, seeds and iterations. Each run is a call of train_net.py and has a
folder of its own below ``--output``: called again, the tool keeps what is finished and resumes what
is not. With ``--jobs`` several go on at a time, on one device; Ctrl-C and SIGTERM end them all. It
ends with the tables, which it also leaves as ablation.md and ablation.json.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import aiparsing_d2  # isort: skip  # noqa: F401  before Detectron2: ignores its deprecation warnings

import torch
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate

from aiparsing_d2.checkpoint.weight_file import WeightFileError, read_weights
from aiparsing_d2.engine import (
    ConfigError,
    ExponentialMovingAverage,
    apply_overrides,
    check_consistency,
    load_lazy_config,
)
from aiparsing_d2.model_zoo import get_config
from aiparsing_d2.whole_files import whole_file

REPOSITORY = Path(__file__).resolve().parents[1]
TRAIN_NET = REPOSITORY / "train_net.py"
SMALL_CONFIG = REPOSITORY / "configs/demo/aiparsing_tiny_FPN_drawn_cihp.py"
METRICS = ("mIoU", "APpvol", "APp50", "PCP50")
BOX_METRIC = "box AP50"
WHOLE_MODEL = "all"
PARSING_BRANCH = "roi_heads.parsing_head."
EMA_HOOK = ExponentialMovingAverage.__qualname__
# For the iteration and the checkpoint with which a training ends; then it is killed.
GRACE_SECONDS = 60


Paper = tuple[float, float, float, float]
"""The paper's figures, in the order of ``METRICS``, in percent."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: of its config in configs/ablations/table_vi, else of the row itself.
        title: what the model has.
        paper: what the paper states for this model.
        before: the row that it changes something of.
        overrides: what it changes, as on the command line of train_net.py; None: what its config
            changes.
        paper_before: what the paper states for the model before that change, where it is not that
            of the row ``before``.
        weights_of: the row whose runs' weights in training are this row's, where the row itself
            has their average; None: the row has trainings of its own.
    """

    name: str
    title: str
    paper: Paper | None
    before: str | None
    overrides: tuple[str, ...] | None = None
    paper_before: Paper | None = None
    weights_of: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows of models that are compared with each other.

    Attributes:
        rows: the first one is what all others are changed from.
        config_file: a LazyConfig of the whole model.
        output: the folder of its runs.
        more_sets: registered data sets to evaluate on beside the config's own.
        with_tta: whether the first row is evaluated with test-time augmentation too.
    """

    rows: tuple[Row, ...]
    config_file: Path
    output: Path
    more_sets: tuple[str, ...] = ()
    with_tta: bool = False


TABLE_VI = (
    Row("baseline", "baseline", (49.6, 45.8, 43.1, 47.9), None),
    Row("pgec", "PGEC", (52.5, 50.8, 55.6, 56.6), "baseline"),
    Row("non_local", "non-local", (52.7, 50.7, 55.7, 56.0), "baseline"),
    Row("pgec_non_local", "PGEC, non-local", (54.0, 52.6, 60.5, 59.6), "baseline"),
    Row("pgec_non_local_edge", "+ edges", (54.8, 53.8, 62.7, 61.5), "pgec_non_local"),
    Row("pgec_non_local_edge_gn", "+ GN", (55.6, 54.4, 64.4, 62.8), "pgec_non_local_edge"),
    Row(
        "pgec_non_local_edge_gn_miou_loss",
        "+ mIoU loss",
        (57.6, 54.4, 64.8, 63.9),
        "pgec_non_local_edge_gn",
    ),
    Row(
        "pgec_non_local_edge_gn_miou_score",
        "+ mIoU score",
        (55.8, 56.8, 69.1, 62.1),
        "pgec_non_local_edge_gn",
    ),
    Row(WHOLE_MODEL, "+ both", (57.3, 56.9, 69.4, 64.4), "pgec_non_local_edge_gn"),
)

_PAPER = {row.name: row.paper for row in TABLE_VI}
_WHOLE = "whole"

PHOTOGRAPHS = (
    Row(_WHOLE, "whole model", _PAPER[WHOLE_MODEL], None, ()),
    Row(
        "without_imagenet",
        "random start",
        None,
        _WHOLE,
        (
            "train.init_checkpoint=''",
            # Layers and norms that stay random would say nothing of ImageNet.
            "model.backbone.bottom_up.freeze_at=0",
            "model.backbone.bottom_up.freeze_norms=False",
        ),
    ),
    Row(
        "without_copy_paste",
        "no copy-paste",
        None,
        _WHOLE,
        ("dataloader.train.mapper.copy_paste=null",),
    ),
    Row(
        "without_crops",
        "no crops",
        None,
        _WHOLE,
        (
            "dataloader.train.mapper.augmentations.0.prob=0.0",
            "dataloader.train.mapper.augmentations.1.max_scale=1.0",
        ),
    ),
    # The average is kept beside the weights in training, and nothing there depends on it.
    Row(
        "without_ema",
        "no EMA",
        None,
        _WHOLE,
        ("train.ema.enabled=False",),
        weights_of=_WHOLE,
    ),
    Row(
        "without_edges",
        "no edges",
        _PAPER["pgec_non_local"],
        _WHOLE,
        ("model.roi_heads.parsing_head.edge_on=False",),
        _PAPER["pgec_non_local_edge"],
    ),
    Row(
        "without_miou_loss",
        "no mIoU loss",
        _PAPER["pgec_non_local_edge_gn_miou_score"],
        _WHOLE,
        ("model.roi_heads.parsing_head.miou_loss_weight=0.0",),
    ),
    Row(
        "without_miou_score",
        "no mIoU score",
        _PAPER["pgec_non_local_edge_gn_miou_loss"],
        _WHOLE,
        ("model.roi_heads.parsing_head.score_head=null",),
    ),
)

TABLES = {
    "table_vi": Table(TABLE_VI, SMALL_CONFIG, Path("output/ablations/drawn_table_vi")),
    "photographs": Table(
        PHOTOGRAPHS,
        REPOSITORY / "configs/photographs/aiparsing_lite0_FPN_ccp.py",
        Path("output/ablations/photographs"),
        more_sets=("ccp_crowd_val", "ccp_crops_val"),
        with_tta=True,
    ),
}

Figures = dict[str, list[dict[str, float]]]
"""By row: the figures of each seed, in the order of the seeds."""


@dataclass(frozen=True)
class Run:
    """A run that is to be done: a row with a seed."""

    row: Row
    seed: int
    cfg: DictConfig

    def __str__(self) -> str:
        return f"{self.row.name}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        return Path(self.cfg.train.output_dir)

    @property
    def results_file(self) -> Path:
        """What train_net.py leaves after a training or, of other runs' weights, an evaluation."""
        return Path(self.folder, "eval" if self.row.weights_of else "", "parsing_results.json")


@dataclass(frozen=True)
class Result:
    """Figures of a finished run, in percent.

    Attributes:
        figures: on the config's own data set.
        more: by data set, or "TTA".
        seconds: that this call spent on it.
    """

    figures: dict[str, float]
    more: dict[str, dict[str, float]]
    seconds: float


def differences(whole: Any, part: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Keys of ``part`` with other values than in ``whole``, dots between their levels.

    Args:
        whole, part: nested dicts.
        path: of the two in the config.

    Raises:
        ValueError: ``part`` lacks a key, so its value there is unknown.
    """
    if not (isinstance(whole, dict) and isinstance(part, dict)):
        if whole != part:
            yield ".".join(path), part
        return
    if missing := whole.keys() - part.keys():
        raise ValueError(f"{'.'.join(path)} lacks {', '.join(sorted(missing))}")
    for key, value in part.items():
        if key in whole:
            yield from differences(whole[key], value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def row_settings(row: Row) -> dict[str, Any]:
    """Return what the config of a row changes in the whole model: keys below ``model`` and
    values.
    """
    whole, part = (
        OmegaConf.to_container(get_config(f"ablations/table_vi/{name}").model, resolve=False)
        for name in (WHOLE_MODEL, row.name)
    )
    return dict(differences(whole, part))


def run_config(small: DictConfig, row: Row, seed: int, output_dir: Path) -> DictConfig:
    """Return the config of one run: the small one, changed as the row changes the paper's model."""
    if row.overrides is not None:
        cfg = apply_overrides(copy.deepcopy(small), list(row.overrides))
    else:
        cfg = copy.deepcopy(small)
        for key, value in row_settings(row).items():
            OmegaConf.update(cfg, f"model.{key}", value, merge=False, force_add=True)
        # The paper's models leave no part out.
        cfg.model.roi_heads.parsing_head.min_part_probability = 0.0
    cfg.train.output_dir = str(output_dir)
    cfg.train.seed = seed
    # One evaluation, at the end: no row gets to choose its best checkpoint.
    cfg.train.eval_period = 0
    cfg.train.best_checkpointer = None
    cfg.train.checkpointer.max_to_keep = 1
    return cfg


def write_start(checkpoint: Path, folder: Path) -> Path:
    """Write a checkpoint's backbone and detector, without its parsing branch.

    Returns:
        The file. Other weights get another name, so that their runs do not pass for the same.
    """
    tensors = read_weights(checkpoint).tensors
    kept = {name: t for name, t in tensors.items() if not name.startswith(PARSING_BRANCH)}
    digest = hashlib.sha256()
    for name, tensor in sorted(kept.items()):
        digest.update(name.encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    start = folder / f"start_{digest.hexdigest()[:12]}.pth"
    with whole_file(start, "wb") as file:
        torch.save(
            {"model": kept, "__author__": "aiparsing_d2", "matching_heuristics": False}, file
        )
    return start


def check_more_sets(small: DictConfig, table: Table) -> None:
    """Refuse data sets that the finished models could not be evaluated on.

    Raises:
        ConfigError: one is not registered or has other parts.
    """
    for name in table.more_sets:
        cfg = apply_overrides(copy.deepcopy(small), [f"dataloader.test.dataset.names={name}"])
        check_consistency(cfg, evaluation_only=True)


def write_settings(cfg: DictConfig) -> Path:
    """Write a run's config to its folder.

    Returns:
        The file.

    Raises:
        FileExistsError: the folder holds a run with another config.
    """
    run_dir = Path(cfg.train.output_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    config_file = run_dir / "ablation_run.yaml"
    new_file = run_dir / "ablation_run.new.yaml"
    LazyConfig.save(cfg, str(new_file))
    if config_file.is_file() and config_file.read_bytes() != new_file.read_bytes():
        new_file.unlink()
        raise FileExistsError(
            f"{run_dir} holds a run with other settings. Give another folder by --output, or "
            "remove this one."
        )
    new_file.replace(config_file)
    return config_file


def train(run: Run, ending: threading.Event) -> None:
    """Train and evaluate in a process of its own, or go on where an earlier one stopped.

    Args:
        run: with a training of its own.
        ending: see :func:`run_train_net`.

    Raises:
        FileExistsError: the folder holds a run with another config.
        RuntimeError: train_net.py failed; the message ends with the last lines it wrote.
    """
    config_file = write_settings(run.cfg)
    if finished_figures(run) is not None:
        return
    run_train_net(run.folder, ending, "--config-file", str(config_file), "--resume")
    if finished_figures(run) is None:
        raise RuntimeError(f"{run.folder} holds no figures after its training")


def evaluate_weights_in_training(run: Run, checkpoint: Path, ending: threading.Event) -> None:
    """Evaluate the weights behind a checkpoint's average, unless that is done.

    Args:
        run: of a row with ``weights_of``.
        checkpoint: of that row's finished run.
        ending: see :func:`run_train_net`.

    Raises:
        FileExistsError: the folder holds a run with another config.
        RuntimeError: the checkpoint holds no average, or train_net.py failed.
    """
    config_file = write_settings(run.cfg)
    if finished_figures(run) is not None:
        return
    hooks = torch.load(checkpoint, map_location="cpu", weights_only=True)["trainer"]["hooks"]
    if EMA_HOOK not in hooks:
        raise RuntimeError(f"{checkpoint} holds no average: train.ema.enabled was False")
    weights = run.folder / "model_final.pth"
    with whole_file(weights, "wb") as file:
        content = {"model": hooks[EMA_HOOK], "__author__": "aiparsing_d2"}
        torch.save(content | {"matching_heuristics": False}, file)
    start = f"train.init_checkpoint={weights}"
    run_train_net(run.folder, ending, "--config-file", str(config_file), "--eval-only", start)


def run_train_net(run_dir: Path, ending: threading.Event, *arguments: str) -> None:
    """Run train_net.py; what it prints goes to console.txt in the run's folder.

    Args:
        run_dir: the run's folder.
        ending: once it is set, by another thread, the process is ended.
        arguments: of train_net.py.

    Raises:
        RuntimeError: it failed; the message ends with the last lines it wrote.
    """
    console = run_dir / "console.txt"
    command = [sys.executable, str(TRAIN_NET), *arguments]
    with (
        open(console, "a", encoding="utf-8") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        while process.poll() is None and not ending.wait(0.1):
            pass
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
    if process.returncode != 0:
        tail = "\n".join(console.read_text(encoding="utf-8").splitlines()[-15:])
        raise RuntimeError(
            f"train_net.py exited with status {process.returncode}; see {console}\n{tail}"
        )


def finished_figures(run: Run) -> dict[str, float] | None:
    """Return the figures of a run in percent, None if it has not finished."""
    if not ((run.folder / "model_final.pth").is_file() and run.results_file.is_file()):
        return None
    return read_figures(run.results_file)


def read_figures(file: Path) -> dict[str, float]:
    """Read the figures of an evaluation's parsing_results.json, in percent."""
    results = json.loads(file.read_text(encoding="utf-8"))["results"]
    figures = {name: results["parsing"][name] for name in METRICS}
    return figures | {BOX_METRIC: results["bbox"]["AP50"]}


def evaluate_more(
    run_dir: Path, table: Table, is_first: bool, ending: threading.Event
) -> dict[str, dict[str, float]]:
    """Evaluate a finished run on the table's other data sets, unless that is done.

    Args:
        run_dir: of the run.
        table: what is to be evaluated.
        is_first: whether the run is one of the table's first row.
        ending: see :func:`run_train_net`.

    Returns:
        The figures by data set; those with test-time augmentation, on the config's own data set,
        under "TTA".
    """
    weights = f"train.init_checkpoint={run_dir / 'model_final.pth'}"
    common = ("--config-file", str(run_dir / "ablation_run.yaml"), "--eval-only", weights)
    figures = {}
    for name in table.more_sets:
        folder = run_dir / name
        results = folder / "eval" / "parsing_results.json"
        if not results.is_file():
            data_set = f"dataloader.test.dataset.names={name}"
            run_train_net(run_dir, ending, *common, data_set, f"train.output_dir={folder}")
        figures[name] = read_figures(results)
    if table.with_tta and is_first:
        results = run_dir / "eval" / "tta" / "parsing_results.json"
        if not results.is_file():
            run_train_net(run_dir, ending, *common, "test_time_augmentation.enabled=True")
        figures["TTA"] = read_figures(results)
    return figures


def train_and_evaluate(
    run: Run, table: Table, ending: threading.Event, weights_of: Future[Result] | None
) -> Result:
    """Train and evaluate one run, as far as that is not done.

    Args:
        run, table: what is to be done.
        ending: see :func:`run_train_net`.
        weights_of: the run whose weights are evaluated instead; it is waited for.

    Raises:
        FileExistsError: the folder holds a run with another config.
        RuntimeError: this run failed, or the one it takes its weights from.
    """
    if weights_of is None:
        begin = time.perf_counter()
        train(run, ending)
    else:
        source = f"{run.row.weights_of}_seed_{run.seed}"
        try:
            weights_of.result()
        except RuntimeError as error:
            raise RuntimeError(f"{source} failed, whose weights it evaluates") from error
        begin = time.perf_counter()
        checkpoint = run.folder.parent / source / "model_final.pth"
        evaluate_weights_in_training(run, checkpoint, ending)
    more = evaluate_more(run.folder, table, run.row is table.rows[0], ending)
    return Result(finished_figures(run), more, time.perf_counter() - begin)


def run_all(runs: Sequence[Run], table: Table, jobs: int) -> list[Result | None]:
    """Do all runs, ``jobs`` at a time, and print a line about each one when it ends.

    If this is left by an exception, Ctrl-C among them, the processes of all runs are ended.

    Returns:
        The results in the order of ``runs``, None for those that failed.

    Raises:
        FileExistsError: the folder of one holds a run with another config.
    """
    ending = threading.Event()
    results: list[Result | None] = [None] * len(runs)
    longest = 0.0
    with ThreadPoolExecutor(jobs) as pool:
        places: dict[Future[Result], int] = {}
        submitted: dict[tuple[str, int], Future[Result]] = {}
        try:
            for place, run in enumerate(runs):
                # Begun earlier, so it is not waited for in vain.
                weights_of = submitted.get((run.row.weights_of, run.seed))
                future = pool.submit(train_and_evaluate, run, table, ending, weights_of)
                submitted[run.row.name, run.seed] = future
                places[future] = place
            for number, future in enumerate(as_completed(places), start=1):
                place = places[future]
                label = f"[{number}/{len(runs)}] {runs[place]}"
                try:
                    result = results[place] = future.result()
                except RuntimeError as error:
                    print(f"{label}: failed: {error}", flush=True)
                    continue
                longest = max(longest, result.seconds)
                left = math.ceil((len(runs) - number) / jobs) * longest / 60
                told = ", ".join(f"{name} {result.figures[name]:.1f}" for name in METRICS)
                print(
                    f"{label}: {told}; {result.seconds:.0f} s, at most about {left:.0f} min left",
                    flush=True,
                )
        except BaseException:
            ending.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def spread(values: Sequence[float]) -> float | None:
    """Return the standard deviation over seeds, None for a single one."""
    return stdev(values) if len(values) > 1 else None


def with_spread(values: Sequence[float], sign: str = "") -> str:
    """Return the mean and, of several seeds, the standard deviation; ``sign`` as in a format."""
    deviation = spread(values)
    text = f"{mean(values):{sign}.1f}"
    return text if deviation is None else f"{text} ± {deviation:.1f}"


def figures_table(rows: Sequence[Row], figures: Figures) -> str:
    """Each row's figures, mean and standard deviation over seeds, beside the paper's."""
    of_metrics = [f"{metric}{of}" for metric in METRICS for of in ("", " (paper)")]
    headers = ["row", *of_metrics, BOX_METRIC]
    lines = []
    for row in rows:
        line = [row.title]
        for i, metric in enumerate(METRICS):
            line.append(with_spread([run[metric] for run in figures[row.name]]))
            line.append(f"{row.paper[i]:.1f}" if row.paper else "–")
        lines.append([*line, with_spread([run[BOX_METRIC] for run in figures[row.name]])])
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def more_figures_table(titles: dict[str, str], figures: Figures) -> str:
    """Like :func:`figures_table` of a data set that the paper has not, with box AP."""
    metrics = (*METRICS, BOX_METRIC)
    lines = [
        [titles[name], *(with_spread([run[metric] for run in runs]) for metric in metrics)]
        for name, runs in figures.items()
    ]
    headers = ["row", *metrics]
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def steps(
    rows: Sequence[Row], figures: Figures, metric: str
) -> Iterator[tuple[Row, list[float], float | None]]:
    """Return what each row changes of the one before it.

    Yields:
        the row, the differences between its runs and the earlier row's of the same seeds, and the
        paper's difference, None if the paper has none.
    """
    i = METRICS.index(metric)
    by_name = {row.name: row for row in rows}
    for row in rows:
        if row.before in by_name:
            pairs = zip(figures[row.name], figures[row.before], strict=True)
            gains = [after[metric] - earlier[metric] for after, earlier in pairs]
            before = row.paper_before or by_name[row.before].paper
            yield row, gains, row.paper[i] - before[i] if row.paper else None


def direction(gains: Sequence[float], paper: float | None) -> str:
    """Whether a step goes the paper's way: no more can be said of one within its spread."""
    if paper is None or abs(paper) < 0.05:
        return "none in the paper"
    if abs(mean(gains)) <= (spread(gains) or 0.0):
        return "within the spread"
    return "agrees" if mean(gains) * paper > 0 else "DISAGREES"


def steps_table(rows: Sequence[Row], figures: Figures) -> str:
    """Return what each row adds, seed by seed, beside what it adds in the paper."""
    titles = {row.name: row.title for row in rows}
    lines = [
        [row.title, titles[row.before], metric, with_spread(gains, "+")]
        + ["–" if paper is None else f"{paper:+.1f}", direction(gains, paper)]
        for metric in METRICS
        for row, gains, paper in steps(rows, figures, metric)
    ]
    headers = ["row", "after", "metric", "gain", "gain (paper)", "direction"]
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(row.name for row in TABLE_VI)
    others = ", ".join(row.name for row in PHOTOGRAPHS)
    parser.add_argument("--table", choices=TABLES, default="table_vi")
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW", help=f"default: all; {names}; of photographs: {others}"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2], metavar="SEED")
    parser.add_argument(
        "--config-file", help="a LazyConfig of the whole model; default: the table's own"
    )
    parser.add_argument("--output", type=Path, help="default: a folder below output/ablations")
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="CHECKPOINT",
        help="weights of every run's backbone and detector; parsing branches start at random",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at a time; default: 1"
    )
    parser.add_argument(
        "--more-sets",
        nargs="*",
        metavar="NAME",
        help="data sets to evaluate on beside the config's own; none after it: no other; default: "
        "the table's",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides for all runs")
    # Overrides may follow a list of rows or seeds, which would take them in.
    words = sys.argv[1:] if argv is None else argv
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    args = parser.parse_args([*(word for word in words if word not in overrides), "--", *overrides])
    if len(set(args.seeds)) < len(args.seeds):
        parser.error("--seeds: every seed once")
    if args.jobs < 1:
        parser.error("--jobs: at least 1")
    table = TABLES[args.table]
    known = [row.name for row in table.rows]
    args.rows = args.rows or known
    if unknown := sorted(set(args.rows) - set(known)):
        parser.error(f"--rows: no {', '.join(unknown)} in {args.table}; it has {', '.join(known)}")
    for row in table.rows:
        if row.name in args.rows and row.weights_of not in (None, *args.rows):
            parser.error(
                f"--rows: {row.name} evaluates weights of the runs of {row.weights_of}; name that "
                "too"
            )
    args.config_file = args.config_file or str(table.config_file)
    args.output = args.output or table.output
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    table = TABLES[args.table]
    if args.more_sets is not None:
        table = replace(table, more_sets=tuple(args.more_sets))
    rows = [row for row in table.rows if row.name in args.rows]
    try:
        small = apply_overrides(load_lazy_config(args.config_file), args.opts)
    except (ConfigError, OSError) as error:
        sys.exit(str(error))
    try:
        check_more_sets(small, table)
    except ConfigError as error:
        sys.exit(f"--more-sets: {error}")
    if args.start_from is not None:
        try:
            small.train.init_checkpoint = str(write_start(args.start_from, args.output))
        except (OSError, WeightFileError) as error:
            sys.exit(f"--start-from: {error}")

    # Seed by seed, so that an early stop leaves whole columns.
    runs = [
        Run(row, seed, run_config(small, row, seed, args.output / f"{row.name}_seed_{seed}"))
        for seed in args.seeds
        for row in rows
    ]
    try:
        results = run_all(runs, table, args.jobs)
    except FileExistsError as error:
        sys.exit(str(error))
    if failed := [str(run) for run, result in zip(runs, results, strict=True) if result is None]:
        print(f"No tables: {'; '.join(failed)} failed. The same call tries again.", file=sys.stderr)
        return 1

    found: Figures = {row.name: [] for row in rows}
    more: dict[str, Figures] = {}
    for run, result in zip(runs, results, strict=True):
        found[run.row.name].append(result.figures)
        for name, figures in result.more.items():
            more.setdefault(name, {}).setdefault(run.row.name, []).append(figures)
    report = (
        f"{small.train.max_iter} iterations a run; mean ± standard deviation over the seeds "
        f"{', '.join(map(str, args.seeds))}, in percent.\n\n{figures_table(rows, found)}\n\n"
        f"Gains over the row named, of runs with the same seed:\n\n{steps_table(rows, found)}\n"
    )
    titles = {row.name: row.title for row in rows}
    for name, of_rows in more.items():
        report += f"\n{name}:\n\n{more_figures_table(titles, of_rows)}\n"
    record = {
        "config_file": os.path.relpath(args.config_file, REPOSITORY),
        "overrides": args.opts,
        "start_from": None if args.start_from is None else str(args.start_from),
        "seeds": args.seeds,
        "figures": found,
        "more_figures": more,
    }
    with whole_file(args.output / "ablation.md") as file:
        file.write(report)
    with whole_file(args.output / "ablation.json") as file:
        json.dump(record, file, indent=2)
    print(f"\n{report}\nTables: {args.output / 'ablation.md'}, {args.output / 'ablation.json'}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("Interrupted. The same call goes on.", file=sys.stderr)
        sys.exit(130)

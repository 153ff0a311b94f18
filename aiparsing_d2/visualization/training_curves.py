"""Curves of a training run, from the ``metrics.json`` that Detectron2's ``JSONWriter`` leaves."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aiparsing_d2.data.json_files import parse_json

__all__ = ["plot_training_curves", "read_metrics"]

Series = tuple[np.ndarray, np.ndarray]

_LINE_STYLES = ("-", "--", ":", "-.")


def plot_training_curves(
    metrics_files: str | os.PathLike | Sequence[str | os.PathLike],
    output_file: str | os.PathLike,
    *,
    metrics: Sequence[str] = ("mIoU", "APp50", "APpvol", "PCP50", "AP50"),
    smoothing: float = 0.05,
) -> None:
    """Plot losses, evaluation metrics and learning rate over the iterations.

    If each run was evaluated once only, the metrics are bars instead of curves of one point.

    Works without a display and leaves matplotlib's settings alone.

    Args:
        metrics_files: ``metrics.json`` of a run, or of several to compare, which are told apart
            by line style and named after their folders, and those above where these are alike.
        output_file: picture to write; the suffix (.png, .pdf, ...) sets the format.
        metrics: evaluation results to show, by the last part of their names.
        smoothing: losses are averaged over windows of this share of a run's logged values; the
            values themselves are shown faintly.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file holds no iterations, is not such a file, or is named twice.
    """
    if isinstance(metrics_files, (str, os.PathLike)):
        metrics_files = [metrics_files]
    figure = Figure(figsize=(16, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, metric_axes, lr_axes = figure.subplots(1, 3, gridspec_kw={"width_ratios": (5, 5, 3)})

    colors: dict[str, str] = {}
    evaluations: dict[str, dict[str, Series]] = {}
    for index, (path, run) in enumerate(zip(metrics_files, _run_names(metrics_files))):
        suffix = f" ({run})" if len(metrics_files) > 1 else ""
        style = {"linestyle": _LINE_STYLES[index % len(_LINE_STYLES)]}
        series = read_metrics(path)
        losses = {name: values for name, values in series.items() if _is_loss(name)}
        # The sum first, and in black, above its parts.
        for name in sorted(losses, key=lambda name: (name != "total_loss", name)):
            iterations, values = losses[name]
            color = "black" if name == "total_loss" else _color_of(name, colors)
            loss_axes.plot(iterations, values, color=color, alpha=0.15, linewidth=1)
            smoothed = _centered_mean(values, round(smoothing * len(values) / 2))
            loss_axes.plot(iterations, smoothed, color=color, label=name + suffix, **style)
        evaluations[suffix] = {
            name: values
            for name, values in series.items()
            if "/" in name and name.rsplit("/", 1)[1] in metrics
        }
        if "lr" in series:
            lr_axes.plot(*series["lr"], color="black", label=run, **style)

    loss_axes.set_yscale("log")
    _finish(loss_axes, "Training losses", "loss (smoothed)")
    _plot_evaluations(metric_axes, evaluations, colors)
    _finish(lr_axes, "Learning rate", "", legend=len(metrics_files) > 1)
    figure.savefig(output_file)


def read_metrics(path: str | os.PathLike) -> dict[str, Series]:
    """Read what a run has logged.

    A run that was resumed has logged some iterations twice; the later values count. The last line
    may be incomplete, as after a crash.

    Args:
        path: ``metrics.json``: one JSON object with an "iteration" a line.

    Returns:
        For each logged name its iterations, int64 (K,), ascending, and values, float64 (K,).

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: a line is not such an object, or there is none.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path} does not exist. Training writes metrics.json into its output folder."
        )
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line for line in file.read().split("\n") if line.strip()]
    logged: dict[str, dict[int, float]] = defaultdict(dict)
    for number, line in enumerate(lines, start=1):
        try:
            values = parse_json(line)
            iteration = int(values.pop("iteration"))
            numbers = {k: float(v) for k, v in values.items() if isinstance(v, (int, float))}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as e:
            if number == len(lines) and logged:
                break
            raise ValueError(
                f"{path}, line {number}, is not a JSON object with an 'iteration'."
            ) from e
        for name, value in numbers.items():
            logged[name][iteration] = value
    if not logged:
        raise ValueError(f"{path} holds no logged iterations.")
    series = {}
    for name, value_at in logged.items():
        iterations = sorted(value_at)
        values = [value_at[iteration] for iteration in iterations]
        series[name] = (np.array(iterations, dtype=np.int64), np.array(values, dtype=np.float64))
    return series


def _plot_evaluations(
    axes: Axes, evaluations: dict[str, dict[str, Series]], colors: dict[str, str]
) -> None:
    """Curves over the iterations, or bars if there is one evaluation of each run.

    Args:
        axes: to draw into.
        evaluations: the metrics of each run, by what its labels end with.
        colors: see :func:`_color_of`.
    """
    bars = [
        (f"{name}{suffix}", values[-1], name)
        for suffix, metrics in evaluations.items()
        for name, (_, values) in metrics.items()
    ]
    if bars and all(len(v) == 1 for metrics in evaluations.values() for _, v in metrics.values()):
        labels, values, names = zip(*bars)
        places, widths = range(len(bars)), np.nan_to_num(values)
        drawn = axes.barh(places, widths, color=[_color_of(name, colors) for name in names])
        axes.set_yticks(places, labels)
        axes.bar_label(drawn, [f"{value:.1f}" for value in values], padding=3)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        iterations = {its[-1] for metrics in evaluations.values() for its, _ in metrics.values()}
        when = f", iteration {iterations.pop()}" if len(iterations) == 1 else ""
        axes.set_title(f"Evaluation{when}")
        axes.set_xlabel("percent")
        axes.spines[["top", "right"]].set_visible(False)
        return
    for index, (suffix, metrics) in enumerate(evaluations.items()):
        for name, (iterations, values) in metrics.items():
            axes.plot(
                iterations,
                values,
                color=_color_of(name, colors),
                marker="o",
                markersize=4,
                label=f"{name} {values[-1]:.1f}{suffix}",
                linestyle=_LINE_STYLES[index % len(_LINE_STYLES)],
            )
    axes.set_ylim(0, 100)
    _finish(axes, "Evaluation (legend: last value)", "percent")


def _run_names(metrics_files: Sequence[str | os.PathLike]) -> list[str]:
    """Folders of runs, with as many of those above as tell them apart.

    The files are named too where several lie in one folder.

    Raises:
        ValueError: a file is named twice.
    """
    files = [Path(os.path.abspath(path)) for path in metrics_files]
    for file in files:
        if files.count(file) > 1:
            raise ValueError(f"{file} is named twice.")
    paths = [file.parent.parts for file in files]
    if len(set(paths)) < len(paths):
        paths = [file.parts for file in files]
    depth = 1
    while len({parts[-depth:] for parts in paths}) < len(paths):
        depth += 1
    return [str(Path(*parts[-depth:])) for parts in paths]


def _is_loss(name: str) -> bool:
    return "loss" in name and "/" not in name


def _color_of(name: str, colors: dict[str, str]) -> str:
    """Return the same of matplotlib's ten standard colours for the same name in all runs."""
    return colors.setdefault(name, f"C{len(colors) % 10}")


def _centered_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """Mean of each value with up to ``reach`` values on either side, as many on both.

    What is not finite is left out; NaN where nothing else is there.
    """
    positions = np.arange(len(values))
    reach = np.minimum(reach, np.minimum(positions, len(values) - 1 - positions))
    finite = np.isfinite(values)
    sums, counts = (
        np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(finite, values, 0.0), finite)
    )
    in_reach = counts[positions + reach + 1] - counts[positions - reach]
    totals = sums[positions + reach + 1] - sums[positions - reach]
    return np.where(in_reach > 0, totals / np.maximum(in_reach, 1), np.nan)


def _finish(axes: Axes, title: str, ylabel: str, legend: bool = True) -> None:
    axes.set_title(title)
    axes.set_xlabel("iteration")
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines and legend:
        axes.legend(fontsize="small", frameon=False)
    elif not axes.lines:
        axes.text(0.5, 0.5, "nothing logged yet", transform=axes.transAxes, ha="center")

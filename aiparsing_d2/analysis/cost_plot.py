"""Plots of how cost grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aiparsing_d2.whole_files import check_writable, whole_file

__all__ = ["check_plot_file", "plot_costs"]

_AXES = {
    "people": "people",
    "count": "people or images",
    "classes": "classes",
    "pixels": "pixels",
    "processes": "processes",
}
_COUNTED = ("people", "count", "classes", "processes")
_FACTS = ("work", "way", "version", "precision", *_COUNTED, "image_size")


def check_plot_file(file: Path) -> None:
    """See whether :func:`plot_costs` can write a file, before what it shows is measured.

    Raises:
        ValueError: it is no format of pictures.
        OSError: the file cannot be written.
    """
    formats = FigureCanvasAgg.get_supported_filetypes()
    if _format(file) not in formats:
        raise ValueError(f"--plot {file} has to end with .{', .'.join(sorted(formats))}")
    check_writable(file.parent)


def plot_costs(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Plot time, or memory, against what varies most; a line for each setting of the rest.

    Works without a display and leaves matplotlib's settings alone.

    Args:
        rows: of a report.
        file: picture to write; the suffix (.png, .pdf, ...) sets the format.

    Raises:
        ValueError: no figure was measured.
    """
    key, unit = ("ms", "milliseconds") if rows and "ms" in rows[0] else ("peak_mib", "MiB")
    points = [_with_pixels(row) for row in rows if row[key] is not None]
    if not points:
        raise ValueError("nothing was measured that could be plotted")
    axis = max(_AXES, key=lambda name: len({point.get(name) for point in points}))
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        lines.setdefault(_name(point, points, axis), []).append((point[axis], point[key]))
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, line in lines.items():
        axes.plot(*zip(*sorted(line)), marker="o", label=name or None)
    axes.set(xlabel=_AXES[axis], ylabel=unit, ylim=(0, None))
    axes.grid(alpha=0.3)
    if any(lines):
        axes.legend()
    with whole_file(file, "wb") as stream:
        figure.savefig(stream, format=_format(file))


def _format(file: Path) -> str:
    return file.suffix.removeprefix(".").lower()


def _with_pixels(row: Mapping[str, Any]) -> dict[str, Any]:
    height, width = row["image_size"]
    return {**row, "image_size": f"{height}x{width}", "pixels": height * width}


def _name(point: Mapping[str, Any], points: Sequence[Mapping[str, Any]], axis: str) -> str:
    """Return what tells a line from the others."""
    hidden = {axis, "image_size"} if axis == "pixels" else {axis}
    facts = [
        (name, point[name])
        for name in _FACTS
        if name in point and name not in hidden and len({other.get(name) for other in points}) > 1
    ]
    return ", ".join(f"{value} {name}" if name in _COUNTED else str(value) for name, value in facts)

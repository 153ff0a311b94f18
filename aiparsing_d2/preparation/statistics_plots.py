"""Pictures of :class:`~aiparsing_d2.preparation.statistics.SplitStatistics`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from aiparsing_d2.counted import counted
from aiparsing_d2.whole_files import whole_file

from .statistics import PLOT_NAMES, SplitStatistics

__all__ = ["plot_statistics"]


def plot_statistics(statistics: Mapping[str, SplitStatistics], folder: Path, title: str) -> None:
    """Draw the figures of some splits into the same pictures.

    Works without a display and leaves matplotlib's settings alone. Earlier pictures are replaced.

    Args:
        statistics: by split, of the same label set; each has somebody in it.
        folder: where to put the pictures named in ``PLOT_NAMES``.
        title: the data set's name.
    """
    num_parts = max(len(split.parts) for split in statistics.values())
    sizes = (8, 4.5), (15, 2 + 0.22 * num_parts), (15, 4.5)
    for name, size, draw in zip(PLOT_NAMES, sizes, (_draw_people, _draw_parts, _draw_boxes)):
        figure = Figure(figsize=size, dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title)
        draw(figure, statistics)
        with whole_file(folder / name, "wb") as file:
            figure.savefig(file, format="png")


def _draw_people(figure: Figure, statistics: Mapping[str, SplitStatistics]) -> None:
    axes = figure.subplots()
    width, offsets = _bars_beside_each_other(len(statistics))
    for (name, split), offset in zip(statistics.items(), offsets):
        numbers = np.array(list(split.people_per_image))
        shares = np.array(list(split.people_per_image.values())) / split.num_images
        mean = split.num_people / split.num_images
        label = f"{name}: {counted(split.num_images, 'image')}, {mean:.2f} people on average"
        axes.bar(numbers + offset, shares, width, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _finish(axes, "People per image", "people", "images")


def _draw_parts(figure: Figure, statistics: Mapping[str, SplitStatistics]) -> None:
    in_images, in_people, in_pixels = figure.subplots(1, 3, sharey=True)
    height, offsets = _bars_beside_each_other(len(statistics))
    for (name, split), offset in zip(statistics.items(), offsets):
        places = np.array([part.label for part in split.parts]) + offset
        counts = np.array([(part.images, part.people, part.pixels) for part in split.parts])
        totals = split.num_images, split.num_people, counts[:, 2].sum()
        shares = counts / np.maximum(totals, 1)
        for axes, values in zip((in_images, in_people, in_pixels), shares.T):
            axes.barh(places, values, height, label=name)
    parts = next(iter(statistics.values())).parts
    labels = [part.label for part in parts]
    in_images.set_yticks(labels, [f"{part.name} ({part.label})" for part in parts])
    in_images.set_ylim(max(labels) + 0.6, min(labels) - 0.6)
    for axes, what in ((in_images, "images"), (in_people, "people"), (in_pixels, "pixels")):
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        _finish(axes, f"Part frequencies: {what}", f"{what} with the part", "")
    in_pixels.set_xlabel("pixels of people")
    in_pixels.legend(loc="lower right")
    for axes in (in_images, in_people):
        axes.get_legend().remove()


def _draw_boxes(figure: Figure, statistics: Mapping[str, SplitStatistics]) -> None:
    of_size, of_shape, of_share = figure.subplots(1, 3)
    longest = max(split.boxes.max() for split in statistics.values())
    for name, split in statistics.items():
        width, height = split.boxes.T
        weights = np.full(split.num_people, 1 / split.num_people)
        owners = np.repeat(np.arange(split.num_images), split.people_in_image)
        image_area = split.image_sizes.prod(axis=1)[owners]
        for axes, values, bins in (
            (of_size, np.sqrt(width * height), np.linspace(0, longest, 41)),
            (of_shape, width / height, np.linspace(0, 2.5, 41)),
            (of_share, np.sqrt(width * height / image_area), np.linspace(0, 1, 41)),
        ):
            values = np.minimum(values, bins[-1])
            axes.hist(values, bins, weights=weights, histtype="step", linewidth=1.5, label=name)
    _finish(of_size, "Box size", "square root of the box's area in pixels", "people")
    _finish(of_shape, "Box shape", "width / height (2.5: or more)", "people")
    _finish(of_share, "Box size in the image", "square root of the share of the image", "people")
    for axes in (of_size, of_shape, of_share):
        axes.yaxis.set_major_formatter(PercentFormatter(1))


def _bars_beside_each_other(number: int) -> tuple[float, np.ndarray]:
    """Thickness of each of ``number`` bars at a place, and their offsets from it."""
    thickness = 0.8 / number
    return thickness, (np.arange(number) - (number - 1) / 2) * thickness


def _finish(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", frameon=False)

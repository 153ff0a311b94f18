"""Which colour is which part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from aiparsing_d2.structures.part_labels import IGNORE_LABEL, PartLabels

from .box_labels import load_font, text_size

__all__ = [
    "INK_COLOR",
    "PAPER_COLOR",
    "LegendEntry",
    "draw_legend",
    "noticeable_labels",
    "part_legend",
    "with_legend",
]

PAPER_COLOR = (255, 255, 255)
INK_COLOR = (40, 40, 40)

# Of the pixels of the largest person: 40 of one who is 200 wide and 400 high.
_NOTICEABLE_SHARE = 0.001

LegendEntry = tuple[str, tuple[int, int, int]]
"""A name and its RGB colour."""


def noticeable_labels(labels: np.ndarray, people: np.ndarray) -> list[int]:
    """List the labels that are seen in a picture, without those of a few pixels.

    Args:
        labels: uint8 (H, W), label of every pixel.
        people: uint8 or uint16 (H, W), who is seen at every pixel; 0 for nobody.

    Returns:
        The labels, in order, of which all people together show at least 0.1 % as many pixels as the
        largest person has.
    """
    largest = _count(people)[1:].max(initial=0)
    counts = _count(labels)
    return np.flatnonzero(counts >= max(1, _NOTICEABLE_SHARE * largest)).tolist()


def _count(values: np.ndarray) -> np.ndarray:
    """Do what ``np.bincount`` does, in a fifth of its time for numbers of 8 or 16 bits."""
    end = int(values.max(initial=0)) + 1
    return cv2.calcHist([values], [0], None, [end], [0, end]).ravel().astype(int)


def part_legend(part_labels: PartLabels, labels: Iterable[int]) -> list[LegendEntry]:
    """Legend entries, in order of the labels, without background and ignored pixels.

    Args:
        part_labels: label set that gives names and colours.
        labels: the labels to name.
    """
    parts = sorted(set(labels) - {0, IGNORE_LABEL})
    return [(part_labels.names[label], part_labels.colors[label]) for label in parts]


def draw_legend(
    legend: Sequence[LegendEntry], width: int, font: ImageFont.FreeTypeFont
) -> Image.Image:
    """Draw a legend in as many lines as it needs.

    Args:
        legend: what :func:`part_legend` gives.
        width: of the picture.
        font: of the names; everything else follows its size.
    """
    gap = round(font.size * 0.4)
    line_height = sum(font.getmetrics()) + gap
    lines: list[list[tuple[float, LegendEntry]]] = []
    x = float(width)
    for entry in legend:
        # A square of the colour, the name, and room to the next.
        entry_width = font.size + gap + font.getlength(entry[0]) + 2.5 * gap
        if not lines or (lines[-1] and x + entry_width > width):
            lines.append([])
            x = 0.0
        lines[-1].append((x, entry))
        x += entry_width
    picture = Image.new("RGB", (width, len(lines) * line_height), PAPER_COLOR)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        middle = (number + 0.5) * line_height
        for x, (name, color) in line:
            square = (x, middle - font.size / 2, x + font.size, middle + font.size / 2)
            draw.rectangle(square, fill=color, outline=INK_COLOR)
            draw.text((x + font.size + gap, middle), name, INK_COLOR, font, anchor="lm")
    return picture


def with_legend(drawing: np.ndarray, legend: Sequence[LegendEntry]) -> np.ndarray:
    """Put a legend below a drawing.

    Args:
        drawing: uint8 (H, W, 3), RGB.
        legend: what :func:`part_legend` gives. A drawing so small that the legend would be higher
            gets none.

    Returns:
        uint8 (H', W, 3), RGB; as high as it needs to be.
    """
    height, width = drawing.shape[:2]
    font = load_font(text_size(height, width))
    margin = font.size // 2
    entries = np.asarray(draw_legend(legend, max(width - 2 * margin, 1), font))
    if not legend or len(entries) > height:
        return drawing
    sheet = np.empty((height + len(entries) + 2 * margin, width, 3), dtype=np.uint8)
    sheet[:height] = drawing
    sheet[height:] = PAPER_COLOR
    sheet[height + margin : height + margin + len(entries), margin:][:, : entries.shape[1]] = (
        entries
    )
    return sheet

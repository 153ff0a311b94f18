"""Sheets of labelled pictures: image, ground truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from detectron2.structures import Instances
from PIL import Image, ImageDraw

from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import PartLabels

from .box_labels import load_font
from .legend import INK_COLOR, PAPER_COLOR, draw_legend, part_legend
from .parsing_overlay import draw_edges, draw_parsing

__all__ = ["ParsingExample", "image_grid", "result_sheet"]

# In pixels.
_GAP = 12
_TITLE_SIZE, _TITLE_LINE = 18, 24
_SMALL_SIZE, _SMALL_LINE = 13, 22


@dataclass(frozen=True)
class ParsingExample:
    """One row of a sheet.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        ground_truth: the annotated people, if there are annotations.
        prediction: the model's output at the image's size, with ``pred_part_maps`` and, if there
            are, ``pred_boxes`` and ``scores``.
        edges: predicted probability of a part boundary at every pixel, (H, W) in 0..1.
        name: what to write below the row.
        others: what other models made of the image, by the titles of their columns.
        figures: what to write below the pictures of some columns, by the titles.
    """

    image: np.ndarray
    ground_truth: PartMaps | None = None
    prediction: Instances | None = None
    edges: np.ndarray | torch.Tensor | None = None
    name: str = ""
    others: Mapping[str, Instances] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)


def result_sheet(
    examples: Iterable[ParsingExample],
    part_labels: PartLabels,
    *,
    score_threshold: float = 0.3,
    prediction_title: str = "Prediction",
    cell_width: int = 400,
) -> np.ndarray:
    """Draw examples as rows of image, ground truth, predictions and edges.

    All but the image are columns if at least one of the examples has them. Below the rows is a
    legend of the parts that occur.

    Args:
        examples: the rows; drawn one at a time, so that they may be read as they are taken.
        part_labels: label set that gives names and colours.
        score_threshold: predicted people with a lower score are not drawn.
        prediction_title: of the column of ``prediction``.
        cell_width: width of a picture in pixels. Tall pictures are narrower.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        ValueError: there are no examples.
    """
    rows: list[dict[str, np.ndarray]] = []
    names, figures, labels_drawn = [], [], set()
    for example in examples:
        image, truth = example.image, example.ground_truth
        height, width = image.shape[:2]
        scale = min(cell_width / width, 1.25 * cell_width / height)
        nobody = np.zeros((0, height, width), dtype=np.uint8)
        cells = {"Image": draw_parsing(image, nobody, part_labels, scale=scale)}
        if truth is not None:
            cells["Ground truth"] = draw_parsing(image, truth, part_labels, scale=scale)
            labels_drawn.update(_labels_in(truth))
        for title, prediction in {prediction_title: example.prediction, **example.others}.items():
            if prediction is None:
                continue
            if prediction.has("scores"):
                prediction = prediction[prediction.scores >= score_threshold]
            cells[title] = draw_parsing(
                image,
                prediction.pred_part_maps,
                part_labels,
                boxes=prediction.pred_boxes if prediction.has("pred_boxes") else None,
                scores=prediction.scores if prediction.has("scores") else None,
                scale=scale,
            )
            labels_drawn.update(_labels_in(prediction.pred_part_maps))
        if example.edges is not None:
            cells["Predicted edges"] = draw_edges(image, example.edges, scale=scale)
        rows.append(cells)
        names.append(example.name)
        figures.append(example.figures)

    if not rows:
        raise ValueError("No examples to draw.")
    fullest = max(rows, key=len)
    titles = list(dict.fromkeys([*fullest, *(title for cells in rows for title in cells)]))
    return image_grid(
        [[cells.get(title) for title in titles] for cells in rows],
        column_titles=titles,
        row_names=names,
        captions=[[texts.get(title, "") for title in titles] for texts in figures],
        legend=part_legend(part_labels, labels_drawn),
    )


def _labels_in(part_maps: PartMaps) -> set[int]:
    return {label for part_map in part_maps.maps for label in part_map.unique().tolist()}


def image_grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    *,
    column_titles: Sequence[str] = (),
    row_names: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    legend: Sequence[tuple[str, tuple[int, int, int]]] = (),
) -> np.ndarray:
    """Put pictures on a white sheet, in columns as wide as their widest picture.

    Args:
        rows: pictures, uint8 (h, w, 3) RGB; None leaves a cell empty.
        column_titles: a title above each column.
        row_names: a line below each row; an empty one takes no space.
        captions: a line below each picture, in the line of the row's name.
        legend: (name, colour) pairs, written below the rows.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        ValueError: there is no picture, or rows, titles and names differ in number.
    """
    num_columns = len(rows[0]) if rows else 0
    if not any(cell is not None for row in rows for cell in row):
        raise ValueError("No pictures to put on the sheet.")
    if any(len(row) != num_columns for row in rows):
        raise ValueError("The rows of a sheet must have the same number of pictures.")
    if len(column_titles) not in (0, num_columns) or len(row_names) not in (0, len(rows)):
        raise ValueError(
            f"{len(rows)} rows of {num_columns} pictures do not go with {len(column_titles)} "
            f"titles and {len(row_names)} names."
        )
    row_names = row_names or [""] * len(rows)
    captions = captions or [[""] * num_columns] * len(rows)
    has_line = [bool(name or any(texts)) for name, texts in zip(row_names, captions)]
    title_font = load_font(_TITLE_SIZE)
    small_font = load_font(_SMALL_SIZE)

    widths = [max([c.shape[1] for c in column if c is not None] or [0]) for column in zip(*rows)]
    heights = [max([c.shape[0] for c in row if c is not None] or [0]) for row in rows]
    sheet_width = sum(widths) + _GAP * (num_columns + 1)
    legend_picture = draw_legend(legend, max(sheet_width - 2 * _GAP, 1), small_font)
    sheet_height = (
        (_GAP + _TITLE_LINE if column_titles else 0)
        + sum(
            _GAP + height + (_SMALL_LINE if line else 0) for height, line in zip(heights, has_line)
        )
        + _GAP
        + (legend_picture.height + _GAP if legend else 0)
    )
    sheet = Image.new("RGB", (sheet_width, sheet_height), PAPER_COLOR)
    draw = ImageDraw.Draw(sheet)

    y = _GAP
    column_starts = [_GAP + sum(widths[:i]) + i * _GAP for i in range(num_columns)]
    if column_titles:
        for x, width, title in zip(column_starts, widths, column_titles):
            draw.text((x + width / 2, y), title, INK_COLOR, title_font, anchor="ma")
        y += _TITLE_LINE + _GAP
    for row, height, name, texts, line in zip(rows, heights, row_names, captions, has_line):
        for x, width, cell in zip(column_starts, widths, row):
            if cell is not None:
                left, top = (width - cell.shape[1]) // 2, (height - cell.shape[0]) // 2
                sheet.paste(Image.fromarray(cell), (x + left, y + top))
        y += height
        draw.text((_GAP, y + 2), name, INK_COLOR, small_font)
        for x, width, text in zip(column_starts, widths, texts):
            draw.text((x + width / 2, y + 2), text, INK_COLOR, small_font, anchor="ma")
        y += _SMALL_LINE * line
        y += _GAP
    sheet.paste(legend_picture, (_GAP, y))
    return np.asarray(sheet)

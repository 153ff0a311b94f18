"""Drawing people's parts, boxes and scores over an image.

Everything is drawn at the size of the picture that comes out, so that lines and letters stay sharp
when a small image is shown large.

Shape shorthand:
    N: number of people. H, W: size of the image in pixels.
    H', W': size of the drawing, ``round(scale * H)`` and ``round(scale * W)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes
from PIL import Image, ImageDraw

from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.painting import paint_people, visible_labels, visible_people
from aiparsing_d2.structures.part_labels import PartLabels

from .box_labels import draw_boxes, line_width, person_color

__all__ = ["draw_edges", "draw_parsing"]

_OUTLINE_COLOR = (255, 255, 255)
# Of the outlines between a person's parts: how much of its brightness a pixel keeps.
_PART_OUTLINE_BRIGHTNESS = 0.45
_EDGE_COLOR = (255, 255, 255)
# Dashes of both greys are seen on any ground.
_IGNORE_BOX_COLORS = ((210, 210, 210), (90, 90, 90))


def draw_parsing(
    image: np.ndarray,
    part_maps: PartMaps | np.ndarray | torch.Tensor,
    part_labels: PartLabels,
    *,
    boxes: Boxes | np.ndarray | torch.Tensor | None = None,
    scores: np.ndarray | torch.Tensor | None = None,
    track_ids: Sequence[int] | np.ndarray | torch.Tensor | None = None,
    ignore_boxes: Boxes | np.ndarray | torch.Tensor | None = None,
    color_by: Literal["part", "person"] = "part",
    alpha: float = 0.7,
    scale: float = 1.0,
) -> np.ndarray:
    """Draw parts in colours over an image, outlines around parts and people and, if given, boxes.

    Where people overlap, the one with the higher score is on top; without scores, the later one.
    Lines and letters are as large as suits the drawing.

    Args:
        image: uint8 (H, W, 3), RGB.
        part_maps: the people, as :class:`PartMaps` or as full-size uint8 maps (N, H, W).
        part_labels: label set that gives the colours. Ignored pixels are light grey.
        boxes: (N, 4) XYXY in image pixels.
        scores: (N,), written on the boxes; without boxes only the order is taken from them.
        track_ids: (N,), who the people are, from 1: written before the scores, and each person of a
            video keeps a colour. Without them, colours follow the order of the people.
        ignore_boxes: (M, 4) XYXY in image pixels, of people without labels; dashed and grey.
        color_by: "part", or "person" for one colour a person, which is also that of the box.
        alpha: opacity of the colours, 0..1.
        scale: size of the drawing relative to the image.

    Returns:
        uint8 (H', W', 3), RGB.

    Raises:
        ValueError: the sizes do not fit together, a label is out of range, or there is no such
            ``color_by``.
    """
    if not isinstance(part_maps, PartMaps):
        part_maps = PartMaps.from_full(part_maps)
    boxes = None if boxes is None else _as_array(getattr(boxes, "tensor", boxes))
    scores = None if scores is None else _as_array(scores)
    track_ids = None if track_ids is None else _as_array(track_ids)
    if color_by not in ("part", "person"):
        raise ValueError(f"color_by is {color_by!r}, not 'part' or 'person'")
    if part_maps.image_size != image.shape[:2]:
        raise ValueError(
            f"Part maps of an image of size {part_maps.image_size} do not fit an image of shape "
            f"{image.shape}."
        )
    for name, values in (("boxes", boxes), ("scores", scores), ("track_ids", track_ids)):
        if values is not None and len(values) != len(part_maps):
            raise ValueError(f"{len(part_maps)} people, but {len(values)} {name}.")

    from_back_to_front = range(len(part_maps))
    if scores is not None:
        from_back_to_front = np.argsort(scores, kind="stable").tolist()
    picture = paint_people(
        part_maps.to_cropped_maps(), reversed(from_back_to_front), part_maps.image_size
    )
    drawing = _resize(image, scale, cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    labels = _resize(visible_labels(picture), scale, cv2.INTER_NEAREST)
    owners = _resize(visible_people(picture), scale, cv2.INTER_NEAREST)
    numbers = range(1, len(part_maps) + 1) if track_ids is None else track_ids.tolist()
    person_colors = [person_color(number) for number in numbers]
    if color_by == "part":
        colors = part_labels.colorize(labels)
    else:
        colors = np.array([(0, 0, 0), *person_colors], dtype=np.uint8)[owners]
    covered = owners > 0
    blended = cv2.addWeighted(drawing, 1 - alpha, colors, alpha, 0)
    cv2.copyTo(blended, covered.astype(np.uint8), drawing)
    width = line_width(*drawing.shape[:2])
    if color_by == "part":
        between = (cv2.dilate(labels, _disc(max(1, width // 2))) != labels) & covered
        drawing[between] = np.rint(drawing[between] * _PART_OUTLINE_BRIGHTNESS)
    drawing[_outlines(owners, width) & covered] = _OUTLINE_COLOR
    if boxes is not None:
        words = [
            " ".join(
                ([] if track_ids is None else [f"#{track_ids[n]}"])
                + ([] if scores is None else [f"{scores[n]:.2f}"])
            )
            for n in range(len(part_maps))
        ]
        drawing = draw_boxes(drawing, boxes * scale, person_colors, words, from_back_to_front)
    if ignore_boxes is not None:
        ignore_boxes = _as_array(getattr(ignore_boxes, "tensor", ignore_boxes))
        drawing = _draw_dashed_boxes(drawing, ignore_boxes * scale)
    return drawing


def draw_edges(
    image: np.ndarray, edges: np.ndarray | torch.Tensor, *, scale: float = 1.0
) -> np.ndarray:
    """Draw part boundaries in white over a darkened image.

    Args:
        image: uint8 (H, W, 3), RGB.
        edges: (H, W), probability of a boundary in 0..1, or bool.
        scale: size of the drawing relative to the image.

    Returns:
        uint8 (H', W', 3), RGB.

    Raises:
        ValueError: the sizes differ.
    """
    edges = _as_array(edges).astype(np.float32)
    if edges.shape != image.shape[:2]:
        raise ValueError(f"Edges of shape {edges.shape}, but an image of shape {image.shape}.")
    drawing = _resize(image, scale, cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    opacity = _resize(edges.clip(0, 1), scale, cv2.INTER_LINEAR)[..., None]
    drawing = (1 - opacity) * (drawing * 0.35) + opacity * np.array(_EDGE_COLOR)
    return np.rint(drawing).astype(np.uint8)


def _as_array(values: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def _resize(image: np.ndarray, scale: float, interpolation: int) -> np.ndarray:
    """Resized copy of an (H, W) or (H, W, 3) array."""
    height, width = (max(1, round(scale * side)) for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image.copy()
    return cv2.resize(image, (width, height), interpolation=interpolation)


def _outlines(owners: np.ndarray, width: int) -> np.ndarray:
    """Pixels, bool (H, W), that are no farther than ``width`` from those of somebody else."""
    near = _disc(width)
    return cv2.dilate(owners, near) != cv2.erode(owners, near)


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _draw_dashed_boxes(drawing: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Draw boxes, in coordinates of the drawing, with sides that lie inside them."""
    canvas = Image.fromarray(drawing)
    draw = ImageDraw.Draw(canvas)
    width = line_width(*drawing.shape[:2])
    dash = 4 * width
    for x0, y0, x1, y1 in boxes.round().astype(int).tolist():
        if not (x1 > x0 and y1 > y0):
            continue
        light, dark = _IGNORE_BOX_COLORS
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=dark, width=width)
        for x in range(x0, x1, 2 * dash):
            right = min(x + dash, x1) - 1
            draw.rectangle((x, y0, right, min(y0 + width, y1) - 1), fill=light)
            draw.rectangle((x, max(y1 - width, y0), right, y1 - 1), fill=light)
        for y in range(y0, y1, 2 * dash):
            bottom = min(y + dash, y1) - 1
            draw.rectangle((x0, y, min(x0 + width, x1) - 1, bottom), fill=light)
            draw.rectangle((max(x1 - width, x0), y, x1 - 1, bottom), fill=light)
    return np.asarray(canvas)

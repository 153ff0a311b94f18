"""Drawing people's parts, boxes and scores over an image.

Everything is drawn at the size of the picture that comes out, so that lines and letters stay sharp
when a small image is shown large.

Shape shorthand:
    N: number of people. H, W: size of the image in pixels.
    H', W': size of the drawing, ``round(scale * H)`` and ``round(scale * W)``.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes
from PIL import Image, ImageDraw, ImageFont

from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.painting import paint_people, visible_labels, visible_people
from aiparsing_d2.structures.part_labels import PartLabels

__all__ = ["draw_edges", "draw_parsing"]

_OUTLINE_COLOR = (255, 255, 255)
_EDGE_COLOR = (255, 255, 255)
# A colour that no part of the known data sets has.
_BOX_COLOR = (255, 0, 255)
# Dashes of both greys are seen on any ground.
_IGNORE_BOX_COLORS = ((210, 210, 210), (90, 90, 90))


def draw_parsing(
    image: np.ndarray,
    part_maps: PartMaps | np.ndarray | torch.Tensor,
    part_labels: PartLabels,
    *,
    boxes: Boxes | np.ndarray | torch.Tensor | None = None,
    scores: np.ndarray | torch.Tensor | None = None,
    ignore_boxes: Boxes | np.ndarray | torch.Tensor | None = None,
    alpha: float = 0.7,
    scale: float = 1.0,
) -> np.ndarray:
    """Draw part colours over an image, an outline around each person and, if given, boxes.

    Where people overlap, the one with the higher score is on top; without scores, the later one.

    Args:
        image: uint8 (H, W, 3), RGB.
        part_maps: the people, as :class:`PartMaps` or as full-size uint8 maps (N, H, W).
        part_labels: label set that gives the colours. Ignored pixels are light grey.
        boxes: (N, 4) XYXY in image pixels.
        scores: (N,), written on the boxes; without boxes only the order is taken from them.
        ignore_boxes: (M, 4) XYXY in image pixels, of people without labels; dashed and grey.
        alpha: opacity of the part colours, 0..1.
        scale: size of the drawing relative to the image.

    Returns:
        uint8 (H', W', 3), RGB.

    Raises:
        ValueError: the sizes do not fit together or a label is out of range.
    """
    if not isinstance(part_maps, PartMaps):
        part_maps = PartMaps.from_full(part_maps)
    boxes = None if boxes is None else _as_array(getattr(boxes, "tensor", boxes))
    scores = None if scores is None else _as_array(scores)
    if part_maps.image_size != image.shape[:2]:
        raise ValueError(
            f"Part maps of an image of size {part_maps.image_size} do not fit an image of shape "
            f"{image.shape}."
        )
    for name, values in (("boxes", boxes), ("scores", scores)):
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
    covered = owners > 0
    colors = part_labels.colorize(labels)[covered]
    drawing[covered] = np.rint((1 - alpha) * drawing[covered] + alpha * colors).astype(np.uint8)
    drawing[_outlines(owners)] = _OUTLINE_COLOR
    if boxes is not None:
        drawing = _draw_boxes(drawing, boxes * scale, scores, from_back_to_front)
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


def _as_array(values: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def _resize(image: np.ndarray, scale: float, interpolation: int) -> np.ndarray:
    """Resized copy of an (H, W) or (H, W, 3) array."""
    height, width = (max(1, round(scale * side)) for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image.copy()
    return cv2.resize(image, (width, height), interpolation=interpolation)


def _outlines(owners: np.ndarray) -> np.ndarray:
    """Pixels of a person, bool (H', W'), that have a neighbour of another person or of none."""
    padded = np.pad(owners, 1, mode="edge")
    height, width = owners.shape
    neighbours = (
        padded[:height, 1:-1],
        padded[2:, 1:-1],
        padded[1:-1, :width],
        padded[1:-1, 2:],
    )
    return (owners > 0) & np.any([owners != other for other in neighbours], axis=0)


def _draw_boxes(
    drawing: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray | None,
    from_back_to_front: list[int] | range,
) -> np.ndarray:
    """Draw boxes, in coordinates of the drawing, with their scores in the upper left corner."""
    canvas = Image.fromarray(drawing)
    draw = ImageDraw.Draw(canvas)
    short_side = min(canvas.size)
    line_width = _line_width(canvas)
    font = ImageFont.load_default(max(10, short_side / 25))
    for person in from_back_to_front:
        x0, y0, x1, y1 = boxes[person]
        if not (x1 > x0 and y1 > y0):
            continue
        # Ends are exclusive, and Pillow draws the end pixels too.
        draw.rectangle(
            (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=_BOX_COLOR, width=line_width
        )
        if scores is not None:
            text = f"{scores[person]:.2f}"
            corner = (max(x0, 0), max(y0, 0))
            left, top, right, bottom = draw.textbbox(corner, text, font=font)
            draw.rectangle((*corner, right + 2 * line_width, bottom + line_width), fill=_BOX_COLOR)
            draw.text((corner[0] + line_width, corner[1]), text, fill="white", font=font)
    return np.asarray(canvas)


def _draw_dashed_boxes(drawing: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Draw boxes, in coordinates of the drawing, with sides that lie inside them."""
    canvas = Image.fromarray(drawing)
    draw = ImageDraw.Draw(canvas)
    width = _line_width(canvas)
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


def _line_width(canvas: Image.Image) -> int:
    return max(1, round(min(canvas.size) / 200))

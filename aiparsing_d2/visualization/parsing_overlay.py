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
_DARKENED = np.rint(_PART_OUTLINE_BRIGHTNESS * np.arange(256)).astype(np.uint8)
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
    if drawing is image:
        drawing = image.copy()
    if picture.dtype == np.uint32:  # which OpenCV does not resize
        picture = picture.astype(np.int32)
    picture = _resize(picture, scale, cv2.INTER_NEAREST)
    numbers = range(1, len(part_maps) + 1) if track_ids is None else track_ids.tolist()
    person_colors = [person_color(number) for number in numbers]
    width = line_width(*drawing.shape[:2])
    # Everything else stays as it is, and most pixels of a large picture are nobody's.
    x, y, columns, rows = cv2.boundingRect((picture > 0).view(np.uint8))
    if rows:
        # Beside people there is somebody else or nobody, which their outlines show.
        window = np.s_[
            max(y - width, 0) : y + rows + width, max(x - width, 0) : x + columns + width
        ]
        colors = part_labels if color_by == "part" else person_colors
        _draw_people(drawing[window], picture[window], colors, alpha, width)
    if boxes is not None:
        words = [
            " ".join(
                ([] if track_ids is None else [f"#{track_ids[n]}"])
                + ([] if scores is None else [f"{scores[n]:.2f}"])
            )
            for n in range(len(part_maps))
        ]
        draw_boxes(drawing, boxes * scale, person_colors, words, from_back_to_front)
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
    """Resize an (H, W) or (H, W, 3) array; gives the array itself if the size is the same."""
    height, width = (max(1, round(scale * side)) for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return cv2.resize(image, (width, height), interpolation=interpolation)


def _draw_people(
    drawing: np.ndarray,
    picture: np.ndarray,
    colors: PartLabels | Sequence[tuple[int, int, int]],
    alpha: float,
    width: int,
) -> None:
    """Draw painted people and their outlines.

    Args:
        drawing: uint8 (H, W, 3), RGB, is drawn over.
        picture: (H, W), of :func:`paint_people`.
        colors: of the parts, which then are outlined too, or of the people.
        alpha: opacity of the colours, 0..1.
        width: of the outlines, in pixels.
    """
    labels, owners = visible_labels(picture), visible_people(picture)
    covered = (owners > 0).view(np.uint8)
    if isinstance(colors, PartLabels):
        painted = colors.colorize(labels)
    else:
        painted = np.array([(0, 0, 0), *colors], dtype=np.uint8).take(owners, axis=0)
    cv2.addWeighted(drawing, 1 - alpha, painted, alpha, 0, dst=painted)
    cv2.copyTo(painted, covered, drawing)
    if isinstance(colors, PartLabels):
        between = cv2.dilate(labels, _disc(max(1, width // 2))) != labels
        darkened = cv2.LUT(drawing, _DARKENED)
        cv2.copyTo(darkened, between.view(np.uint8) & covered, drawing)
    # Pixels that are no farther than the width of the line from those of somebody else.
    if owners.max() < 256:
        owners = owners.astype(np.uint8)  # twice as fast
    near = _disc(width)
    outlines = cv2.erode(owners, near) != owners
    if owners.max() > 1:
        outlines |= cv2.dilate(owners, near) != owners
    drawing[outlines & (owners > 0)] = _OUTLINE_COLOR


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

"""Boxes with words on them, in sizes that suit the picture, and colours for people."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw_boxes", "line_width", "load_font", "person_color", "text_size"]

Color = tuple[int, int, int]
_Rectangle = tuple[float, float, float, float]

_MIN_TEXT_SIZE = 11


def line_width(height: int, width: int) -> int:
    """Width of the lines of a drawing of that size, in pixels."""
    return max(1, round(min(height, width) / 300))


def text_size(height: int, width: int) -> int:
    """Size of the letters in a drawing of that size, in pixels."""
    return max(_MIN_TEXT_SIZE, round(min(height, width) / 32))


@lru_cache(maxsize=8)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, which comes with matplotlib."""
    import matplotlib  # takes a moment to import: only where words are drawn

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def person_color(number: int) -> Color:
    """Give a person's colour, RGB; numbers that are near each other have colours that are not."""
    # Around the colour circle by the golden section, beginning with magenta, in three shades.
    hue = (5 / 6 + 0.618034 * (number - 1)) % 1
    saturation, value = ((1.0, 1.0), (0.6, 1.0), (1.0, 0.75))[(number - 1) // 8 % 3]
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def draw_boxes(
    drawing: np.ndarray,
    boxes: np.ndarray,
    colors: Sequence[Color],
    words: Sequence[str],
    from_back_to_front: Sequence[int],
) -> None:
    """Draw boxes, and words at a corner of each where they hide no other words, if there is one.

    Args:
        drawing: uint8 (H, W, 3), RGB, is drawn over.
        boxes: (N, 4) XYXY in pixels of the drawing. Empty ones are left out.
        colors: of each box.
        words: for each box; "" for none.
        from_back_to_front: indices of the boxes, in the order of drawing.
    """
    height, width = drawing.shape[:2]
    line = line_width(height, width)
    font = load_font(text_size(height, width))
    shown = [person for person in from_back_to_front if _is_seen(boxes[person], height, width)]
    for person in shown:
        _draw_box(drawing, boxes[person], colors[person], line)
    taken: list[_Rectangle] = []
    for person in reversed(shown):  # those in front choose first
        if words[person]:
            place = _place_words((height, width), words[person], font, boxes[person], line, taken)
            taken.append(place)
            _draw_words(drawing, words[person], font, place, colors[person], line)


def _draw_box(drawing: np.ndarray, box: np.ndarray, color: Color, line: int) -> None:
    """Draw the four lines inside the box, whose ends are exclusive; at least one pixel wide."""
    x0, y0 = (int(start) for start in box[:2])
    x1, y1 = (int(max(start, end - 1)) + 1 for start, end in zip(box[:2], box[2:]))
    for top, bottom, left, right in (
        (y0, min(y0 + line, y1), x0, x1),
        (max(y1 - line, y0), y1, x0, x1),
        (y0, y1, x0, min(x0 + line, x1)),
        (y0, y1, max(x1 - line, x0), x1),
    ):
        drawing[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = color


def _is_seen(box: np.ndarray, height: int, width: int) -> bool:
    x0, y0, x1, y1 = box
    return bool(x1 > x0 and y1 > y0 and x1 > 0 and y1 > 0 and x0 < width and y0 < height)


def _place_words(
    picture_size: tuple[int, int],
    words: str,
    font: ImageFont.FreeTypeFont,
    box: np.ndarray,
    line: int,
    taken: Sequence[_Rectangle],
) -> _Rectangle:
    """Find a place inside the picture, at the box, that covers the least of those that are taken.

    Returns:
        XYXY.
    """
    picture_height, picture_width = picture_size
    width = font.getlength(words) + 4 * line
    height = sum(font.getmetrics()) + line
    x0, y0, x1, y1 = box
    places = []
    # On top, where no face is, inside at the top, inside at the bottom, below; left, right.
    for top in (y0 - height, y0, y1 - height, y1):
        for left in (x0, x1 - width):
            left = min(max(left, 0), max(picture_width - width, 0))
            top = min(max(top, 0), max(picture_height - height, 0))
            places.append((left, top, left + width, top + height))
    return min(places, key=lambda place: sum(_overlap(place, other) for other in taken))


def _overlap(a: _Rectangle, b: _Rectangle) -> float:
    """Area that two rectangles share."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _draw_words(
    drawing: np.ndarray,
    words: str,
    font: ImageFont.FreeTypeFont,
    place: _Rectangle,
    color: Color,
    line: int,
) -> None:
    left, top, right, bottom = place
    # Only what is drawn on is converted for Pillow and back; letters may end below the place.
    x, y = int(left), int(top)
    patch = drawing[y : int(bottom) + font.size, x : int(right) + font.size]
    canvas = Image.fromarray(patch)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((left - x, top - y, right - x - 1, bottom - y - 1), fill=color)
    red, green, blue = color
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 125 else "white"
    draw.text((left - x + 2 * line, top - y), words, fill=ink, font=font)
    patch[:] = canvas

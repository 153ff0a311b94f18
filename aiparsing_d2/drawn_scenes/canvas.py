"""The canvas on which one figure is drawn: colours, labels and coverage together."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from .fabric import Colour, Fabric, Pattern, noise_window
from .geometry import Outline
from .parts import Detail, Part

# One RGB colour (0..255), or a function that gives the colours of canvas pixels: called with x of
# shape (1, w) and y of shape (h, 1), it returns uint8 RGB of shape (h, w, 3).
Paint = Colour | Callable[[np.ndarray, np.ndarray], np.ndarray]

_SUBPIXEL_BITS = 4
_FULL_GAIN = 200  # the shading that leaves a colour as it is; 255 is brighter


def fabric_paint(
    fabric: Fabric, origin: np.ndarray, along: np.ndarray, pixels_per_unit: float
) -> Paint:
    """Return a fabric laid from ``origin`` with its length running in the direction ``along``
    (pixels).
    """
    if fabric.pattern is Pattern.PLAIN:
        return fabric.base
    length = max(float(np.hypot(*along)), 1e-6)
    ax, ay = (float(a) for a in along / length / pixels_per_unit)
    ox, oy = (float(o) for o in origin)

    def paint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = x - ox, y - oy
        return fabric.colours(x * ay - y * ax, x * ax + y * ay)

    return paint


class FigureCanvas:
    """A window of the image at a finer scale, on which shapes are laid over each other.

    Every shape writes its colours and its labels through one mask, so they can never disagree.

    Args:
        width, height: size in canvas pixels.
        light: -1 for light from the left, 1 for light from the right.
        grain: place (x, y) in the tile of noise that roughens the colours.

    Attributes:
        rgb: uint8 (height, width, 3); 0 where nothing was drawn.
        label: uint8 (height, width), part labels.
        detail: uint8 (height, width), what the part labels do not tell apart.
        covered: uint8 (height, width), 255 where anything was drawn, else 0.
    """

    def __init__(self, width: int, height: int, light: float, grain: tuple[int, int]) -> None:
        self.rgb = np.zeros((height, width, 3), dtype=np.uint8)
        self.label = np.zeros((height, width), dtype=np.uint8)
        self.detail = np.zeros((height, width), dtype=np.uint8)
        self.covered = np.zeros((height, width), dtype=np.uint8)
        self._light = light
        noise = noise_window(8, *grain, width, height)
        self._base_gain = (0.64 * _FULL_GAIN + 7 * (1 + noise)).astype(np.uint8)

    def fill(
        self,
        outlines: Sequence[Outline],
        paint: Paint,
        part: Part,
        *,
        detail: Detail = Detail.NONE,
        holes: Sequence[Outline] = (),
        relief: float = 6.0,
        shadow: float = 0.35,
    ) -> None:
        """Lay one shape, the union of closed outlines, over what is there.

        Args:
            outlines: outlines (n, 2) in canvas pixels; each is filled on its own.
            paint: its colours.
            part: label of the shape, ``Part.BACKGROUND`` for things that are no part of the
                person.
            detail: what it is where ``part`` does not tell.
            holes: outlines cut out of the shape.
            relief: width in canvas pixels of the shading at the rim.
            shadow: darkness of the soft shadow on what lies below, 0..1.
        """
        window = self._rasterise(outlines, holes, margin=int(relief) + 2)
        if window is not None:
            self.fill_mask(*window, paint, part, detail=detail, relief=relief, shadow=shadow)

    def fill_mask(
        self,
        left: int,
        top: int,
        mask: np.ndarray,
        paint: Paint,
        part: Part,
        *,
        detail: Detail = Detail.NONE,
        relief: float = 6.0,
        shadow: float = 0.35,
    ) -> None:
        """As ``fill``, for a mask (h, w), uint8 of 0 and 255, whose corner is at (left, top)."""
        window = self._window(left, top, mask)
        rgb = self.rgb[window]
        reach = max(int(relief), 1)
        size = (2 * reach + 1, 2 * reach + 1)
        if shadow > 0:
            near = cv2.convertScaleAbs(cv2.blur(mask, size), alpha=-shadow, beta=255)
            cv2.multiply(rgb, cv2.merge([near] * 3), dst=rgb, scale=1 / 255)
        # The mean over a box that lies on the side away from the light is high at the lit rim and
        # low at the dark one.
        anchor = (reach + int(0.6 * self._light * reach), reach - int(0.4 * reach))
        lit = cv2.convertScaleAbs(
            cv2.blur(mask, size, anchor=anchor), alpha=0.36 * _FULL_GAIN / 255
        )
        gain = cv2.add(lit, self._base_gain[window])
        colours = self._colours(paint, left, top, mask.shape)
        if colours is None:
            ramp = np.arange(256)[:, None] / _FULL_GAIN * np.asarray(paint)
            shaded = cv2.applyColorMap(gain, np.clip(ramp, 0, 255).astype(np.uint8)[:, None])
        else:
            shaded = cv2.multiply(colours, cv2.merge([gain] * 3), scale=1 / _FULL_GAIN)
        cv2.copyTo(shaded, mask, rgb)
        cv2.copyTo(np.full_like(mask, part), mask, self.label[window])
        cv2.copyTo(np.full_like(mask, detail), mask, self.detail[window])
        cv2.bitwise_or(self.covered[window], mask, dst=self.covered[window])

    def mark(self, outlines: Sequence[Outline], part: Part, detail: Detail) -> None:
        """Set the detail of what is there of one part inside the outlines; colours stay."""
        window = self._rasterise(outlines, (), margin=1)
        if window is not None:
            left, top, mask = window
            place = self._window(left, top, mask)
            self.detail[place][(mask > 0) & (self.label[place] == part)] = detail

    def decorate(self, outlines: Sequence[Outline], paint: Paint, part: Part) -> None:
        """Colour what is there of one part inside the outlines; labels stay as they are."""
        window = self._rasterise(outlines, (), margin=1)
        if window is not None:
            self.decorate_mask(*window, paint, part)

    def decorate_mask(
        self, left: int, top: int, mask: np.ndarray, paint: Paint, part: Part
    ) -> None:
        """As ``decorate``, for a mask (h, w) of 0 and 255 whose corner is at (left, top)."""
        window = self._window(left, top, mask)
        inside = (mask > 0) & (self.label[window] == part) & (self.covered[window] > 0)
        colours = self._colours(paint, left, top, mask.shape)
        if colours is None:
            self.rgb[window][inside] = np.clip(paint, 0, 255).astype(np.uint8)
        else:
            np.copyto(self.rgb[window], colours, where=inside[..., None])

    @staticmethod
    def _window(left: int, top: int, mask: np.ndarray) -> tuple[slice, slice]:
        return np.s_[top : top + mask.shape[0], left : left + mask.shape[1]]

    @staticmethod
    def _colours(paint: Paint, left: int, top: int, shape: tuple[int, int]) -> np.ndarray | None:
        """Colours of a window of a paint that has more than one."""
        if not callable(paint):
            return None
        x = np.arange(left, left + shape[1], dtype=np.float32)[None] + 0.5
        y = np.arange(top, top + shape[0], dtype=np.float32)[:, None] + 0.5
        return paint(x, y)

    def _rasterise(
        self, outlines: Sequence[Outline], holes: Sequence[Outline], margin: int
    ) -> tuple[int, int, np.ndarray] | None:
        """Corner (left, top) and mask of a window around a shape; None outside of the canvas."""
        polygons = [*outlines, *holes]
        points = polygons[0] if len(polygons) == 1 else np.concatenate(polygons)
        fixed = np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        num_outer = sum(map(len, outlines))
        x, y, width, height = cv2.boundingRect(fixed[:num_outer])
        left = max((x >> _SUBPIXEL_BITS) - margin, 0)
        top = max((y >> _SUBPIXEL_BITS) - margin, 0)
        right = min((x + width >> _SUBPIXEL_BITS) + 1 + margin, self.label.shape[1])
        bottom = min((y + height >> _SUBPIXEL_BITS) + 1 + margin, self.label.shape[0])
        if right <= left or bottom <= top:
            return None
        mask = np.zeros((bottom - top, right - left), dtype=np.uint8)
        # A pixel's centre has integer coordinates in OpenCV, half-integer ones here.
        half = 1 << _SUBPIXEL_BITS - 1
        fixed -= ((left << _SUBPIXEL_BITS) + half, (top << _SUBPIXEL_BITS) + half)
        start = 0
        for polygon in polygons:
            stop = start + len(polygon)
            value = 255 if start < num_outer else 0
            cv2.fillPoly(mask, [fixed[start:stop]], value, shift=_SUBPIXEL_BITS)
            start = stop
        return left, top, mask

"""Small pieces of 2-D and 3-D geometry.

Outlines are float arrays of shape (n, 2) in pixels (x, y); 3-D points have shape (..., 3).
"""

import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np

Outline = np.ndarray


def rotation_x(degrees: float) -> np.ndarray:
    """Rotation about x; a positive angle turns y (up) towards z (forward)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=np.float64)


def rotation_y(degrees: float) -> np.ndarray:
    """Rotation about y; a positive angle turns z (forward) towards x."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=np.float64)


def rotation_z(degrees: float) -> np.ndarray:
    """Rotation about z; a positive angle turns x towards y (up)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=np.float64)


@functools.cache
def unit_circle(count: int = 20) -> np.ndarray:
    """Points (count, 2) of the unit circle."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    circle.setflags(write=False)
    return circle


@functools.cache
def shares(count: int) -> np.ndarray:
    """``count`` evenly spaced numbers from 0 to 1, shape (count, 1)."""
    column = np.linspace(0, 1, count)[:, None]
    column.setflags(write=False)
    return column


def disc(centre: np.ndarray, radius: float) -> Outline:
    """Outline of a disc."""
    return np.asarray(centre) + radius * unit_circle()


def ribbon(points: np.ndarray, radii: Sequence[float]) -> Outline:
    """Outline of a band along an open line, ``radii[i]`` wide to either side of ``points[i]``."""
    points = np.asarray(points, dtype=np.float64)
    if len(points) == 2:
        return straight_ribbon(points[0], points[1], radii)
    steps = points[1:] - points[:-1]
    tangents = np.concatenate([steps[:1], steps[1:] + steps[:-1], steps[-1:]])
    lengths = np.maximum(np.sqrt((tangents**2).sum(1)), 1e-6)
    normals = tangents[:, ::-1] * (-1, 1)
    offsets = normals * (np.asarray(radii, dtype=np.float64) / lengths)[:, None]
    return np.concatenate([points + offsets, (points - offsets)[::-1]])


def straight_ribbon(start: np.ndarray, end: np.ndarray, radii: Sequence[float]) -> Outline:
    """Outline of a band along a straight line; the radii are evenly spaced from start to end."""
    dx, dy = float(end[0] - start[0]), float(end[1] - start[1])
    length = max(math.hypot(dx, dy), 1e-6)
    points = start + shares(len(radii)) * (dx, dy)
    offsets = np.multiply.outer(radii, (-dy / length, dx / length))
    return np.concatenate([points + offsets, (points - offsets)[::-1]])


def hull(outlines: Sequence[np.ndarray]) -> Outline:
    """Convex hull of all points of some outlines."""
    points = np.concatenate([np.atleast_2d(o) for o in outlines]).astype(np.float32)
    return cv2.convexHull(points).reshape(-1, 2).astype(np.float64)


@functools.cache
def _catmull_rom_weights(steps: int) -> np.ndarray:
    """Weights (steps, 4) of four successive points for points between the middle two."""
    t = np.arange(steps) / steps
    weights = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
    return 0.5 * np.stack(weights, axis=1)


def smooth_curve(points: np.ndarray, steps: int = 4) -> np.ndarray:
    """Catmull-Rom curve through an open line of points, ``steps`` points a segment."""
    points = np.asarray(points, dtype=np.float64)
    before, after = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
    padded = np.concatenate([before, points, after])
    segments = np.stack([padded[i : len(padded) - 3 + i] for i in range(4)], axis=1)
    curve = _catmull_rom_weights(steps) @ segments
    return np.concatenate([curve.reshape(-1, points.shape[1]), points[-1:]])

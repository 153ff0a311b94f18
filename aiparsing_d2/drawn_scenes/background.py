"""Busy backgrounds and a few things that stand in front of people."""

from collections.abc import Callable

import cv2
import numpy as np

from .fabric import noise_window, sample_colour, sample_fabric, shaded
from .wardrobe import CLUTTER_PATTERNS

Backdrop = Callable[[np.random.Generator, int, int, float], np.ndarray]


def _vertical_gradient(height: int, width: int, top, bottom) -> np.ndarray:
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    colours = (1 - share) * np.float32(top) + share * np.float32(bottom)
    return np.ascontiguousarray(np.broadcast_to(colours, (height, width, 3)))


def _polygon(image: np.ndarray, points, colour) -> None:
    fixed = np.rint(np.asarray(points, dtype=np.float64) * 16).astype(np.int32)
    cv2.fillPoly(image, [fixed], tuple(map(float, colour)), cv2.LINE_AA, shift=4)


def _rectangle(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour) -> None:
    corner0, corner1 = (int(round(x0)), int(round(y0))), (int(round(x1)), int(round(y1)))
    cv2.rectangle(image, corner0, corner1, tuple(map(float, colour)), cv2.FILLED)


def _circle(image: np.ndarray, x: float, y: float, radius: float, colour) -> None:
    centre = (int(x * 16), int(y * 16))
    tone = tuple(map(float, colour))
    cv2.circle(image, centre, int(max(radius, 0.5) * 16), tone, cv2.FILLED, cv2.LINE_AA, shift=4)


def _line(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour, width: float):
    corners = (int(x0), int(y0)), (int(x1), int(y1))
    cv2.line(image, *corners, tuple(map(float, colour)), max(int(round(width)), 1), cv2.LINE_AA)


def _tree(image: np.ndarray, rng: np.random.Generator, x: float, ground: float, size: float):
    trunk = (92 + rng.uniform(-20, 30), 66 + rng.uniform(-15, 20), 44.0)
    _rectangle(image, x - 0.05 * size, ground - 0.6 * size, x + 0.05 * size, ground, trunk)
    green = np.array([rng.uniform(40, 120), rng.uniform(90, 160), rng.uniform(30, 80)])
    if rng.random() < 0.2:
        green = np.array([200.0, 130.0, 50.0]) + rng.uniform(-30, 30, 3)
    if rng.random() < 0.3:
        for level in (0.45, 0.7, 0.95):
            half = size * 0.34 * (1.25 - level)
            tip = ground - size * (level + 0.4)
            points = [
                (x - half, ground - size * level),
                (x + half, ground - size * level),
                (x, tip),
            ]
            _polygon(image, points, green * (0.75 + 0.3 * level))
        return
    for _ in range(8):
        dx, dy = rng.uniform(-0.28, 0.28) * size, rng.uniform(-0.25, 0.25) * size
        tone = green * (0.95 - 0.6 * dy / size)
        radius = rng.uniform(0.14, 0.22) * size
        _circle(image, x + dx, ground - 0.85 * size + dy, radius, np.clip(tone, 0, 255))


def _building(
    image: np.ndarray, rng: np.random.Generator, x0: float, x1: float, top: float, ground: float
) -> None:
    wall = np.array(sample_colour(rng, 0.8))
    _rectangle(image, x0, top, x1, ground, wall)
    _rectangle(image, x0, top, x1, top + 3, wall * 0.7)
    across = max(int((x1 - x0) / rng.uniform(14, 26)), 1)
    step = (x1 - x0) / across
    pane = rng.uniform(0.4, 0.7)
    dark, lit = np.array([60.0, 76.0, 96.0]) + rng.uniform(-25, 50, 3), (240, 220, 150)
    floor = step * rng.uniform(0.9, 1.4)
    for y in np.arange(top + 0.4 * floor, ground - 0.5 * floor, floor):
        for i in range(across):
            left = x0 + (i + 0.5 - 0.5 * pane) * step
            colour = lit if rng.random() < 0.12 else dark * rng.uniform(0.85, 1.15)
            _rectangle(image, left, y, left + pane * step, y + 0.6 * floor, colour)


def _street(rng: np.random.Generator, height: int, width: int, horizon: float) -> np.ndarray:
    sky = np.array([120.0, 170.0, 220.0]) + rng.uniform(-40, 30, 3)
    image = _vertical_gradient(height, width, sky, np.minimum(sky + 70, 255))
    x = -rng.uniform(0, 30)
    while x < width:
        breadth = rng.uniform(0.12, 0.36) * width
        _building(image, rng, x, x + breadth, rng.uniform(-0.2, 0.75) * horizon, horizon)
        x += breadth
    ground = np.array([1.0, 1.0, 1.0]) * rng.uniform(95, 185) + rng.uniform(-8, 8, 3)
    image[int(horizon) :] = _vertical_gradient(
        height - int(horizon), width, ground * 0.85, ground * 1.1
    )
    vanishing = rng.uniform(0.2, 0.8) * width
    for x in np.linspace(-width, 2 * width, 12):
        _line(image, vanishing, horizon, x, height, ground * 0.8, 1)
    for y in horizon + (height - horizon) * np.array([0.12, 0.3, 0.6]):
        _line(image, 0, y, width, y, ground * 0.82, 1)
    for _ in range(rng.integers(0, 3)):
        _tree(image, rng, rng.uniform(0, width), horizon + 4, rng.uniform(0.35, 0.7) * height)
    for _ in range(rng.integers(0, 3)):  # parked cars
        x, size = rng.uniform(0, width), rng.uniform(0.1, 0.2) * height
        colour, y = np.array(sample_colour(rng, 0.3)), horizon + 0.1 * height
        roof = [(x - 0.6 * size, y - size), (x + 0.6 * size, y - size)]
        body = [*roof, (x + size, y - 0.55 * size), (x + 1.5 * size, y - 0.5 * size)]
        body += [(x + 1.5 * size, y), (x - 1.5 * size, y), (x - 1.5 * size, y - 0.5 * size)]
        _polygon(image, [*body, (x - size, y - 0.55 * size)], colour)
        glass = [*roof, (x + 0.85 * size, y - 0.6 * size), (x - 0.85 * size, y - 0.6 * size)]
        _polygon(image, np.array(glass) * 0.9 + 0.1 * np.mean(glass, axis=0), (70, 84, 98))
        for wheel in (x - 0.9 * size, x + 0.9 * size):
            _circle(image, wheel, y, 0.28 * size, (30, 30, 32))
            _circle(image, wheel, y, 0.13 * size, (170, 170, 172))
    return image


def _park(rng: np.random.Generator, height: int, width: int, horizon: float) -> np.ndarray:
    sky = np.array([140.0, 185.0, 225.0]) + rng.uniform(-40, 25, 3)
    image = _vertical_gradient(height, width, sky, (232, 234, 226))
    for _ in range(rng.integers(0, 4)):
        x, y = rng.uniform(0, width), rng.uniform(0, 0.6 * horizon)
        for _ in range(4):
            dx, dy = rng.normal(0, 14), rng.normal(0, 3)
            _circle(image, x + dx, y + dy, rng.uniform(5, 14), (246, 247, 248))
    hill = np.array([rng.uniform(90, 150), rng.uniform(140, 180), rng.uniform(80, 130)])
    for shade, lift in ((1.05, 0.2), (0.9, 0.1)):
        xs = np.linspace(0, width, 16)
        waves = np.sin(xs / width * rng.uniform(4, 9) + rng.uniform(0, 6))
        ridge = horizon - lift * height * (0.6 + 0.4 * waves)
        points = [*zip(xs, ridge, strict=True), (width, height), (0, height)]
        _polygon(image, points, np.clip(hill * shade, 0, 255))
    for _ in range(rng.integers(2, 7)):
        _tree(image, rng, rng.uniform(0, width), horizon + 3, rng.uniform(0.25, 0.75) * height)
    grass = np.array([rng.uniform(80, 150), rng.uniform(130, 180), rng.uniform(50, 90)])
    image[int(horizon) :] = _vertical_gradient(
        height - int(horizon), width, grass * 0.85, grass * 1.05
    )
    if rng.random() < 0.5:
        middle, sand = rng.uniform(0.2, 0.8) * width, (206, 190, 150)
        points = [(middle - 6, horizon), (middle + 6, horizon)]
        points += [(middle + rng.uniform(40, 160), height), (middle - rng.uniform(40, 160), height)]
        _polygon(image, points, sand)
    for _ in range(rng.integers(0, 40)):
        x, y = rng.uniform(0, width), rng.uniform(horizon, height)
        _circle(image, x, y, rng.uniform(0.8, 2.2), sample_colour(rng, 0.1))
    return image


def _beach(rng: np.random.Generator, height: int, width: int, horizon: float) -> np.ndarray:
    sky = np.array([130.0, 190.0, 230.0]) + rng.uniform(-30, 20, 3)
    if rng.random() < 0.3:
        sky = np.array([240.0, 170.0, 120.0]) + rng.uniform(-20, 15, 3)
    image = _vertical_gradient(height, width, sky, np.minimum(sky + 50, 255))
    sea = np.array([40.0, 130.0, 170.0]) + rng.uniform(-30, 30, 3)
    coast = horizon + 0.15 * (height - horizon)
    far = int(horizon - 0.12 * height)
    image[far:] = _vertical_gradient(height - far, width, sea, sea + 40)
    sand = np.array([226.0, 204.0, 160.0]) + rng.uniform(-25, 15, 3)
    xs = np.linspace(0, width, 12)
    shore = coast + 4 * np.sin(xs / width * 9 + rng.uniform(0, 6))
    outline = [(width, height), (0, height)]
    _polygon(image, [*zip(xs, shore - 3, strict=True), *outline], (240, 246, 246))
    _polygon(image, [*zip(xs, shore, strict=True), *outline], sand)
    for _ in range(rng.integers(1, 5)):  # parasols
        x, size = rng.uniform(0, width), rng.uniform(0.2, 0.45) * height
        ground = rng.uniform(coast, coast + 0.2 * height)
        _line(image, x, ground, x, ground - size, (235, 235, 230), 2)
        tone, other = sample_colour(rng, 0.1), sample_colour(rng, 0.6)
        edges = np.linspace(-0.55, 0.55, 7) * size
        for i in range(6):
            points = [(x, ground - 1.15 * size), (x + edges[i], ground - 0.75 * size)]
            points.append((x + edges[i + 1], ground - 0.75 * size))
            _polygon(image, points, tone if i % 2 else other)
    return image


def _room(rng: np.random.Generator, height: int, width: int, horizon: float) -> np.ndarray:
    wall = np.array(sample_colour(rng, 0.7)) * 0.5 + 110
    image = _vertical_gradient(height, width, wall, wall * 0.88)
    if rng.random() < 0.45:
        step = rng.uniform(8, 26)
        for x in np.arange(0, width, step):
            _rectangle(image, x, 0, x + 0.4 * step, horizon, wall * rng.uniform(0.9, 1.0))
    floor = np.array([rng.uniform(110, 190), rng.uniform(90, 150), rng.uniform(70, 120)])
    image[int(horizon) :] = _vertical_gradient(
        height - int(horizon), width, floor * 0.85, floor * 1.05
    )
    vanishing = rng.uniform(0.3, 0.7) * width
    for x in np.linspace(-width, 2 * width, 18):
        _line(image, vanishing + 0.3 * (x - vanishing), horizon, x, height, floor * 0.75, 1)
    _rectangle(image, 0, horizon - 5, width, horizon, np.minimum(wall * 1.2, 255))

    for _ in range(rng.integers(2, 7)):
        x, size = rng.uniform(0, width), rng.uniform(0.15, 0.4) * height
        colour = np.array(sample_colour(rng, 0.3))
        kind = rng.integers(6)
        if kind == 0:  # a picture
            y = rng.uniform(0.05, 0.5) * horizon
            _rectangle(image, x, y, x + size, y + 0.75 * size, colour * 0.5)
            _rectangle(image, x + 4, y + 4, x + size - 4, y + 0.75 * size - 4, colour)
            for _ in range(4):
                px, py = x + rng.uniform(0.25, 0.75) * size, y + rng.uniform(0.25, 0.5) * size
                _circle(image, px, py, rng.uniform(0.04, 0.12) * size, sample_colour(rng, 0.2))
        elif kind == 1:  # shelves of books
            y = horizon - rng.uniform(1.2, 2.4) * size
            _rectangle(image, x, y, x + size, horizon, colour * 0.45)
            for shelf in np.arange(y + 4, horizon - 14, 22):
                left = x + 3
                while left < x + size - 6:
                    thick, tall = rng.uniform(2, 7), rng.uniform(11, 18)
                    tone = sample_colour(rng, 0.2)
                    _rectangle(image, left, shelf + 18 - tall, left + thick, shelf + 18, tone)
                    left += thick + 1
        elif kind == 2:  # a sofa
            _rectangle(image, x, horizon - 0.7 * size, x + 2 * size, horizon + 8, colour * 0.85)
            _rectangle(image, x, horizon - 0.25 * size, x + 2 * size, horizon + 8, colour)
            for px in (x + 0.3 * size, x + 1.4 * size):
                tone = sample_colour(rng, 0.2)
                _rectangle(image, px, horizon - 0.5 * size, px + 0.4 * size, horizon - 5, tone)
        elif kind == 3:  # a window
            y = rng.uniform(0.05, 0.25) * horizon
            _rectangle(image, x - 3, y - 3, x + size + 3, y + 1.2 * size + 3, (240, 238, 232))
            _rectangle(image, x, y, x + size, y + 1.2 * size, (170, 205, 230))
            _line(image, x + size / 2, y, x + size / 2, y + 1.2 * size, (240, 238, 232), 3)
            for px in (x - 0.15 * size, x + 0.9 * size):  # curtains
                _rectangle(image, px, y - 6, px + 0.25 * size, y + 1.35 * size, colour)
        elif kind == 4:  # a potted plant
            for _ in range(9):
                dx, dy = rng.normal(0, 0.25) * size, -rng.uniform(0.4, 1.2) * size
                tone = (50 + rng.uniform(0, 40), 120 + rng.uniform(-20, 40), 60)
                _line(image, x, horizon - 0.3 * size, x + dx, horizon + dy, tone, 0.07 * size)
            pot = [(-0.2, -0.35), (0.2, -0.35), (0.14, 0.05), (-0.14, 0.05)]
            _polygon(image, np.array(pot) * size + (x, horizon), (176, 96, 66))
        else:  # a lamp
            _line(image, x, horizon, x, horizon - 1.5 * size, (60, 56, 52), 2)
            shade = [(-0.18, 0), (0.18, 0), (0.3, 0.35), (-0.3, 0.35)]
            _polygon(image, np.array(shade) * size + (x, horizon - 1.7 * size), (244, 226, 170))
    return image


def _shapes(rng: np.random.Generator, height: int, width: int, horizon: float) -> np.ndarray:
    top, bottom = np.array(sample_colour(rng)), np.array(sample_colour(rng))
    image = _vertical_gradient(height, width, top, bottom)
    for _ in range(rng.integers(8, 26)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        size = rng.uniform(0.04, 0.22) * height
        colour = sample_colour(rng, 0.3)
        if rng.random() < 0.4:
            _circle(image, x, y, size, colour)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            points = np.stack([x + size * np.cos(angles), y + size * np.sin(angles)], axis=1)
            _polygon(image, points, colour)
    return image


def _cloth_clutter(image: np.ndarray, rng: np.random.Generator) -> None:
    """Patches with the colours and patterns of clothes and skin, on no person."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(0, 6)):
        breadth, tall = rng.uniform(0.05, 0.2) * height, rng.uniform(0.08, 0.3) * height
        x, y = int(rng.uniform(-10, width - 10)), int(rng.uniform(-10, height - 10))
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = int(min(x + breadth, width)), int(min(y + tall, height))
        if x1 - x0 < 3 or y1 - y0 < 3:
            continue
        fabric = sample_fabric(rng, CLUTTER_PATTERNS)
        unit = 0.8 * height
        u = (np.arange(x0, x1, dtype=np.float32)[None] - x) / unit
        v = (np.arange(y0, y1, dtype=np.float32)[:, None] - y) / unit
        patch = fabric.colours(u + 0 * v, v + 0 * u)
        mask = np.zeros(patch.shape[:2], dtype=np.uint8)
        if rng.random() < 0.5:
            centre = ((x1 - x0) // 2, (y1 - y0) // 2)
            cv2.ellipse(mask, centre, centre, 0, 0, 360, 1, cv2.FILLED)
        else:
            mask[:] = 1
        np.copyto(image[y0:y1, x0:x1], patch, where=mask[..., None] > 0)


_BACKDROPS: dict[Backdrop, float] = {
    _street: 0.28,
    _room: 0.28,
    _park: 0.22,
    _beach: 0.1,
    _shapes: 0.12,
}


def draw_background(
    rng: np.random.Generator, height: int, width: int, horizon: float
) -> np.ndarray:
    """Draw a place for people to be in.

    Args:
        rng: source of every choice.
        height, width: image size in pixels.
        horizon: row where the ground begins.

    Returns:
        float32 array (height, width, 3), RGB in 0..255.
    """
    backdrops = list(_BACKDROPS)
    weights = np.array(list(_BACKDROPS.values()))
    backdrop = backdrops[rng.choice(len(backdrops), p=weights / weights.sum())]
    image = backdrop(rng, height, width, float(np.clip(horizon, 0.25 * height, 0.93 * height)))
    if rng.random() < 0.5:
        _cloth_clutter(image, rng)
    # Depth of field and the roughness of real surfaces.
    blur = rng.uniform(0, 1.6)
    if blur > 0.5:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    left, top = rng.integers(0, 512, 2)
    rough = noise_window(32, left, top, width, height) + noise_window(8, top, left, width, height)
    return image * (1 + rng.uniform(0.01, 0.06) * rough)[..., None]


def draw_foreground(
    rng: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Draw something that stands in front of everybody, or nothing (most often).

    Returns:
        ``(rgb, alpha)``: float32 (height, width, 3) in 0..255, already multiplied by alpha, and
        float32 (height, width) in 0..1; or None.
    """
    if rng.random() > 0.3:
        return None
    colour = np.array(sample_colour(rng, 0.5))
    image = np.zeros((height, width, 3), dtype=np.float32)
    alpha = np.zeros((height, width), dtype=np.float32)

    def both(draw: Callable[..., None], *place, tone) -> None:
        draw(image, *place, tone)
        draw(alpha, *place, (1.0,))

    kind = rng.integers(4)
    if kind == 0:  # a table or wall along the lower edge
        y = height * rng.uniform(0.86, 0.95)
        x0, x1 = rng.uniform(-0.3, 0.4) * width, rng.uniform(0.6, 1.3) * width
        both(_rectangle, x0, y, x1, height, tone=colour)
        both(_rectangle, x0, y, x1, y + 3, tone=shaded(tuple(colour), 1.3))
    elif kind == 1:  # a post
        x, half = rng.uniform(0, width), rng.uniform(2, 7)
        both(_rectangle, x - half, 0, x + half, height, tone=colour)
    elif kind == 2:  # leaves that reach in from a corner
        x, y = rng.choice([0.0, width]), height * rng.uniform(0.7, 1.0)
        for _ in range(10):
            angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.24) * height
            tip = np.array([np.cos(angle), np.sin(angle)]) * reach
            side = np.array([-tip[1], tip[0]]) * 0.18
            points = np.array([(0, 0), 0.5 * tip + side, tip, 0.5 * tip - side]) + (x, y)
            green = (rng.uniform(30, 80), rng.uniform(100, 160), rng.uniform(40, 80))
            both(_polygon, points, tone=green)
    else:  # a ball or a bag on the ground
        x, radius = rng.uniform(0, width), rng.uniform(0.05, 0.11) * height
        y = height - rng.uniform(0.3, 1.2) * radius
        both(_circle, x, y, radius, tone=colour)
        inner = shaded(tuple(colour), 1.6)
        both(_circle, x - 0.3 * radius, y - 0.3 * radius, 0.4 * radius, tone=inner)
    return image, alpha

"""Colours and patterns of cloth."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import cv2
import numpy as np

Colour = tuple[float, float, float]


class Pattern(Enum):
    """Ways to cover a cloth."""

    PLAIN = auto()
    HOOPS = auto()  # stripes across the body or limb
    PINSTRIPES = auto()  # stripes along it
    PLAID = auto()
    GINGHAM = auto()
    DOTS = auto()
    FLORAL = auto()
    DIAMONDS = auto()
    ZIGZAG = auto()
    CAMOUFLAGE = auto()
    KNIT = auto()
    COLOUR_BLOCK = auto()
    EMBLEM = auto()  # one print on the chest
    DENIM = auto()


_TILE = 512


@functools.cache
def noise_tile(cell: int) -> np.ndarray:
    """Smooth noise in -1..1 with blobs of about ``cell`` pixels: one fixed tile, repeated 2 x 2.

    Returns:
        float32 array (1024, 1024).
    """
    coarse = np.random.default_rng(cell).uniform(-1, 1, (_TILE // cell, _TILE // cell))
    size = (_TILE, _TILE)
    tile = cv2.resize(coarse.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    tiles = np.tile(np.clip(tile, -1, 1), (2, 2))
    tiles.setflags(write=False)
    return tiles


def noise_window(cell: int, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Return a window (height, width) of ``noise_tile(cell)``, which repeats without end."""
    left, top = left % _TILE, top % _TILE
    if max(width, height) <= _TILE:
        return noise_tile(cell)[top : top + height, left : left + width]
    rows, columns = np.arange(top, top + height) % _TILE, np.arange(left, left + width) % _TILE
    return noise_tile(cell)[rows[:, None], columns]


@dataclass(frozen=True)
class Fabric:
    """A cloth: colours and a pattern over the plane (u, v) of the garment.

    u runs across the body or limb and v along it, downwards; both in body units.

    Attributes:
        base: RGB ground colour, 0..255.
        accent: RGB colour of the pattern.
        pattern: how the accent covers the ground.
        period: size of the pattern's repeat, in body units.
        seed: picks the place of irregular patterns.
    """

    base: Colour
    accent: Colour
    pattern: Pattern = Pattern.PLAIN
    period: float = 0.04
    seed: int = 0

    def colours(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """RGB colours at garment coordinates of one shape (h, w): uint8, (h, w, 3)."""
        base, accent = np.array(self.base), np.array(self.accent)
        share = np.multiply(self._accent_share(u, v), 255).astype(np.uint8)
        ramp = base + np.linspace(0, 1, 256)[:, None] * (accent - base)
        return cv2.applyColorMap(share, ramp.astype(np.uint8)[:, None])

    def _accent_share(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        p = self.period
        match self.pattern:
            case Pattern.PLAIN:
                return np.zeros(np.broadcast_shapes(u.shape, v.shape), dtype=np.float32)
            case Pattern.HOOPS:
                return (v / p) % 1 < 0.5
            case Pattern.PINSTRIPES:
                return (u / p) % 1 < 0.35
            case Pattern.PLAID:
                broad = 0.35 * ((u / p) % 1 < 0.5) + 0.35 * ((v / p) % 1 < 0.5)
                return broad + 0.3 * (((u / p + 0.2) % 1 < 0.12) | ((v / p + 0.2) % 1 < 0.12))
            case Pattern.GINGHAM:
                return 0.5 * ((u / p) % 1 < 0.5) + 0.5 * ((v / p) % 1 < 0.5)
            case Pattern.DOTS:
                row = np.floor(v / p)
                du, dv = (u / p + 0.5 * row) % 1 - 0.5, (v / p) % 1 - 0.5
                return du * du + dv * dv < 0.085
            case Pattern.FLORAL:
                return np.clip(4 * (self._noise(u, v, 16) - 0.12), 0, 1)
            case Pattern.DIAMONDS:
                return np.abs((u / p) % 1 - 0.5) + np.abs((v / (1.6 * p)) % 1 - 0.5) < 0.32
            case Pattern.ZIGZAG:
                return ((v + np.abs((u / p) % 1 - 0.5) * 0.6 * p) / p) % 1 < 0.4
            case Pattern.CAMOUFLAGE:
                noise = self._noise(u, v, 32)
                return 0.5 * (noise > 0.05) + 0.5 * (noise > 0.3)
            case Pattern.KNIT:
                return 0.18 + 0.18 * np.sin(
                    2 * np.pi * (v + 0.3 * np.abs((u / p) % 1 - 0.5) * p) / (0.4 * p)
                )
            case Pattern.COLOUR_BLOCK:
                return v > 0.09 + p
            case Pattern.EMBLEM:
                du, dv = u / 0.042, (v - 0.115) / 0.042
                radius, angle = np.hypot(du, dv), np.arctan2(du, dv)
                petals = 3 + self.seed % 3
                return radius < 0.72 + 0.28 * np.cos(petals * angle)
            case Pattern.DENIM:
                return 0.25 + 0.25 * self._noise(u, v, 8) + 0.12 * (((u + v) / 0.008) % 1 < 0.5)
        raise ValueError(f"{self.pattern} has no rule for its accent")

    def _noise(self, u: np.ndarray, v: np.ndarray, cell: int) -> np.ndarray:
        """Noise whose blobs are about half a period wide."""
        per_unit = cell / (0.5 * self.period)
        columns = (u * per_unit).astype(np.int32) + self.seed
        rows = (v * per_unit).astype(np.int32) + self.seed // 7
        return noise_tile(cell)[rows % _TILE, columns % _TILE]


_NEUTRALS = [
    (238, 236, 230),
    (245, 245, 245),
    (28, 28, 32),
    (45, 45, 50),
    (120, 122, 126),
    (176, 176, 174),
    (34, 44, 78),
    (52, 74, 120),
    (206, 188, 156),
    (150, 118, 84),
    (92, 66, 48),
    (84, 92, 66),
    (110, 32, 44),
]


TYPICAL_SHARE = 1.0
"""How many garments come in a colour that is typical of their kind."""


def sample_colour(
    rng: np.random.Generator, neutral: float = 0.4, typical: Sequence[Colour] = ()
) -> Colour:
    """Return a clothes colour.

    Args:
        rng: source of randomness.
        neutral: how often the colour is a muted one rather than any hue.
        typical: colours the kind of garment mostly comes in, if it has any.
    """
    if typical and rng.random() < TYPICAL_SHARE:
        colour = typical[rng.integers(len(typical))] + rng.normal(0, 12, 3)
    elif rng.random() < neutral:
        colour = np.array(_NEUTRALS[rng.integers(len(_NEUTRALS))], dtype=float)
        colour += rng.normal(0, 6, 3)
    else:
        hsv = np.array(
            [[[rng.uniform(0, 180), rng.uniform(80, 230), rng.uniform(110, 245)]]], dtype=np.uint8
        )
        colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(float)
    red, green, blue = np.clip(colour, 12, 250)
    return float(red), float(green), float(blue)


def contrasting_colour(rng: np.random.Generator, colour: Colour) -> Colour:
    """Return a colour that is told apart from ``colour`` at a glance."""
    best = max(
        (sample_colour(rng) for _ in range(3)),
        key=lambda c: float(np.abs(np.subtract(c, colour)).sum()),
    )
    if np.abs(np.subtract(best, colour)).sum() > 120:
        return best
    return (240.0, 238.0, 232.0) if sum(colour) < 380 else (30.0, 32.0, 44.0)


def shaded(colour: Colour, factor: float) -> Colour:
    """Return a colour made darker (factor < 1) or lighter (factor > 1)."""
    if factor > 1:
        return tuple(255 - (255 - c) / factor for c in colour)
    return tuple(c * factor for c in colour)


def sample_fabric(
    rng: np.random.Generator,
    patterns: dict[Pattern, float],
    neutral: float = 0.4,
    typical: Sequence[Colour] = (),
) -> Fabric:
    """Draw a fabric; ``patterns`` gives relative frequencies, the rest see ``sample_colour``."""
    base = sample_colour(rng, neutral, typical)
    weights = np.array(list(patterns.values()), dtype=float)
    pattern = list(patterns)[rng.choice(len(patterns), p=weights / weights.sum())]
    if rng.random() < 0.95:
        accent = shaded(base, 1.7 if sum(base) < 420 else 0.65)
    else:
        accent = contrasting_colour(rng, base)
    if pattern is Pattern.DENIM:
        base = (54 + rng.uniform(-20, 40), 80 + rng.uniform(-20, 40), 128 + rng.uniform(-20, 40))
        accent = shaded(base, 1.35)
    elif pattern is Pattern.CAMOUFLAGE:
        accent = shaded(base, 0.45)
    return Fabric(base, accent, pattern, rng.uniform(0.022, 0.06), int(rng.integers(1 << 16)))

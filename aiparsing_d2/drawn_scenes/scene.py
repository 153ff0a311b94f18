"""Composition of scenes: who stands where, who hides whom, and the light on it all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .background import draw_background, draw_foreground
from .figure import FigureLayer, draw_figure
from .person import Person, sample_person

MAX_PEOPLE = 6
"""Most people a scene can hold."""

MIN_SIDE = 64
"""Smallest height and width of a scene in pixels."""

MIN_VISIBLE_PIXELS = 60
"""Fewest visible labelled pixels of every person in a scene."""

_MIN_VISIBLE_SHARE = 0.5
_TRIES_PER_PERSON = 6
_PEOPLE_FREQUENCIES = (0.52, 0.32, 0.1, 0.03, 0.02, 0.01)

# Height of an upright person in units of the image's height, and how often.
_FRAMINGS = {
    "full figure": (0.34, (0.84, 0.92)),
    "to the knees": (0.36, (1.1, 1.4)),
    "to the waist": (0.29, (1.4, 1.9)),
    "far away": (0.01, (0.55, 0.75)),
}


@dataclass(frozen=True)
class DrawnScene:
    """A picture of people and its exact labels.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        category_map: uint8 (H, W), CIHP's part labels 0..19; left and right are the persons' own.
        human_map: uint8 (H, W), 0 for the background, 1..N for the N persons, numbered from left
            to right by the middles of the whole figures. It is 0 exactly where ``category_map`` is.
        layers: the whole figures, whatever hides them, the farthest first.
        in_front: bool (H, W), where something that is no person hides everybody.
    """

    image: np.ndarray
    category_map: np.ndarray
    human_map: np.ndarray
    layers: tuple[FigureLayer, ...]
    in_front: np.ndarray

    @property
    def num_people(self) -> int:
        """How many people the picture shows."""
        return int(self.human_map.max())


@dataclass(frozen=True)
class Placement:
    """A person's place in the picture.

    Attributes:
        feet: image position (x, y) of the ground below the pelvis.
        scale: height of the upright person in pixels.
    """

    feet: tuple[float, float]
    scale: float


def check_image_size(height: int, width: int) -> None:
    """Raise ``ValueError`` if an image is too small for six people to be told apart."""
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"Scenes need at least {MIN_SIDE} x {MIN_SIDE} pixels, got {height} x {width}."
        )


def check_seed(seed: int) -> None:
    """Raise ``ValueError`` if a seed is none."""
    if seed < 0:
        raise ValueError(f"The seed must not be negative, got {seed}.")


def draw_scene(
    rng: np.random.Generator,
    height: int,
    width: int,
    num_people: int | None = None,
    sample: Callable[[np.random.Generator], Person] = sample_person,
) -> DrawnScene:
    """Draw people in front of a busy background.

    Args:
        rng: source of every choice; the same state gives the same scene.
        height, width: image size in pixels, at least ``MIN_SIDE`` each.
        num_people: how many people, 0..6; None draws the number at random (1..6).
        sample: draws up a person.

    Returns:
        The scene. Every person has at least ``MIN_VISIBLE_PIXELS`` visible labelled pixels.

    Raises:
        ValueError: the size or the number of people is out of range.
    """
    check_image_size(height, width)
    if num_people is None:
        num_people = 1 + int(rng.choice(MAX_PEOPLE, p=_PEOPLE_FREQUENCIES))
    if not 0 <= num_people <= MAX_PEOPLE:
        raise ValueError(f"num_people must be in 0..{MAX_PEOPLE}, got {num_people}.")

    camera_pitch, light = rng.uniform(-3, 12), float(rng.choice([-1, 1]))
    foreground = draw_foreground(rng, height, width)
    shrink = 1.0
    while True:
        layers, ground = _place_people(
            rng, height, width, num_people, camera_pitch, light, foreground, shrink, sample
        )
        if len(layers) == num_people:
            break
        shrink = max(0.85 * shrink, 0.5)  # smaller people hide less of each other

    return compose_scene(rng, draw_place(rng, height, width, ground), layers[::-1], foreground)


def draw_place(rng: np.random.Generator, height: int, width: int, ground: float) -> np.ndarray:
    """Draw what is behind the people, hazy and out of focus: float32 RGB (H, W, 3), 0..255.

    Args:
        rng: source of every choice.
        height, width: size in pixels.
        ground: row of the ground under the nearest person.
    """
    horizon = ground - rng.uniform(0.05, 0.3) * height
    return _set_back(rng, draw_background(rng, height, width, horizon))


def compose_scene(
    rng: np.random.Generator,
    place: np.ndarray,
    layers: Sequence[FigureLayer],
    foreground: tuple[np.ndarray, np.ndarray] | None,
) -> DrawnScene:
    """Lay people and what is in front of them over a place, and take the picture.

    Args:
        rng: source of what light, lens and sensor do to the picture.
        place: float32 RGB (H, W, 3), 0..255; it is left as it is.
        layers: the people, the farthest first. Who is hidden altogether gets no number.
        foreground: as from ``draw_foreground``, of the size of the place.
    """
    height, width = place.shape[:2]
    canvas = place.copy()
    category_map = np.zeros((height, width), dtype=np.uint8)
    owner = np.zeros((height, width), dtype=np.uint8)  # 1 + index of the layer
    for index, layer in enumerate(layers):
        window = layer.window
        _cast_shadow(canvas, layer)
        canvas[window] = canvas[window] * (1 - layer.alpha[..., None]) + layer.rgb
        category_map[window][layer.solid] = layer.label[layer.solid]
        owner[window][layer.solid] = (index + 1) * (layer.label[layer.solid] > 0)
    in_front = np.zeros((height, width), dtype=bool)
    if foreground is not None:
        rgb, alpha = foreground
        canvas = canvas * (1 - alpha[..., None]) + rgb
        in_front = alpha > 0.5
        category_map[in_front] = 0
        owner[in_front] = 0

    # Numbers run from left to right, whatever the depth.
    visible = [index for index in range(len(layers)) if (owner == index + 1).any()]
    visible.sort(key=lambda index: _middle_column(layers[index]))
    numbers = np.zeros(len(layers) + 1, dtype=np.uint8)
    for number, index in enumerate(visible, start=1):
        numbers[index + 1] = number
    image = _photograph(rng, canvas)
    return DrawnScene(image, category_map, numbers[owner], tuple(layers), in_front)


def _middle_column(layer: FigureLayer) -> float:
    return layer.left + float(np.nonzero(layer.label)[1].mean())


def _cast_shadow(canvas: np.ndarray, layer: FigureLayer) -> None:
    """Darken the ground under the lowest part of a figure."""
    rows, columns = np.nonzero(layer.solid)
    low = rows > rows.max() - 0.04 * layer.solid.shape[0] - 2
    left, right = columns[low].min() + layer.left, columns[low].max() + layer.left
    y, half = rows.max() + layer.top, 0.6 * (right - left) + 6
    shade = np.zeros(canvas.shape[:2], dtype=np.float32)
    centre = (int(0.5 * (left + right)), int(y))
    cv2.ellipse(shade, centre, (int(half), int(0.22 * half) + 2), 0, 0, 360, 1.0, cv2.FILLED)
    top = max(int(y - half), 0)
    strip = cv2.blur(shade[top : int(y + half)], (9, 5))
    canvas[top : int(y + half)] *= 1 - 0.4 * strip[..., None]


def _place_people(
    rng: np.random.Generator,
    height: int,
    width: int,
    num_people: int,
    camera_pitch: float,
    light: float,
    foreground: tuple[np.ndarray, np.ndarray] | None,
    shrink: float,
    sample: Callable[[np.random.Generator], Person],
) -> tuple[list[FigureLayer], float]:
    """Place people from the front to the back.

    Returns:
        layers: the figures that found a place, the nearest first.
        ground: image row of the ground under the nearest person.
    """
    base, ground = choose_framing(rng, height, shrink)
    hidden = np.zeros((height, width), dtype=bool)
    if foreground is not None:
        hidden |= foreground[1] > 0.5

    # People of a group stand side by side in no particular order of depth.
    spacing = min(0.9 / max(num_people, 1), rng.uniform(0.2, 0.36)) * width
    places = 0.5 * width + spacing * (rng.permutation(num_people) - 0.5 * (num_people - 1))
    places += rng.normal(0, 0.04 * width, num_people)
    if num_people == 1:
        places += rng.normal(0, 0.12 * width, 1)

    layers: list[FigureLayer] = []
    for depth, place in enumerate(places):
        person = sample(rng)
        for attempt in range(_TRIES_PER_PERSON):
            x = place if attempt == 0 else rng.uniform(0.05, 0.95) * width
            placement = choose_placement(rng, person, x, base, ground, depth)
            layer = draw_figure(
                person, placement.feet, placement.scale, camera_pitch, (height, width), light
            )
            if layer is not None and _shows_enough(layer, hidden[layer.window]):
                hidden[layer.window] |= layer.solid
                layers.append(layer)
                break
        else:
            break
    return layers, ground


def choose_framing(
    rng: np.random.Generator, height: int, shrink: float = 1.0
) -> tuple[float, float]:
    """How much of the people the picture shows.

    Returns:
        base: height in pixels of a grown-up who stands nearest.
        ground: image row of the ground under the nearest person.
    """
    names = list(_FRAMINGS)
    framing = _FRAMINGS[names[rng.choice(len(names), p=[f[0] for f in _FRAMINGS.values()])]]
    base = rng.uniform(*framing[1]) * height * shrink
    crown = rng.uniform(0.03, 0.08) * height + max(0.0, 0.5 * (0.85 * height - base))
    return base, crown + base


def choose_placement(
    rng: np.random.Generator, person: Person, x: float, base: float, ground: float, depth: int
) -> Placement:
    """Where a person stands who is number ``depth`` from the front, the nearest being 0.

    Args:
        rng: source of the stature and the exact distance.
        person: who it is.
        x: image column of the middle of the feet.
        base, ground: as from ``choose_framing``.
        depth: how many people stand nearer.
    """
    distance = 1 + 0.05 * depth + rng.uniform(0, 0.06)
    stature = rng.uniform(0.92, 1.04)
    if person.body.head > 0.2:  # a child
        stature *= rng.uniform(0.62, 0.8)
    scale = base * stature / distance
    # The farther, the higher in the picture; people who jump leave the ground.
    y = ground - 0.1 * base * (distance - 1)
    if person.pose.name == "jumping":
        y -= rng.uniform(0.03, 0.12) * scale
    return Placement((float(x), float(y)), float(scale))


def _shows_enough(layer: FigureLayer, hidden: np.ndarray) -> bool:
    labelled = layer.label > 0
    visible = np.count_nonzero(labelled & ~hidden)
    share = visible / max(np.count_nonzero(labelled), 1)
    return visible >= MIN_VISIBLE_PIXELS and share >= _MIN_VISIBLE_SHARE


def _set_back(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    """Haze and shallow focus: what is behind the people is paler and softer than they are."""
    haze = rng.uniform(0.55, 0.75)
    background = cv2.GaussianBlur(background, (0, 0), rng.uniform(0.6, 1.5))
    return background * (1 - haze) + 208 * haze


def _photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Light, lens and sensor: uint8 RGB from the drawn colours."""
    height, width = canvas.shape[:2]
    tint = 1 + rng.normal(0, 0.02, 3)
    image = canvas * (tint * rng.uniform(0.93, 1.07)).astype(np.float32)
    contrast = rng.uniform(0.94, 1.06)
    image = (image - 118) * contrast + 118
    if rng.random() < 0.2:  # light falls off to one side
        angle = rng.uniform(0, 2 * np.pi)
        x = np.linspace(-1, 1, width, dtype=np.float32)[None]
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        image *= (1 + 0.16 * (np.cos(angle) * x + np.sin(angle) * y))[..., None]
    if rng.random() < 0.35:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.9))
    noise = rng.standard_normal((height, width, 1), dtype=np.float32)
    image = image + rng.uniform(0.5, 4.0) * noise
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)

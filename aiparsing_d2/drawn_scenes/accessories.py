"""What people wear and carry beyond the garments of CIHP, for layouts with labels for it."""

import dataclasses
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from .fabric import Colour, sample_colour
from .parts import Detail
from .wardrobe import Hat, HatStyle, Outfit, ShoeStyle

# Discs (x, y, radius) whose convex hull is a piece of a thing. The origin is the grip of the hand,
# x runs to the image's right, y up; in body units.
_Discs = tuple[tuple[float, float, float], ...]


class HeldItem(Enum):
    """Things that a hanging hand can hold."""

    BALL = auto()
    BAT = auto()
    BOTTLE = auto()
    CASE = auto()
    PURSE = auto()
    UMBRELLA = auto()  # folded

    @property
    def detail(self) -> Detail:
        """What the thing is labelled as."""
        return Detail[self.name]

    @property
    def pieces(self) -> tuple[tuple[_Discs, float], ...]:
        """The thing's shape: pieces and their shades, from back to front."""
        return _PIECES[self]


def _block(top: float, bottom: float, upper: float, lower: float, radius: float = 0.01) -> _Discs:
    """Return a block with rounded corners; ``upper`` and ``lower`` are half the widths at its
    ends.
    """
    return (
        (-upper, top, radius),
        (upper, top, radius),
        (-lower, bottom, radius),
        (lower, bottom, radius),
    )


_PIECES: dict[HeldItem, tuple[tuple[_Discs, float], ...]] = {
    HeldItem.BALL: ((((0.0, -0.04, 0.065),), 1.0),),
    HeldItem.BAT: (
        (((0.0, 0.03, 0.009), (0.0, -0.12, 0.009)), 0.8),
        (((0.0, -0.12, 0.01), (0.0, -0.26, 0.025), (0.0, -0.34, 0.025)), 1.0),
    ),
    HeldItem.BOTTLE: (
        (((0.0, 0.05, 0.009), (0.0, 0.085, 0.009)), 0.6),
        (_block(0.03, -0.075, 0.014, 0.014), 1.0),
    ),
    HeldItem.CASE: (
        (_block(-0.005, -0.04, 0.03, 0.04, 0.006), 0.7),
        (_block(-0.045, -0.17, 0.1, 0.1), 1.0),
    ),
    HeldItem.PURSE: ((_block(0.005, -0.06, 0.05, 0.045), 1.0),),
    HeldItem.UMBRELLA: (
        (((0.0, 0.04, 0.008), (0.0, -0.04, 0.008)), 0.6),
        (((0.0, -0.04, 0.01), (0.0, -0.12, 0.02), (0.0, -0.33, 0.004)), 1.0),
    ),
}

_HELD_ITEMS = tuple(HeldItem)


@dataclass(frozen=True)
class Accessories:
    """What a person wears and carries; None for what is absent.

    Attributes:
        watch: colour of a watch on the left wrist.
        wristband: colour of a band around the right wrist.
        tie, knee_pads, backpack: their colours.
        held_item: what the right hand holds if it hangs down.
        held_colour: colour of that.
    """

    watch: Colour | None = None
    wristband: Colour | None = None
    tie: Colour | None = None
    knee_pads: Colour | None = None
    backpack: Colour | None = None
    held_item: HeldItem | None = None
    held_colour: Colour = (0.0, 0.0, 0.0)


def equip(rng: np.random.Generator, outfit: Outfit) -> tuple[Outfit, Accessories]:
    """Change an outfit at random towards what CIHP has no labels for, and add accessories."""
    outfit = _change_clothes(rng, outfit)
    top = outfit.top
    bare_wrists = top.sleeves < 0.9 and outfit.coat is None and outfit.gloves is None
    shirt = not outfit.is_dress and top.sleeves > 0 and top.hem < 0.2 and outfit.scarf is None
    trousers = outfit.pants is not None

    def sometimes(frequency: float, neutral: float) -> Colour | None:
        return sample_colour(rng, neutral) if rng.random() < frequency else None

    return outfit, Accessories(
        watch=sometimes(0.4 * bare_wrists, 0.7),
        wristband=sometimes(0.3 * bare_wrists, 0.2),
        tie=sometimes(0.3 * shirt, 0.2),
        knee_pads=sometimes(0.12 * trousers, 0.5),
        backpack=sometimes(0.15, 0.3),
        held_item=_HELD_ITEMS[rng.integers(len(_HELD_ITEMS))] if rng.random() < 0.5 else None,
        held_colour=sample_colour(rng, 0.4),
    )


def _change_clothes(rng: np.random.Generator, outfit: Outfit) -> Outfit:
    top, pants, changes = outfit.top, outfit.pants, {}
    kind = rng.random()
    if kind < 0.12:
        changes |= {"shoes": ShoeStyle.BAREFOOT, "socks": None}
    elif kind < 0.24:
        changes |= {"shoes": ShoeStyle.SANDALS, "socks": None}
    elif kind < 0.32 or outfit.shoes is ShoeStyle.PUMPS:
        changes |= {"shoes": ShoeStyle.HIGH_HEELS, "socks": None}
    if outfit.sunglasses is not None and rng.random() < 0.4:
        changes["sunglasses"] = dataclasses.replace(outfit.sunglasses, clear=True)
    if rng.random() < 0.08:
        fabric = top.fabric if outfit.hat is None else outfit.hat.fabric
        changes["hat"] = Hat(HatStyle.HELMET, fabric, backwards=False)
    if pants is not None and pants.length > 1.2 and rng.random() < 0.2:
        changes |= {
            "is_jumpsuit": True,
            "top": dataclasses.replace(top, fabric=pants.fabric, hem=0.02),
            "pants": dataclasses.replace(pants, belt=None),
        }
    elif not outfit.is_dress and top.sleeves == 0 and rng.random() < 0.3:
        changes["top"] = dataclasses.replace(top, hem=0.46)  # of a bikini
    return dataclasses.replace(outfit, **changes)

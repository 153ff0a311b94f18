"""Outfits: which garments a person wears, their cut and their fabric."""

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from .fabric import Colour, Fabric, Pattern, sample_colour, sample_fabric, shaded


class HairStyle(Enum):
    """Ways to wear hair."""

    BALD = auto()
    BUZZ = auto()
    SHORT = auto()
    QUIFF = auto()
    CURLY = auto()
    AFRO = auto()
    BOB = auto()
    LONG = auto()
    PONYTAIL = auto()
    BUN = auto()
    BRAIDS = auto()


class HatStyle(Enum):
    """Kinds of hats."""

    CAP = auto()
    BEANIE = auto()
    SUN_HAT = auto()
    BUCKET = auto()
    FEDORA = auto()
    HELMET = auto()


class ShoeStyle(Enum):
    """Kinds of shoes."""

    SNEAKERS = auto()
    SLIPPERS = auto()
    BOOTS = auto()
    PUMPS = auto()
    HIGH_HEELS = auto()
    SANDALS = auto()
    BAREFOOT = auto()


@dataclass(frozen=True)
class Hair:
    """Hair and beard.

    Attributes:
        style, colour: cut and RGB colour.
        fringe: how far the hair covers the forehead, 0..1.
        parting: -1 for a parting on the right .. 1 for one on the left.
        beard: whether there is a beard. It is labelled as face.
    """

    style: HairStyle
    colour: Colour
    fringe: float
    parting: float
    beard: bool


@dataclass(frozen=True)
class Hat:
    """A hat; only a cap can be worn backwards."""

    style: HatStyle
    fabric: Fabric
    backwards: bool


@dataclass(frozen=True)
class Sunglasses:
    """Sunglasses, or glasses with ``clear`` lenses.

    ``roundness`` 0 is for square lenses, 1 for round ones.
    """

    colour: Colour
    frame: Colour
    roundness: float
    clear: bool = False


@dataclass(frozen=True)
class Scarf:
    """A scarf around the neck, with or without an end that hangs down."""

    fabric: Fabric
    tail: float  # length of the hanging end in body units, 0 for none
    tail_side: float  # -1 .. 1, place of the tail across the chest


@dataclass(frozen=True)
class Top:
    """An upper garment, or the bodice of a dress.

    Attributes:
        sleeves: 0 (none) .. 0.4 (short) .. 1 (down to the wrist).
        hem: level of the spine where it ends (see ``Skeleton.torso_section``).
        neckline: depth of the neckline along the spine, in levels.
        v_neck: whether the neckline is pointed.
        looseness: factor on the body's thickness.
        buttons: whether there is a row of buttons down the front.
    """

    fabric: Fabric
    sleeves: float
    hem: float
    neckline: float
    v_neck: bool
    looseness: float
    buttons: bool = False


@dataclass(frozen=True)
class Coat:
    """An open coat or jacket.

    Attributes:
        length: how far it reaches down the legs: 0 the hip joints, 1 the knees.
        opening: half width of the opening at the waist, in units of the body's half width.
    """

    fabric: Fabric
    lining: Colour
    length: float
    opening: float


@dataclass(frozen=True)
class Pants:
    """Trousers; ``length`` is 0.5 at mid thigh, 1 at the knee, 2 at the ankle."""

    fabric: Fabric
    length: float
    looseness: float
    rise: float
    belt: Colour | None


@dataclass(frozen=True)
class Skirt:
    """A skirt, also of a dress; ``length`` as of ``Pants``, ``flare`` widens the hem."""

    fabric: Fabric
    length: float
    flare: float
    rise: float


@dataclass(frozen=True)
class Outfit:
    """Everything a person wears; None for what is absent.

    With a dress ``top`` and ``skirt`` are both labelled as dress. A jumpsuit is a top and trousers
    in one.
    """

    hair: Hair
    hat: Hat | None
    sunglasses: Sunglasses | None
    scarf: Scarf | None
    top: Top | None
    is_dress: bool
    coat: Coat | None
    pants: Pants | None
    skirt: Skirt | None
    gloves: Fabric | None
    socks: Fabric | None
    sock_height: float  # 0 the ankle .. 1 the knee
    shoes: ShoeStyle
    shoe_colour: Colour
    sole_colour: Colour
    handbag: Colour | None
    is_jumpsuit: bool = False


# Styles that CIHP's labels suffice for; ``accessories.equip`` knows more.
_HAT_STYLES = (HatStyle.CAP, HatStyle.BEANIE, HatStyle.SUN_HAT, HatStyle.BUCKET, HatStyle.FEDORA)

_TOP_PATTERNS = {
    Pattern.PLAIN: 0.8,
    Pattern.HOOPS: 0.12,
    Pattern.PINSTRIPES: 0.05,
    Pattern.PLAID: 0.08,
    Pattern.GINGHAM: 0.04,
    Pattern.DOTS: 0.06,
    Pattern.FLORAL: 0.05,
    Pattern.DIAMONDS: 0.03,
    Pattern.ZIGZAG: 0.03,
    Pattern.CAMOUFLAGE: 0.02,
    Pattern.KNIT: 0.06,
    Pattern.COLOUR_BLOCK: 0.04,
    Pattern.EMBLEM: 0.12,
}
CLUTTER_PATTERNS = _TOP_PATTERNS
"""Patterns for things that are no clothes but look like them."""

_DRESS_PATTERNS = {
    Pattern.PLAIN: 0.9,
    Pattern.FLORAL: 0.2,
    Pattern.DOTS: 0.16,
    Pattern.HOOPS: 0.08,
    Pattern.PLAID: 0.06,
    Pattern.ZIGZAG: 0.05,
    Pattern.PINSTRIPES: 0.05,
}
_PANTS_PATTERNS = {
    Pattern.PLAIN: 0.56,
    Pattern.DENIM: 0.3,
    Pattern.PINSTRIPES: 0.04,
    Pattern.PLAID: 0.05,
    Pattern.CAMOUFLAGE: 0.05,
}
_COAT_PATTERNS = {
    Pattern.PLAIN: 0.8,
    Pattern.PLAID: 0.1,
    Pattern.KNIT: 0.06,
    Pattern.PINSTRIPES: 0.04,
}
_SCARF_PATTERNS = {Pattern.PLAIN: 0.4, Pattern.HOOPS: 0.3, Pattern.PLAID: 0.2, Pattern.KNIT: 0.1}
_SOCK_PATTERNS = {Pattern.PLAIN: 0.55, Pattern.HOOPS: 0.35, Pattern.DIAMONDS: 0.1}
_HAT_PATTERNS = {Pattern.PLAIN: 0.7, Pattern.KNIT: 0.12, Pattern.HOOPS: 0.12, Pattern.PLAID: 0.06}
_GLOVE_PATTERNS = {Pattern.PLAIN: 0.8, Pattern.HOOPS: 0.12, Pattern.KNIT: 0.08}

# Kinds of garments are not equally likely in every colour, here as in a real wardrobe.
_TOP_COLOURS = [(206, 52, 48), (228, 112, 44), (232, 84, 60), (186, 40, 48)]
_DRESS_COLOURS = [(146, 68, 168), (204, 78, 158), (228, 132, 182), (104, 58, 150), (186, 122, 208)]
_COAT_COLOURS = [(96, 92, 88), (122, 116, 106), (72, 70, 70), (108, 104, 84), (136, 132, 128)]
_PANTS_COLOURS = [(54, 80, 128), (38, 50, 92), (88, 112, 160), (44, 62, 120)]
_SKIRT_COLOURS = [(40, 138, 72), (58, 150, 60), (112, 160, 60), (30, 108, 64), (150, 190, 96)]
_SOCK_COLOURS = [(244, 206, 60), (236, 188, 40), (250, 224, 96)]
_GLOVE_COLOURS = [(38, 186, 206), (72, 212, 196), (30, 140, 190)]
_SHOE_COLOURS = [(28, 28, 32), (74, 46, 30), (52, 36, 30)]
_SCARF_COLOURS = [(122, 28, 52), (164, 36, 84), (92, 22, 60)]
_HAT_COLOURS = [(196, 190, 60), (222, 206, 84), (170, 172, 52)]

_HAIR_COLOURS = [
    (28, 22, 20),
    (44, 30, 24),
    (70, 44, 30),
    (92, 50, 28),
    (140, 58, 28),
]


def _choose(rng: np.random.Generator, options: dict):
    weights = np.array(list(options.values()), dtype=float)
    return list(options)[rng.choice(len(options), p=weights / weights.sum())]


def _sample_hair(rng: np.random.Generator) -> Hair:
    style = _choose(
        rng,
        {
            HairStyle.BALD: 0.02,
            HairStyle.BUZZ: 0.03,
            HairStyle.SHORT: 0.2,
            HairStyle.QUIFF: 0.1,
            HairStyle.CURLY: 0.08,
            HairStyle.AFRO: 0.06,
            HairStyle.BOB: 0.13,
            HairStyle.LONG: 0.15,
            HairStyle.PONYTAIL: 0.07,
            HairStyle.BUN: 0.06,
            HairStyle.BRAIDS: 0.04,
        },
    )
    if rng.random() < 0.02:
        colour = sample_colour(rng, neutral=0.0)
    else:
        colour = tuple(
            np.clip(_HAIR_COLOURS[rng.integers(len(_HAIR_COLOURS))] + rng.normal(0, 7, 3), 8, 245)
        )
    short = style in (HairStyle.BALD, HairStyle.BUZZ, HairStyle.SHORT, HairStyle.QUIFF)
    return Hair(
        style=style,
        colour=tuple(float(c) for c in colour),
        fringe=float(rng.uniform(0, 1)) if rng.random() < 0.6 else 0.0,
        parting=float(rng.uniform(-1, 1)),
        beard=bool(short and rng.random() < 0.35),
    )


def _sample_hat(rng: np.random.Generator) -> Hat:
    style = _HAT_STYLES[rng.integers(len(_HAT_STYLES))]
    return Hat(
        style, sample_fabric(rng, _HAT_PATTERNS, typical=_HAT_COLOURS), bool(rng.random() < 0.15)
    )


def _sample_top(rng: np.random.Generator) -> Top:
    sleeves = _choose(rng, {0.0: 0.3, 0.4: 0.52, 0.55: 0.06, 0.8: 0.03, 1.0: 0.09})
    hem = _choose(rng, {-0.12: 0.3, 0.02: 0.25, 0.12: 0.25, 0.46: 0.14, -0.25: 0.06})
    return Top(
        fabric=sample_fabric(rng, _TOP_PATTERNS, typical=_TOP_COLOURS),
        sleeves=sleeves,
        hem=hem,
        neckline=float(rng.uniform(0.08, 0.26)),
        v_neck=bool(rng.random() < 0.4),
        looseness=float(rng.uniform(1.02, 1.2)),
        buttons=bool(rng.random() < 0.25),
    )


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """Draw an outfit; every garment of CIHP's labels turns up in a fair share of outfits."""
    top = _sample_top(rng)
    pants = skirt = None
    kind = _choose(rng, {"pants": 0.28, "shorts": 0.26, "skirt": 0.24, "dress": 0.22})
    is_dress = kind == "dress"
    if kind in ("pants", "shorts"):
        full = kind == "pants"
        length = rng.choice([1.55, 1.75, 2.0], p=[0.15, 0.2, 0.65]) if full else 0
        pants = Pants(
            fabric=sample_fabric(rng, _PANTS_PATTERNS, 0.65, _PANTS_COLOURS),
            length=float(length if full else rng.uniform(0.4, 1.05)),
            looseness=float(rng.uniform(1.05, 1.4)),
            rise=float(rng.uniform(0.2, 0.34)),
            belt=sample_colour(rng, 1.0) if rng.random() < 0.3 else None,
        )
    elif kind == "skirt":
        skirt = Skirt(
            fabric=sample_fabric(rng, _DRESS_PATTERNS, typical=_SKIRT_COLOURS),
            length=float(rng.choice([rng.uniform(0.5, 1.0), rng.uniform(1.0, 1.75)])),
            flare=float(rng.uniform(1.1, 1.9)),
            rise=float(rng.uniform(0.28, 0.42)),
        )
    else:
        fabric = sample_fabric(rng, _DRESS_PATTERNS, typical=_DRESS_COLOURS)
        top = Top(
            fabric=fabric,
            sleeves=_choose(rng, {0.0: 0.48, 0.35: 0.4, 1.0: 0.12}),
            hem=0.0,
            neckline=float(rng.uniform(0.1, 0.28)),
            v_neck=bool(rng.random() < 0.5),
            looseness=float(rng.uniform(1.02, 1.1)),
        )
        skirt = Skirt(
            fabric,
            length=float(rng.choice([rng.uniform(0.5, 1.0), rng.uniform(1.0, 1.8)])),
            flare=float(rng.uniform(1.1, 2.0)),
            rise=0.36,
        )

    coat = None
    if rng.random() < 0.26:
        coat = Coat(
            fabric=sample_fabric(rng, _COAT_PATTERNS, typical=_COAT_COLOURS),
            lining=sample_colour(rng, 0.8),
            length=float(rng.choice([0.0, rng.uniform(0.3, 0.7), rng.uniform(0.8, 1.15)])),
            opening=float(rng.uniform(0.28, 0.62)),
        )

    bare_ankles = pants is None or pants.length < 1.8
    socks = None
    if bare_ankles and rng.random() < 0.5:
        socks = sample_fabric(rng, _SOCK_PATTERNS, typical=_SOCK_COLOURS)
    shoes = _choose(
        rng,
        {
            ShoeStyle.SNEAKERS: 0.5,
            ShoeStyle.SLIPPERS: 0.2,
            ShoeStyle.PUMPS: 0.14 if socks is None else 0.0,
            ShoeStyle.BOOTS: 0.22 if socks is None else 0.04,
        },
    )
    shoe_colour = sample_colour(rng, 0.55, _SHOE_COLOURS)
    return Outfit(
        hair=_sample_hair(rng),
        hat=_sample_hat(rng) if rng.random() < 0.24 else None,
        sunglasses=Sunglasses(
            colour=shaded(sample_colour(rng, 0.6), 0.2),
            frame=shaded(sample_colour(rng, 0.5), 0.4),
            roundness=float(rng.uniform(0, 1)),
        )
        if rng.random() < 0.22
        else None,
        scarf=Scarf(
            fabric=sample_fabric(rng, _SCARF_PATTERNS, 0.25, _SCARF_COLOURS),
            tail=float(rng.uniform(0.1, 0.3)) if rng.random() < 0.8 else 0.0,
            tail_side=float(rng.uniform(-0.6, 0.6)),
        )
        if rng.random() < 0.19
        else None,
        top=top,
        is_dress=is_dress,
        coat=coat,
        pants=pants,
        skirt=skirt,
        gloves=sample_fabric(rng, _GLOVE_PATTERNS, 0.3, _GLOVE_COLOURS)
        if rng.random() < 0.17
        else None,
        socks=socks,
        sock_height=float(rng.uniform(0.3, 0.8)),
        shoes=shoes,
        shoe_colour=shoe_colour,
        sole_colour=(236.0, 234.0, 228.0) if rng.random() < 0.6 else shaded(shoe_colour, 0.5),
        handbag=sample_colour(rng, 0.5) if rng.random() < 0.12 else None,
    )

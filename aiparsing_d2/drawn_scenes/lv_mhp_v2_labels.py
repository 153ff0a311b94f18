"""LV-MHP-v2's labels of drawn people.

What a garment is called follows from how it is drawn: by a top's sleeves and buttons, a coat's
length, and so on. ``NEVER_DRAWN`` lists the few parts that no figure shows.
"""

import cv2
import numpy as np

from aiparsing_d2.structures.part_labels import LV_MHP_V2_PART_LABELS

from .parts import Detail, Part, Side
from .person import Person
from .scene import DrawnScene
from .wardrobe import Coat, Hat, HatStyle, Outfit, Pants, ShoeStyle, Sunglasses, Top

_LABELS = {name: label for label, name in enumerate(LV_MHP_V2_PART_LABELS.names)}

NEVER_DRAWN = ("Robe", "Other-full-body-clothes", "Other-accessary", "Other-lower-body-clothes")
"""Parts that no figure shows; all the others turn up."""

# How far a person's map goes on behind other people, in units of the image's height.
_OVERLAP = 0.04

_SHOES = {
    ShoeStyle.BOOTS: "boot",
    ShoeStyle.HIGH_HEELS: "highheel",
    ShoeStyle.SANDALS: "sandal",
}
_DETAILS = {
    Detail.BELT: "Belt",
    Detail.HANDBAG: "Carrybag",
    Detail.WATCH: "Watch",
    Detail.WRISTBAND: "Wristband",
    Detail.TIE: "Tie",
    Detail.KNEE_PAD: "Protector",
    Detail.BACKPACK: "Backpack",
    Detail.BALL: "Ball",
    Detail.BAT: "Bats",
    Detail.BOTTLE: "Bottle",
    Detail.CASE: "Cases",
    Detail.PURSE: "Wallet/purse",
    Detail.UMBRELLA: "Umbrella",
}


def person_label_maps(scene: DrawnScene) -> list[np.ndarray]:
    """LV-MHP-v2's part labels of each person who can be seen.

    A map holds what can be seen of the person, and a rim of what people in front hide, as if each
    person had been outlined without regard to the others: such maps overlap. Painted over each
    other in their order they give what can be seen.

    Returns:
        uint8 (H, W) each, those of the farthest first.
    """
    seen = np.zeros(scene.in_front.shape, dtype=np.uint8)  # 1 + index of the layer, 0 for none
    maps = []
    for index, layer in enumerate(scene.layers):
        figure = np.zeros_like(seen)
        figure[layer.window] = label_table(layer.person)[layer.label, layer.detail]
        seen[layer.window][layer.solid] = (index + 1) * (figure[layer.window][layer.solid] > 0)
        maps.append(figure)
    seen[scene.in_front] = 0

    reach = max(round(_OVERLAP * seen.shape[0]), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    visible_maps = []
    for index, figure in enumerate(maps):
        visible = seen == index + 1
        if visible.any():
            near = cv2.dilate(visible.astype(np.uint8), disc) > 0
            hidden_by_people = seen > index + 1
            visible_maps.append(np.where(visible | (near & hidden_by_people), figure, 0))
    return visible_maps


def label_table(person: Person) -> np.ndarray:
    """LV-MHP-v2's label for every part and detail of a person: uint8 (parts, details)."""
    names = _part_names(person.outfit)
    table = np.zeros((len(Part), len(Detail)), dtype=np.uint8)
    for part, name in names.items():
        table[part] = _LABELS[name]
    for detail, name in _DETAILS.items():
        table[:, detail] = _LABELS[name]
    for side in Side:
        own = side.name.capitalize()
        table[side.arm, Detail.HAND] = _LABELS[f"{own}-hand"]
        table[side.leg, Detail.FOOT] = _LABELS[f"{own}-foot"]
    return table


def _part_names(outfit: Outfit) -> dict[Part, str]:
    """Return what LV-MHP-v2 calls the parts of somebody with an outfit."""
    names = {
        Part.HAIR: "Hair",
        Part.GLOVE: "Glove",
        Part.DRESS: "Dress",
        Part.SOCKS: "Stockings" if outfit.sock_height > 0.6 else "Socks",
        Part.TORSO_SKIN: "Torso-skin",
        Part.SCARF: "Scarf",
        Part.SKIRT: "Skirt",
        Part.FACE: "Face",
    }
    for side in Side:
        own = side.name.capitalize()
        names[side.arm] = f"{own}-arm"
        names[side.leg] = f"{own}-leg"
        names[side.shoe] = f"{own}-{_SHOES.get(outfit.shoes, 'shoe')}"
    if outfit.hat is not None:
        names[Part.HAT] = _hat_name(outfit.hat)
    if outfit.sunglasses is not None:
        names[Part.SUNGLASSES] = _glasses_name(outfit.sunglasses)
    if outfit.coat is not None:
        names[Part.COAT] = _coat_name(outfit.coat)
    if outfit.is_jumpsuit:
        names |= {Part.UPPER_CLOTHES: "Jumpsuit", Part.PANTS: "Jumpsuit"}
    else:
        names[Part.UPPER_CLOTHES] = _top_name(outfit.top)
        if outfit.pants is not None:
            names[Part.PANTS] = _pants_name(outfit.pants)
    return names


def _hat_name(hat: Hat) -> str:
    if hat.style is HatStyle.HELMET:
        return "Helmet"
    return "Headwear" if hat.style is HatStyle.BEANIE else "Cap/hat"


def _glasses_name(glasses: Sunglasses) -> str:
    return "Eyewear" if glasses.clear else "Sunglasses"


def _coat_name(coat: Coat) -> str:
    return "Coat" if coat.length > 0 else "Jacket/windbreaker/hoodie"


def _pants_name(pants: Pants) -> str:
    return "Pants" if pants.length > 1.2 else "Shorts/swim-shorts"


def _top_name(top: Top) -> str:
    if top.sleeves == 0:
        return "Bikini/bra" if top.hem > 0.4 else "Singlet"
    if top.sleeves < 0.7:
        return "Polo-shirt" if top.buttons else "Tee-shirt"
    return "Other-upper-body-clothes" if top.buttons else "Sweater"

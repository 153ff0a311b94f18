"""The 59 tags of CCP, and what CIHP calls them.

Most tags are one of CIHP's labels, or none. Skin, shoes and suits are several, and which one
depends on the place on the body: see :mod:`.body_parts`.
"""

from __future__ import annotations

import numpy as np

from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, IGNORE_LABEL

__all__ = ["BAGS", "CIHP_LABEL_OF_TAG", "SHOES", "SKIN", "SUIT", "TAGS"]

TAGS = tuple(
    "null accessories bag belt blazer blouse bodysuit boots bra bracelet cape cardigan clogs coat "
    "dress earrings flats glasses gloves hair hat heels hoodie intimate jacket jeans jumper "
    "leggings loafers necklace panties pants pumps purse ring romper sandals scarf shirt shoes "
    "shorts skin skirt sneakers socks stockings suit sunglasses sweater sweatshirt swimwear "
    "t-shirt tie tights top vest wallet watch wedges".split()
)
"""The tags as in ``label_list.mat``; the index is the value in ``groundtruth``."""

_TAGS_OF_CIHP_LABEL = {
    "Background": "null bag purse wallet",
    "Hat": "hat",
    "Hair": "hair",
    "Glove": "gloves",
    "Sunglasses": "sunglasses glasses",
    "UpperClothes": "blouse shirt t-shirt top sweater sweatshirt jumper hoodie vest bra intimate "
    "tie swimwear",
    "Dress": "dress romper bodysuit",
    "Coat": "coat jacket blazer cape cardigan",
    "Socks": "socks stockings tights",
    "Pants": "pants jeans leggings shorts panties",
    "Scarf": "scarf",
    "Skirt": "skirt",
}


def _numbers(tags: str) -> np.ndarray:
    return np.array([TAGS.index(tag) for tag in tags.split()], dtype=np.uint8)


SKIN = _numbers("skin")
SUIT = _numbers("suit")
SHOES = _numbers("boots clogs flats heels loafers pumps sandals shoes sneakers wedges")
BAGS = _numbers("bag purse wallet")


def _cihp_label_of_tag() -> np.ndarray:
    labels = np.full(len(TAGS), IGNORE_LABEL, dtype=np.uint8)
    for name, tags in _TAGS_OF_CIHP_LABEL.items():
        labels[_numbers(tags)] = CIHP_PART_LABELS.names.index(name)
    return labels


CIHP_LABEL_OF_TAG = _cihp_label_of_tag()
"""CIHP's label of each tag, uint8 (59,). 255 for those that CIHP does not know (belt, jewellery,
accessories) and for those that depend on the place: SKIN, SUIT and SHOES."""

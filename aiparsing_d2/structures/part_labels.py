"""The label set of a parsing data set: part names, drawing colours and left/right pairs.

Mapper, evaluator and visualisation all take what they need to know about labels from a
:class:`PartLabels`, so that a data set with other parts needs nothing but another instance of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "CIHP_PART_LABELS",
    "IGNORE_LABEL",
    "LV_MHP_V2_PART_LABELS",
    "PartLabels",
    "distinct_colors",
    "get_part_labels",
]

IGNORE_LABEL = 255
"""Label of pixels that count neither in training nor in evaluation."""

_IGNORE_COLOR = (224, 224, 224)


@dataclass(frozen=True)
class PartLabels:
    """Names, colours and left/right pairs of the labels ``0 .. num_classes - 1``.

    Args:
        names: part names; the index is the label, and label 0 is the background.
        colors: one RGB colour a label, each channel in 0..255.
        flip_pairs: pairs of labels that trade places when an image is mirrored, because left and
            right are those of the person. A label is in at most one pair.

    Raises:
        ValueError: the arguments do not fit together.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        # Lists, as they come out of metadata and config files, become tuples: hashable, comparable.
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        object.__setattr__(self, "colors", _tuples_of_int("colors", self.colors, 3))
        object.__setattr__(self, "flip_pairs", _tuples_of_int("flip_pairs", self.flip_pairs, 2))

        if not 2 <= len(self.names) <= IGNORE_LABEL:
            raise ValueError(
                f"A label set needs the background and 1 to {IGNORE_LABEL - 1} parts, "
                f"got {len(self.names)} names."
            )
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"Part names must differ; repeated: {', '.join(repeated)}.")
        if len(self.colors) != len(self.names):
            raise ValueError(f"{len(self.names)} names but {len(self.colors)} colors.")
        for color in self.colors:
            if not all(0 <= channel <= 255 for channel in color):
                raise ValueError(f"Color {color} has a channel outside of 0..255.")
        paired = [label for pair in self.flip_pairs for label in pair]
        for label in paired:
            if not 1 <= label < self.num_classes:
                raise ValueError(
                    f"Flip pair label {label} is not a part: parts are 1..{self.num_classes - 1}."
                )
            if paired.count(label) > 1:
                raise ValueError(f"Label {label} is in more than one flip pair, or paired twice.")

    @property
    def num_classes(self) -> int:
        """Number of labels, the background included."""
        return len(self.names)

    def flip_table(self) -> np.ndarray:
        """Lookup table that exchanges left and right.

        Returns:
            uint8 array (256,): ``table[part_map]`` is the map with the labels of each flip pair
            swapped. Every other value, 255 among them, stands for itself.
        """
        table = np.arange(256, dtype=np.uint8)
        for left, right in self.flip_pairs:
            table[left], table[right] = right, left
        return table

    def colorize(self, label_map: np.ndarray) -> np.ndarray:
        """Render a label map in the colours of the set, ignored pixels in light grey.

        Args:
            label_map: integer array (...,) of labels.

        Returns:
            uint8 array (..., 3), RGB.

        Raises:
            ValueError: a label is out of range.
        """
        unknown = (label_map >= self.num_classes) & (label_map != IGNORE_LABEL)
        if unknown.any():
            raise ValueError(
                f"Labels are 0..{self.num_classes - 1} and {IGNORE_LABEL}, but the map holds "
                f"{', '.join(map(str, np.unique(label_map[unknown])))}."
            )
        palette = np.empty((256, 3), dtype=np.uint8)
        palette[: self.num_classes] = self.colors
        palette[IGNORE_LABEL] = _IGNORE_COLOR
        return palette.take(label_map, axis=0)  # in a third of the time of palette[label_map]

    def as_metadata(self) -> dict[str, list]:
        """Entries for Detectron2's metadata; :meth:`from_metadata` reads them back.

        "stuff_classes" and "stuff_colors" are for Detectron2's ``Visualizer``.
        """
        return {
            "stuff_classes": list(self.names),
            "stuff_colors": list(self.colors),
            "part_names": list(self.names),
            "part_colors": list(self.colors),
            "part_flip_pairs": list(self.flip_pairs),
        }

    @classmethod
    def from_metadata(cls, metadata: Any) -> PartLabels:
        """Label set of a registered data set.

        Args:
            metadata: ``MetadataCatalog.get(name)`` of a data set with ``part_names``,
                ``part_colors`` and ``part_flip_pairs``.

        Raises:
            AttributeError: one of them is missing.
        """
        return cls(metadata.part_names, metadata.part_colors, metadata.part_flip_pairs)


def get_part_labels(dataset_names: str | Sequence[str]) -> PartLabels:
    """Label set shared by registered data sets.

    Args:
        dataset_names: name(s) in Detectron2's ``MetadataCatalog``.

    Raises:
        KeyError: a name is not registered.
        ValueError: no name is given, a data set has no part labels, or the sets differ.
    """
    # Imported here so that the label sets themselves can be used without Detectron2.
    from detectron2.data import DatasetCatalog, MetadataCatalog

    names = [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)
    if not names:
        raise ValueError("No data set to take the part labels from.")
    label_sets = {}
    for name in names:
        if name not in DatasetCatalog:
            raise KeyError(
                f"Data set '{name}' is not registered: import what registers it, or read the "
                "config file that does."
            )
        metadata = MetadataCatalog.get(name)
        if metadata.get("part_names") is None:
            raise ValueError(
                f"Data set '{name}' has no part labels in its metadata. "
                "aiparsing_d2.data.datasets.register_parsing_dataset sets them."
            )
        label_sets[name] = PartLabels.from_metadata(metadata)
    first = names[0]
    for name in names[1:]:
        if label_sets[name] != label_sets[first]:
            raise ValueError(f"Data sets '{first}' and '{name}' do not have the same part labels.")
    return label_sets[first]


def distinct_colors(num_colors: int) -> tuple[tuple[int, int, int], ...]:
    """Colours that are easy to tell apart, for label sets that come without any.

    Of the RGB colours with channels 0, 32, 64 .. 224, 255, the first is black, for the background.
    Each further one is the colour that lies farthest, in CIE L*a*b*, from the nearest of those
    before it and of the colour of ignored pixels.

    Args:
        num_colors: at most 728. The first colours do not depend on it.

    Returns:
        RGB colours, channels in 0..255.
    """
    levels = np.minimum(np.arange(0, 257, 32), 255)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    candidates = candidates.reshape(-1, 3)
    lab = _rgb_to_lab(candidates)
    distance = np.linalg.norm(lab - _rgb_to_lab(np.array(_IGNORE_COLOR)), axis=1)
    chosen = [0]
    while len(chosen) < num_colors:
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return tuple(tuple(color) for color in candidates[chosen].tolist())


def _rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB colours with channels in 0..255, float64 (..., 3)."""
    linear = rgb / 255.0
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    rgb_to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.array(rgb_to_xyz).T / [0.9505, 1.0, 1.089]  # relative to white
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _tuples_of_int(what: str, rows: Any, width: int) -> tuple[tuple[int, ...], ...]:
    rows = tuple(tuple(int(value) for value in row) for row in rows)
    for row in rows:
        if len(row) != width:
            raise ValueError(f"Each of the {what} must have {width} entries, got {row}.")
    return rows


CIHP_PART_LABELS = PartLabels(
    names=(
        "Background",
        "Hat",
        "Hair",
        "Glove",
        "Sunglasses",
        "UpperClothes",
        "Dress",
        "Coat",
        "Socks",
        "Pants",
        "Torso-skin",
        "Scarf",
        "Skirt",
        "Face",
        "Left-arm",
        "Right-arm",
        "Left-leg",
        "Right-leg",
        "Left-shoe",
        "Right-shoe",
    ),
    colors=(
        (0, 0, 0),
        (128, 0, 0),
        (255, 0, 0),
        (0, 85, 0),
        (170, 0, 51),
        (255, 85, 0),
        (0, 0, 85),
        (0, 119, 221),
        (85, 85, 0),
        (0, 85, 85),
        (85, 51, 0),
        (52, 86, 128),
        (0, 128, 0),
        (0, 0, 255),
        (51, 170, 221),
        (0, 255, 255),
        (85, 255, 170),
        (170, 255, 85),
        (255, 255, 0),
        (255, 170, 0),
    ),
    flip_pairs=((14, 15), (16, 17), (18, 19)),
)
"""The 19 parts of CIHP, which VIP uses too."""

LV_MHP_V2_PART_LABELS = PartLabels(
    names=(
        "Background",
        "Cap/hat",
        "Helmet",
        "Face",
        "Hair",
        "Left-arm",
        "Right-arm",
        "Left-hand",
        "Right-hand",
        "Protector",
        "Bikini/bra",
        "Jacket/windbreaker/hoodie",
        "Tee-shirt",
        "Polo-shirt",
        "Sweater",
        "Singlet",
        "Torso-skin",
        "Pants",
        "Shorts/swim-shorts",
        "Skirt",
        "Stockings",
        "Socks",
        "Left-boot",
        "Right-boot",
        "Left-shoe",
        "Right-shoe",
        "Left-highheel",
        "Right-highheel",
        "Left-sandal",
        "Right-sandal",
        "Left-leg",
        "Right-leg",
        "Left-foot",
        "Right-foot",
        "Coat",
        "Dress",
        "Robe",
        "Jumpsuit",
        "Other-full-body-clothes",
        "Headwear",
        "Backpack",
        "Ball",
        "Bats",
        "Belt",
        "Bottle",
        "Carrybag",
        "Cases",
        "Sunglasses",
        "Eyewear",
        "Glove",
        "Scarf",
        "Umbrella",
        "Wallet/purse",
        "Watch",
        "Wristband",
        "Tie",
        "Other-accessary",
        "Other-upper-body-clothes",
        "Other-lower-body-clothes",
    ),
    colors=distinct_colors(59),
    flip_pairs=(
        (5, 6),
        (7, 8),
        (22, 23),
        (24, 25),
        (26, 27),
        (28, 29),
        (30, 31),
        (32, 33),
    ),
)
"""The 58 parts, garments and things of LV-MHP-v2; the data set comes without colours."""

"""Figures of a split: people per image, how frequent the parts are, how large the boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiparsing_d2.structures.part_labels import IGNORE_LABEL, PartLabels

from .verification import ImageReport

__all__ = ["PLOT_NAMES", "PartFrequency", "SplitStatistics", "collect_statistics"]

PLOT_NAMES = ("people_per_image.png", "part_frequencies.png", "box_sizes.png")
"""The pictures that :mod:`~aiparsing_d2.preparation.statistics_plots` draws."""

# Square roots of the areas at which COCO calls a box medium, and large.
_COCO_SIZES = (32, 96)


@dataclass(frozen=True)
class PartFrequency:
    """How frequent a part is.

    Attributes:
        label, name: the part.
        images, people: how many have at least one pixel of it.
        pixels: how many pixels, people counted one by one where they overlap.
    """

    label: int
    name: str
    images: int
    people: int
    pixels: int


@dataclass(frozen=True)
class SplitStatistics:
    """Figures of a split.

    Attributes:
        people_in_image: int64 (I,), the number of people in each image.
        parts: the frequency of each label but 0, in their order.
        ignored_pixels: number of pixels of people that are to be ignored, or out of range.
        boxes: int64 (P, 2), width and height in pixels of each person's box, image by image.
        image_sizes: int64 (I, 2), width and height in pixels of each image.
    """

    people_in_image: np.ndarray
    parts: list[PartFrequency]
    ignored_pixels: int
    boxes: np.ndarray
    image_sizes: np.ndarray

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.people_in_image)

    @property
    def num_people(self) -> int:
        """Number of people."""
        return len(self.boxes)

    @property
    def people_per_image(self) -> dict[int, int]:
        """Number of people -> number of images with so many."""
        return dict(zip(*(n.tolist() for n in np.unique(self.people_in_image, return_counts=True))))

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        lengths = np.sqrt(self.boxes.prod(axis=1))
        small, large = (int(np.count_nonzero(lengths < size)) for size in _COCO_SIZES)
        return {
            "images": self.num_images,
            "people": self.num_people,
            "people_per_image": {
                "mean": self.num_people / self.num_images if self.num_images else None,
                "images": {str(number): n for number, n in self.people_per_image.items()},
            },
            "parts": [vars(part) for part in self.parts],
            "ignored_pixels": self.ignored_pixels,
            "box_width": _quantiles(self.boxes[:, 0]),
            "box_height": _quantiles(self.boxes[:, 1]),
            "box_size": {
                **_quantiles(lengths),
                "small": small,
                "medium": large - small,
                "large": self.num_people - large,
            },
            "image_width": _quantiles(self.image_sizes[:, 0]),
            "image_height": _quantiles(self.image_sizes[:, 1]),
        }


def collect_statistics(reports: Iterable[ImageReport], part_labels: PartLabels) -> SplitStatistics:
    """Count over images.

    Args:
        reports: the images, all of which can be read.
        part_labels: the label set.
    """
    images, people, pixels = (np.zeros(256, dtype=np.int64) for _ in range(3))
    people_in_image, boxes, image_sizes = [], [], []
    for report in reports:
        people_in_image.append(len(report.people))
        image_sizes.append((report.width, report.height))
        in_image = set()
        for person in report.people:
            boxes.append(person.bbox[2:])
            in_image.update(person.part_pixels)
            for label, count in person.part_pixels.items():
                people[label] += 1
                pixels[label] += count
        images[list(in_image)] += 1
    num_classes = part_labels.num_classes
    return SplitStatistics(
        people_in_image=np.array(people_in_image, dtype=np.int64),
        parts=[
            PartFrequency(
                label, part_labels.names[label], *(int(n[label]) for n in (images, people, pixels))
            )
            for label in range(1, num_classes)
        ],
        ignored_pixels=int(pixels[num_classes : IGNORE_LABEL + 1].sum()),
        boxes=np.array(boxes, dtype=np.int64).reshape(-1, 2),
        image_sizes=np.array(image_sizes, dtype=np.int64).reshape(-1, 2),
    )


def _quantiles(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Minimum, quartiles, maximum and mean; nothing of nothing."""
    if not len(values):
        return {}
    names = "min", "quartile_1", "median", "quartile_3", "max"
    quantiles = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()
    return {**dict(zip(names, quantiles)), "mean": float(np.mean(values))}

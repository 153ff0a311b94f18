"""Pasting people of other images into an image (simple copy-paste, Ghiasi et al., CVPR 2021).

Labelled photographs of one person each become scenes of several: people beside and before each
other, large and small, cut by the image's edges. Needs only numpy, OpenCV and Pillow.

Shape shorthand:
    P: people of an image. H, W: size of the image in pixels.
    depth order: people from the farthest to the nearest; the nearer hide the farther.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from aiparsing_d2.structures.part_labels import PartLabels

from .annotations import PersonAnnotations, read_person_annotations
from .image_files import read_image

__all__ = ["CopyPaste", "Cutout", "LazyRecords", "Placement", "paste_people"]


@dataclass(frozen=True)
class Cutout:
    """A person cut out of an image.

    Attributes:
        image: uint8 (h, w, C), the person's box of the image.
        part_map: uint8 (h, w), the person's labels there; 0 where the person is not.
    """

    image: np.ndarray
    part_map: np.ndarray

    def mirrored(self, part_labels: PartLabels) -> Cutout:
        """Return the mirror image, with the labels of left and right parts exchanged."""
        flipped = cv2.LUT(cv2.flip(self.part_map, 1), part_labels.flip_table())
        # OpenCV drops the axis of a single channel.
        return Cutout(cv2.flip(self.image, 1).reshape(self.image.shape), flipped)

    def resized(self, height: int) -> Cutout:
        """Return the cutout at another height in pixels, at the same ratio of sides.

        Colours are averaged where it shrinks; each label is that of the nearest pixel.
        """
        old_height, old_width = self.part_map.shape
        size = (max(round(old_width * height / old_height), 1), height)
        smooth = cv2.INTER_AREA if height < old_height else cv2.INTER_LINEAR
        image = cv2.resize(self.image, size, interpolation=smooth)
        return Cutout(
            image.reshape(height, size[0], -1),
            cv2.resize(self.part_map, size, interpolation=cv2.INTER_NEAREST_EXACT),
        )


@dataclass(frozen=True)
class Placement:
    """Where a cutout goes.

    Attributes:
        cutout: the person, at the size it is to have.
        x, y: of the cutout's top left corner in the image, in pixels; may lie outside.
        depth: place in the depth order of the people that are there already, ``0..P``.
    """

    cutout: Cutout
    x: int
    y: int
    depth: int


def paste_people(
    image: np.ndarray,
    annotations: PersonAnnotations,
    placements: Sequence[Placement],
    *,
    min_visible: float = 0.15,
    min_pixels: int = 64,
) -> tuple[np.ndarray, PersonAnnotations]:
    """Paste people one after the other.

    Args:
        image: uint8 (H, W, 3); left as it is.
        annotations: its people, taken to be in depth order.
        placements: the people to paste. A place in the depth order counts those pasted before.
        min_visible: smallest share of a person, of what of it lies inside the image, that must
            stay visible; people of whom less does are no longer annotated.
        min_pixels: smallest number of visible pixels, likewise.

    Returns:
        The new image, and its people in depth order. Boxes and maps of people who are partly
        hidden cover what is visible of them. The labels of pixels that belong to nobody stay.
    """
    image = image.copy()
    nobody = annotations.category_map.copy()
    for person_map in annotations.person_maps:
        nobody *= person_map == 0
    people = [person_map.copy() for person_map in annotations.person_maps]
    whole = [np.count_nonzero(person_map) for person_map in people]
    for placement in placements:
        target, source = _window(placement, image.shape[:2])
        labels = placement.cutout.part_map[source].copy()
        whole.insert(placement.depth, np.count_nonzero(labels))
        # Products with masks are several times as fast as assignments to masked pixels.
        for nearer in people[placement.depth :]:
            labels *= nearer[target] == 0
        is_hidden = labels == 0
        for farther in people[: placement.depth]:
            farther[target] *= is_hidden
        person_map = np.zeros_like(nobody)
        person_map[target] = labels
        people.insert(placement.depth, person_map)
        opacity = _opacity(placement.cutout)[source] * ~is_hidden
        _blend(image[target], placement.cutout.image[source], opacity)

    seen = [
        person_map
        for person_map, size in zip(people, whole)
        if np.count_nonzero(person_map) >= max(min_visible * size, min_pixels)
    ]
    return image, _annotations(seen, nobody)


class LazyRecords(Sequence[dict[str, Any]]):
    """Records of registered data sets, which are read when the first one is asked for."""

    def __init__(self, names: str | Sequence[str]):
        """
        Args:
            names: in Detectron2's ``DatasetCatalog``.
        """
        self.names = [names] if isinstance(names, str) else list(names)
        self._records: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self._loaded())

    def __getitem__(self, index: Any) -> Any:
        return self._loaded()[index]

    def _loaded(self) -> list[dict[str, Any]]:
        if self._records is None:
            from detectron2.data import DatasetCatalog  # the rest of the module does without

            self._records = [record for name in self.names for record in DatasetCatalog.get(name)]
        return self._records


class CopyPaste:
    """Pastes people of a data set into images, at random places and sizes.

    The random numbers are numpy's global ones, which Detectron2 seeds in every worker.
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        part_labels: PartLabels,
        *,
        prob: float = 0.5,
        num_people: tuple[int, int] = (1, 4),
        height_range: tuple[float, float] = (1 / 6, 1.3),
        mirror_prob: float = 0.5,
        cache_size: int = 0,
    ):
        """
        Args:
            records: of the data set to take people from; in a config, :class:`LazyRecords`.
            part_labels: its label set, also that of the images that people are pasted into.
            prob: share of the images into which people are pasted.
            num_people: fewest and most people to paste.
            height_range: least and greatest height of a pasted person, in heights of the image;
                the logarithm of the height is uniform.
            mirror_prob: share of the pasted people that are mirrored.
            cache_size: number of records whose people each worker keeps in memory, at their full
                size, instead of reading them again. What is pasted does not depend on it.

        Raises:
            ValueError: a range is empty.
        """
        for name, (least, most) in {"num_people": num_people, "height_range": height_range}.items():
            if not 0 < least <= most:
                raise ValueError(f"CopyPaste: {name} must be 0 < least <= most, got {least, most}.")
        self.records = records
        self.part_labels = part_labels
        self.prob = prob
        self.num_people = tuple(num_people)
        self.height_range = tuple(height_range)
        self.mirror_prob = mirror_prob
        self.cache_size = cache_size
        self._cache: dict[tuple[int, str], list[Cutout]] = {}

    def __call__(
        self, image: np.ndarray, annotations: PersonAnnotations, image_format: str
    ) -> tuple[np.ndarray, PersonAnnotations]:
        """
        Args:
            image: uint8 (H, W, 3).
            annotations: its people.
            image_format: channel order of the image, "BGR" or "RGB".

        Returns:
            Image and people as :func:`paste_people` gives them, or those given.

        Raises:
            OSError, ValueError: as :func:`~aiparsing_d2.data.annotations.read_person_annotations`
                and the reading of images.
        """
        rng = np.random.default_rng(np.random.randint(2**31))
        if rng.random() >= self.prob:
            return image, annotations
        placements = self.sample_placements(
            rng, image.shape[:2], len(annotations.boxes), image_format
        )
        return paste_people(image, annotations, placements)

    def sample_placements(
        self,
        rng: np.random.Generator,
        image_size: tuple[int, int],
        num_present: int,
        image_format: str,
    ) -> list[Placement]:
        """Draw people, and where they go.

        Args:
            rng: source of all randomness.
            image_size: (H, W).
            num_present: P.
            image_format: channel order of the cutouts, "BGR" or "RGB".
        """
        placements = []
        for _ in range(rng.integers(self.num_people[0], self.num_people[1], endpoint=True)):
            cutout = self._sample_cutout(rng, image_format)
            if cutout is not None:
                depth = int(rng.integers(num_present + len(placements), endpoint=True))
                placements.append(self._place(rng, cutout, image_size, depth))
        return placements

    def _sample_cutout(self, rng: np.random.Generator, image_format: str) -> Cutout | None:
        """One person of one record; None if nobody is annotated there."""
        if not len(self.records):
            raise ValueError("CopyPaste has no records to take people from.")
        index = int(rng.integers(len(self.records)))
        people = self._cache.get((index, image_format))
        if people is None:
            people = self._read_people(self.records[index], image_format)
            if len(self._cache) < self.cache_size:
                self._cache[index, image_format] = people
        return people[rng.integers(len(people))] if people else None

    def _read_people(self, record: Mapping[str, Any], image_format: str) -> list[Cutout]:
        annotations = read_person_annotations(record, self.part_labels.num_classes)
        if not len(annotations.boxes):
            return []
        image = read_image(record["file_name"], image_format)
        people = []
        for (x0, y0, x1, y1), person_map in zip(
            annotations.boxes.astype(int), annotations.person_maps
        ):
            window = np.s_[y0:y1, x0:x1]
            # Copies, since a part of an array keeps all of it in memory.
            people.append(Cutout(image[window].copy(), person_map[window].copy()))
        return people

    def _place(
        self, rng: np.random.Generator, cutout: Cutout, image_size: tuple[int, int], depth: int
    ) -> Placement:
        """At least half of the height and of the width end up inside the image."""
        if rng.random() < self.mirror_prob:
            cutout = cutout.mirrored(self.part_labels)
        image_height, image_width = image_size
        least, most = np.log(self.height_range)
        height = max(round(image_height * np.exp(rng.uniform(least, most))), 2)
        cutout = cutout.resized(height)
        width = cutout.part_map.shape[1]
        top, bottom = sorted((-height / 4, image_height - height / 2))
        return Placement(
            cutout,
            x=round(rng.uniform(0, image_width) - width / 2),
            y=round(rng.uniform(top, bottom)),
            depth=depth,
        )


def _window(placement: Placement, image_size: tuple[int, int]) -> tuple[tuple, tuple]:
    """Return the part of the image that a cutout covers, and the part of the cutout inside the
    image.
    """
    height, width = placement.cutout.part_map.shape
    x0, y0 = max(placement.x, 0), max(placement.y, 0)
    x1 = max(min(placement.x + width, image_size[1]), x0)
    y1 = max(min(placement.y + height, image_size[0]), y0)
    x, y = placement.x, placement.y
    return np.s_[y0:y1, x0:x1], np.s_[max(y0 - y, 0) : y1 - y, max(x0 - x, 0) : x1 - x]


def _opacity(cutout: Cutout) -> np.ndarray:
    """float32 (h, w). Softened, a cut along pixel sides does not give the person away."""
    return cv2.GaussianBlur((cutout.part_map != 0).astype(np.float32), (3, 3), 0)


def _blend(image: np.ndarray, pasted: np.ndarray, opacity: np.ndarray) -> None:
    """Mix colours, uint8 (h, w, C), into those of an image, in place."""
    mixed = image + opacity[..., None] * (pasted.astype(np.float32) - image)
    image[:] = mixed.round().astype(np.uint8)


def _annotations(people: list[np.ndarray], nobody: np.ndarray) -> PersonAnnotations:
    """Return the people's maps with their tight boxes, and all of them over the labels of
    nobody.
    """
    category_map = nobody.copy()
    boxes = np.zeros((len(people), 4))
    for box, person_map in zip(boxes, people):
        x, y, width, height = cv2.boundingRect(person_map)
        window = np.s_[y : y + height, x : x + width]
        np.copyto(category_map[window], person_map[window], where=person_map[window] != 0)
        box[:] = x, y, x + width, y + height
    person_maps = np.stack(people) if people else np.zeros((0, *nobody.shape), dtype=np.uint8)
    return PersonAnnotations(person_maps=person_maps, boxes=boxes, category_map=category_map)

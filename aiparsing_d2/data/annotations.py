"""Reading the part annotations of one image.

A data set record names its annotation files and holds no pixels; the functions here turn a record
into arrays, for training and evaluation alike. Needs only numpy, OpenCV and Pillow.

Shape shorthand:
    P: number of annotated people. H, W: size of the image in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from aiparsing_d2.structures.part_labels import IGNORE_LABEL

from .image_files import ImageSizeError, UnreadableImageError, open_image

__all__ = [
    "AnnotationError",
    "LabelSizeError",
    "PersonAnnotations",
    "annotation_files",
    "read_label_png",
    "read_person_annotations",
]

_PNG_HEADER_LENGTH = 26  # up to the bit depth and the colour type
_PNG_COLOR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}


class AnnotationError(ValueError):
    """An annotation file is broken, or does not fit its image or its data set."""


class LabelSizeError(AnnotationError):
    """A label map has another size than its image."""


@dataclass(frozen=True)
class PersonAnnotations:
    """The annotated people of one image.

    Attributes:
        person_maps: uint8 (P, H, W), for each person its part label at every pixel: 0 = not this
            person, 255 = ignore. Every person has at least one pixel that is not 0.
        boxes: float64 (P, 4), XYXY in pixels, tight around the pixels of each person that are not
            0, right and bottom ends exclusive (``xmax + 1``, ``ymax + 1``).
        category_map: uint8 (H, W), the part label at every pixel, whoever it belongs to.
    """

    person_maps: np.ndarray
    boxes: np.ndarray
    category_map: np.ndarray


def read_person_annotations(
    record: Mapping[str, Any], num_classes: int | None = None
) -> PersonAnnotations:
    """Read the people and part labels of one image.

    Args:
        record: a data set record with "file_name", "height", "width" and the annotation files:

            * "category_file_name" and "human_file_name", one map with the labels and one with the
              number of the person at every pixel, as in CIHP and VIP; or
            * "person_file_names", one label map a person, as in LV-MHP-v2. People may overlap. The
              category map is "category_file_name" if the record has it, else the people painted
              over each other in this order.

            If it has a true "ignore_unknown_labels", labels out of range become 255 instead of an
            error. A person without a labelled pixel is left out.
        num_classes: number of labels of the data set. If given, labels are checked against it.

    Raises:
        KeyError: the record names no annotation files, as those of a test split.
        FileNotFoundError: an annotation file does not exist.
        AnnotationError: a file cannot be decoded, is not an 8-bit label map, differs in size
            from its image, or holds a label out of range.
    """
    read = next((reader for key, reader in _READERS.items() if key in record), None)
    if read is None:
        raise KeyError(
            f"The record of {record.get('file_name')} names no annotation files: "
            f"it has none of {', '.join(_READERS)}."
        )
    person_maps, category_map = read(record, num_classes)
    boxes = [_bounding_box(person_map) for person_map in person_maps]
    return PersonAnnotations(
        person_maps=person_maps,
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        category_map=category_map,
    )


def annotation_files(record: Mapping[str, Any]) -> list[str] | None:
    """List the files that :func:`read_person_annotations` reads for a record.

    Returns:
        File names, or None if the record is not annotated, as those of a test split.
    """
    if not any(key in record for key in _READERS):
        return None
    maps = [record[key] for key in ("category_file_name", "human_file_name") if key in record]
    return [*maps, *record.get("person_file_names", ())]


def read_label_png(
    file_name: str | os.PathLike,
    *,
    allow_red: bool = False,
    image_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read a label map without any colour conversion.

    Args:
        file_name: PNG with 8-bit grey values or with a palette, whose indices are the labels.
        allow_red: whether the file may also be an 8-bit RGB PNG with the labels in its red channel
            and nothing in the others, as in LV-MHP-v2.
        image_size: the (H, W) that it must have. A map of another size is not decoded, which may
            take gigabytes.

    Returns:
        uint8 array (H, W).

    Raises:
        FileNotFoundError: there is no such file.
        LabelSizeError: the size is another.
        AnnotationError: the file cannot be decoded or is another kind of picture.
    """
    with open(file_name, "rb") as file:
        content = file.read(_PNG_HEADER_LENGTH)
        if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < _PNG_HEADER_LENGTH:
            num_bytes = os.fstat(file.fileno()).st_size
            raise AnnotationError(f"{file_name} ({num_bytes} bytes) is not a PNG file.")
        content += file.read()
    # Byte 24 of a PNG is its bit depth, byte 25 its colour type. Decoders scale grey values of
    # fewer bits up to 0..255, which would silently change the labels.
    bit_depth, color_type = content[24], content[25]
    is_grey_or_palette = color_type == 3 or (color_type == 0 and bit_depth == 8)
    is_rgb = color_type == 2 and bit_depth == 8
    if not (is_grey_or_palette or (is_rgb and allow_red)):
        red = ", or 8-bit RGB with the labels in red" if allow_red else ""
        raise AnnotationError(
            f"{file_name} is a {bit_depth}-bit {_PNG_COLOR_TYPES.get(color_type, 'unknown')} "
            f"PNG; a label map must be 8-bit grey{red}, or have a palette whose indices are "
            "the labels. Colour renderings of the labels cannot be used."
        )
    try:
        with open_image(content, file_name, image_size=image_size) as image:
            mode, pixels = image.mode, np.array(image, dtype=np.uint8)
    except ImageSizeError as e:
        raise LabelSizeError(str(e)) from e
    except UnreadableImageError as e:
        raise AnnotationError(str(e)) from e
    if mode not in (("L", "P") if is_grey_or_palette else ("RGB",)):
        raise AnnotationError(f"{file_name} has two headers that contradict each other.")
    if is_grey_or_palette:
        return pixels
    if pixels[..., 1:].any():
        raise AnnotationError(
            f"{file_name} is a colour rendering: a label map in RGB has the labels in red and "
            "nothing in green and blue. The label map itself is needed."
        )
    return np.ascontiguousarray(pixels[..., 0])


def _read_human_ids(
    record: Mapping[str, Any], num_classes: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """CIHP's way: one map with the labels, one with the number of the person at every pixel.

    Person numbers need not be contiguous. Number 255 marks pixels that belong to no particular
    person, and a number without a single labelled pixel is no person.
    """
    category_map = _read_map_of_image(record, record["category_file_name"], num_classes)
    human_map = _read_map_of_image(record, record["human_file_name"])
    # Of the largest number first. Masks of bytes and products with them are many times as fast as
    # np.unique and np.where.
    human_map *= (category_map != 0) & (human_map != IGNORE_LABEL)
    people = []
    while human_id := human_map.max(initial=0):
        is_person = human_map == human_id
        x0, y0, x1, y1 = _bounding_box(is_person.view(np.uint8))
        window = np.s_[y0:y1, x0:x1]
        people.append((window, category_map[window] * is_person[window]))
        human_map[window] *= ~is_person[window]
    # Of memory that comes as zeros, only the windows are touched.
    person_maps = np.zeros((len(people), *category_map.shape), dtype=np.uint8)
    for person_map, (window, labels) in zip(person_maps, people[::-1]):
        person_map[window] = labels
    return person_maps, category_map


def _read_person_files(
    record: Mapping[str, Any], num_classes: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """LV-MHP-v2's way: a label map for each person."""
    people = [
        _read_map_of_image(record, file_name, num_classes, allow_red=True)
        for file_name in record["person_file_names"]
    ]
    people = [person_map for person_map in people if person_map.any()]
    image_size = (record["height"], record["width"])
    person_maps = _stack(people, image_size)
    if "category_file_name" in record:
        return person_maps, _read_map_of_image(record, record["category_file_name"], num_classes)
    category_map = np.zeros(image_size, dtype=np.uint8)
    for person_map in person_maps:
        np.copyto(category_map, person_map, where=person_map != 0)
    return person_maps, category_map


def _stack(people: list[np.ndarray], image_size: tuple[int, int]) -> np.ndarray:
    return np.stack(people) if people else np.zeros((0, *image_size), dtype=np.uint8)


_Reader = Callable[[Mapping[str, Any], int | None], tuple[np.ndarray, np.ndarray]]

# The key that shows how a record is annotated -> the reader of such records. A reader takes the
# arguments of read_person_annotations and returns the person maps, uint8 (P, H, W) and none of
# them empty, and the category map, uint8 (H, W).
_READERS: dict[str, _Reader] = {
    "human_file_name": _read_human_ids,
    "person_file_names": _read_person_files,
}


def _read_map_of_image(
    record: Mapping[str, Any],
    file_name: str,
    num_classes: int | None = None,
    *,
    allow_red: bool = False,
) -> np.ndarray:
    """Read a label map and check it against the record's image and the label range."""
    image_size = (record["height"], record["width"])
    try:
        label_map = read_label_png(file_name, allow_red=allow_red, image_size=image_size)
    except LabelSizeError as e:
        raise LabelSizeError(f"{e}: {record['file_name']}, as its EXIF orientation turns it") from e
    if num_classes is not None:
        unknown = (label_map >= num_classes) & (label_map != IGNORE_LABEL)
        if unknown.any():
            if not record.get("ignore_unknown_labels", False):
                raise AnnotationError(
                    f"{file_name} has {np.count_nonzero(unknown)} pixels with label(s) "
                    f"{', '.join(map(str, np.unique(label_map[unknown])))}; labels are "
                    f"0..{num_classes - 1} and {IGNORE_LABEL} for 'ignore'."
                )
            label_map[unknown] = IGNORE_LABEL
    return label_map


def _bounding_box(person_map: np.ndarray) -> tuple[int, int, int, int]:
    """XYXY box around the non-zero pixels of an (H, W) map that has some, ends exclusive."""
    x, y, width, height = cv2.boundingRect(person_map)
    return x, y, x + width, y + height

"""Finding out the size of an image, and whether it can be read, without decoding its pixels.

Needs only Pillow.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from PIL import Image

__all__ = ["IMAGE_SUFFIXES", "UnreadableImageError", "read_image_size"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""What the names of a data set's images may end in."""

_EXIF_ORIENTATION = 0x0112
_EXIF_ORIENTATIONS_ON_THE_SIDE = (5, 6, 7, 8)

# Format as Pillow names it -> the last bytes of a whole file.
_END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class UnreadableImageError(ValueError):
    """A file is no image, or ends before its last pixel."""


def read_image_size(file_name: str | os.PathLike) -> tuple[int, int]:
    """Height and width of an image as Detectron2 reads it, that is with its EXIF orientation.

    The size comes from the header. The pixels are only decoded if the file lacks the marker that
    ends a JPEG or PNG, to tell a file cut short from one that is merely unusual.

    Args:
        file_name: the image.

    Raises:
        FileNotFoundError: if there is no such file.
        UnreadableImageError: if it is not an image or ends early.
    """
    try:
        with open(file_name, "rb") as file, Image.open(file) as image:
            width, height = image.size
            # Without the first test, getexif would decode a PNG to look for EXIF behind the pixels.
            on_the_side = (
                "exif" in image.info
                and image.getexif().get(_EXIF_ORIENTATION) in _EXIF_ORIENTATIONS_ON_THE_SIDE
            )
            if not _has_end_marker(file, image.format):
                image.load()
    except FileNotFoundError:
        raise
    # Pillow reports some kinds of broken files as SyntaxError or ValueError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise UnreadableImageError(f"{file_name} is not a readable image: {e}") from e
    return (width, height) if on_the_side else (height, width)


def _has_end_marker(file: BinaryIO, image_format: str | None) -> bool:
    marker = _END_MARKERS.get(image_format)
    if marker is None:
        return False
    position = file.tell()
    file.seek(-len(marker), os.SEEK_END)
    found = file.read() == marker
    file.seek(position)
    return found

"""Opening image files: one rule for what can be read, how large it is, and which way up.

* An image is turned as its EXIF orientation says, or the orientation in its XMP if EXIF has none.
  Only what stands before the pixels counts, so that the header is enough to tell the size.
* Grey values of 12 or 16 bits are scaled to 8. Transparency is dropped.
* PostScript is a program, and never run.
* Whatever Pillow stumbles over becomes an :class:`UnreadableImageError` that names the file.

Needs only numpy, OpenCV and Pillow.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import IO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

__all__ = [
    "ImageSizeError",
    "UnreadableImageError",
    "check_image_size",
    "image_to_array",
    "is_sixteen_bit_grey",
    "open_image",
    "read_image",
    "read_image_size",
]

# Pillow reads a file in many small pieces; one system call reads all of a file of up to this size.
_BUFFER_SIZE = 2**18

_ORIENTATION = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATIONS_ON_THE_SIDE = (5, 6, 7, 8)

# Numbers of a TIFF's entries, and the value that says that 0 is white.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0

# Format as Pillow names it -> the last bytes of a whole file.
_END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}

# What read_image can give -> Pillow's mode that it is made from.
_MODES = {"BGR": "RGB", "RGB": "RGB", "L": "L"}


class UnreadableImageError(OSError):
    """A file is no image, ends before its last pixel, or is of a kind that cannot be read."""


class ImageSizeError(UnreadableImageError):
    """A map that goes with an image has another size; nothing of it is decoded."""


@contextlib.contextmanager
def open_image(
    file_name: str | os.PathLike | bytes,
    name: str | os.PathLike | None = None,
    *,
    image_size: tuple[int, int] | None = None,
) -> Iterator[ImageFile]:
    """Open an image with Pillow, with errors that name the file.

    The body of the ``with`` statement should do nothing but use the image: any error in it is taken
    for the file's.

    Args:
        file_name: the image, or the content of its file.
        name: what errors call a content that is given.
        image_size: the (H, W) of the image that it goes with, if it is a map of that.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be opened.
        ImageSizeError: its size is not ``image_size``.
        UnreadableImageError: it is not an image, or Pillow fails to read it.
    """
    if isinstance(file_name, bytes):
        name, source = name or f"a file of {len(file_name)} bytes", io.BytesIO(file_name)
    else:
        name, source = os.fspath(file_name), open(file_name, "rb", _BUFFER_SIZE)
    with source as file:
        try:
            with Image.open(file) as image:
                if image.format == "EPS":  # Pillow would have Ghostscript run it
                    raise ValueError("it is a PostScript program, whatever its name is")
                if image_size is not None and image.size != (image_size[1], image_size[0]):
                    raise ImageSizeError(
                        f"{name} is {image.width}x{image.height} pixels (width x height), but its "
                        f"image is {image_size[1]}x{image_size[0]}"
                    )
                yield image
        except ImageSizeError:
            raise
        # Broken files make Pillow raise OSError, SyntaxError, ValueError, DecompressionBombError,
        # and what else its parsers stumble over: struct.error, IndexError, MemoryError, ...
        except Exception as e:
            is_unknown = isinstance(e, UnidentifiedImageError)
            reason = "its format is not known" if is_unknown else str(e) or type(e).__name__
            raise UnreadableImageError(f"{name} is not a readable image: {reason}") from e


def read_image(file_name: str | os.PathLike | bytes, image_format: str = "BGR") -> np.ndarray:
    """Read an image as models and pictures of results need it.

    Unlike Detectron2's ``read_image``, this scales 16-bit grey values instead of cutting them off,
    goes by the same orientation as the index of a data set, and names the file in every error.

    Args:
        file_name: the image, or the content of its file: grey, palette, RGB, RGBA, CMYK or another
            kind that Pillow converts to RGB. It is turned as its orientation says.
        image_format: "BGR" or "RGB", the order of the channels, or "L" for grey.

    Returns:
        uint8 array (H, W, 3), or (H, W, 1) for "L".

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: it is not an image, ends early, or its values have no known range, as
            those of 32-bit pictures.
        ValueError: the format is unknown.
    """
    if image_format not in _MODES:
        raise ValueError(f"Unknown format '{image_format}': use one of {', '.join(_MODES)}.")
    with open_image(file_name) as image:
        return image_to_array(image, image_format)


def image_to_array(image: Image.Image, image_format: str = "BGR") -> np.ndarray:
    """Give the pixels of an image of Pillow, turned and scaled as :func:`read_image` does.

    Args:
        image: of a kind that Pillow converts to RGB.
        image_format: see :func:`read_image`.

    Returns:
        See :func:`read_image`.

    Raises:
        OSError: its file ends early, if it is read only now.
        ValueError: its values have no known range.
    """
    orientation = _orientation(image)
    image.load()
    image = _with_eight_bits(image)
    if orientation in _TRANSPOSITIONS:
        image = image.transpose(_TRANSPOSITIONS[orientation])
    if image.mode != _MODES[image_format]:  # convert() would copy
        image = image.convert(_MODES[image_format])
    pixels = np.frombuffer(image.tobytes(), dtype=np.uint8)
    pixels = pixels.reshape(image.height, image.width, -1)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if image_format == "BGR" else pixels.copy()


def read_image_size(file_name: str | os.PathLike) -> tuple[int, int]:
    """Read the height and width that :func:`read_image` would give an image.

    The size comes from the header. The pixels are only decoded if the file lacks the marker that
    ends a JPEG or PNG, to tell a file cut short from one that is merely unusual.

    Args:
        file_name: the image.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: it is not an image, or ends early.
    """
    with open_image(file_name) as image:
        orientation = _orientation(image)
        if not _has_end_marker(image.fp, image.format):
            image.load()
        width, height = image.size
    return (width, height) if orientation in _ORIENTATIONS_ON_THE_SIDE else (height, width)


def is_sixteen_bit_grey(image: Image.Image) -> bool:
    """Whether an image has grey values of more than 8 bits, up to 16."""
    # Before version 11, Pillow gives the values of such PNGs 32 bits.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def check_image_size(height: int, width: int) -> None:
    """Check a size that a file states.

    Raises:
        ValueError: a side is not a whole positive number, or the image has more pixels than Pillow
            would open (``2 * PIL.Image.MAX_IMAGE_PIXELS``).
    """
    for name, side in (("height", height), ("width", width)):
        if type(side) is not int or side < 1:
            raise ValueError(f'"{name}" is {side!r:.40}, not a number of pixels')
    if Image.MAX_IMAGE_PIXELS is not None and height * width > 2 * Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f'"height" and "width" of {height} x {width} are more than the '
            f"{2 * Image.MAX_IMAGE_PIXELS} pixels that an image may have"
        )


def _orientation(image: Image.Image) -> int:
    """How an image that is not decoded yet has to be turned, in EXIF's numbers; 1 is not at all."""
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    try:
        # Not image.getexif(), which decodes a PNG to look for EXIF behind the pixels.
        orientation = Image.Image.getexif(image).get(_ORIENTATION)
        return int(orientation) if orientation in _TRANSPOSITIONS else 1
    except Exception:  # broken metadata do not make the pixels unreadable
        return 1


def _with_eight_bits(image: Image.Image) -> Image.Image:
    if is_sixteen_bit_grey(image):
        # Pillow leaves to others what a TIFF says of such values.
        tags = getattr(image, "tag_v2", {})
        (bits,) = tags.get(_BITS_PER_SAMPLE, (16,))
        # The upper bits, as Pillow takes of each channel of a coloured PNG of 16 bits.
        values = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        return Image.fromarray(~values if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else values)
    if image.mode[0] in "IF":
        raise ValueError(f"the range of its values (mode {image.mode}) is not known")
    return image


def _has_end_marker(file: IO[bytes], image_format: str | None) -> bool:
    marker = _END_MARKERS.get(image_format)
    if marker is None:
        return False
    position = file.tell()
    file.seek(-len(marker), os.SEEK_END)
    found = file.read() == marker
    file.seek(position)
    return found

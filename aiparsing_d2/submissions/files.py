"""Files of a submission: nothing outside its folder is read, nothing in it is overwritten."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from PIL import Image

from aiparsing_d2.data.annotations import AnnotationError, read_label_png
from aiparsing_d2.data.image_files import (
    UnreadableImageError,
    is_sixteen_bit_grey,
    open_image,
)
from aiparsing_d2.whole_files import whole_file

__all__ = ["SubmissionError", "SubmissionFolder", "parse_integer", "parse_score"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY_16_BIT = b"\x10\x00"  # bit depth and colour type in the header of a PNG


class SubmissionError(ValueError):
    """A file of a submission is missing or broken, or does not fit its image or data set."""


class SubmissionFolder:
    """Reads and writes the files of a submission, given by their names relative to its folder.

    Names come from files that anybody may have written: one that leads out of the folder (an
    absolute path, ``..``, a symbolic link) is an error.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        self._real_root = self.root.resolve()

    def path(self, name: str) -> Path:
        """Path of a file, existing or not.

        Raises:
            SubmissionError: the name leads out of the folder.
        """
        path = self.root / name
        try:
            inside = path.resolve().is_relative_to(self._real_root)
        except (OSError, ValueError, RuntimeError) as error:  # a null byte, a loop of links
            raise SubmissionError(f"{name!r} is no usable file name: {error}") from error
        if not inside:
            raise SubmissionError(
                f"{name!r} leads out of {self.root}; only files below it may be named"
            )
        return path

    def read_text(self, name: str) -> str:
        """Content of a UTF-8 file.

        Raises:
            SubmissionError: there is no such file, or it is not text.
        """
        path = self.path(name)
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SubmissionError(f"{path} cannot be read: {error}") from error

    def read_rows(self, name: str) -> list[list[str]]:
        """Words of every line of a text file; blank lines at the end are dropped.

        Raises:
            SubmissionError: there is no such file, or it is not text.
        """
        return [line.split() for line in self.read_text(name).rstrip().splitlines()]

    def read_png(self, name: str, image_size: tuple[int, int]) -> np.ndarray:
        """Return a map of numbers, without any colour conversion.

        Args:
            name: PNG with 8- or 16-bit grey values, or a palette whose indices are the numbers.
            image_size: the ``(H, W)`` that it must have.

        Returns:
            uint8 or, from 16 bits, uint16 (H, W).

        Raises:
            SubmissionError: there is no such file, it cannot be decoded, or it has another size or
                is another kind of picture.
        """
        path = self.path(name)
        try:
            with open(path, "rb") as file:
                header = file.read(26)
            if header.startswith(_PNG_SIGNATURE) and header[24:] == _GREY_16_BIT:
                return _read_sixteen_bits(path, image_size)
            return read_label_png(path, image_size=image_size)
        except (AnnotationError, UnreadableImageError) as error:
            raise SubmissionError(str(error)) from error
        except OSError as error:
            raise SubmissionError(f"{path} cannot be read: {error}") from error

    def read_label_map(
        self, name: str, image_size: tuple[int, int], num_classes: int
    ) -> np.ndarray:
        """Return a PNG of class labels.

        Returns:
            uint8 (H, W), labels below ``num_classes``.

        Raises:
            SubmissionError: see :meth:`read_png`; or a label is too high.
        """
        label_map = self.read_png(name, image_size)
        if label_map.max(initial=0) >= num_classes:
            raise SubmissionError(
                f"{self.path(name)} has the label {label_map.max()}; labels are 0 to "
                f"{num_classes - 1}"
            )
        return label_map.astype(np.uint8)

    def write_text(self, name: str, text: str) -> None:
        """Write a new UTF-8 file.

        Raises:
            FileExistsError: there is one already.
        """
        with whole_file(self.path(name), overwrite=False) as file:
            file.write(text)

    def write_png(self, name: str, values: np.ndarray) -> None:
        """Write a new grey PNG of 8 bits or, if a value is above 255, of 16 bits.

        Args:
            name: name of the file.
            values: integer (H, W), not negative.

        Raises:
            FileExistsError: there is one already.
            ValueError: a value is above 65535.
        """
        highest = values.max(initial=0)
        if highest > np.iinfo(np.uint16).max:
            raise ValueError(f"{name}: a PNG holds numbers up to 65535, not {highest}")
        pixels = values.astype(np.uint8 if highest <= 255 else np.uint16)
        with whole_file(self.path(name), "wb", overwrite=False) as file:
            Image.fromarray(pixels).save(file, format="PNG")


def _read_sixteen_bits(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    with open_image(path, image_size=image_size) as image:
        if not is_sixteen_bit_grey(image):
            raise ValueError("it has two headers that contradict each other")
        return np.asarray(image).astype(np.uint16)


def parse_integer(text: str) -> int:
    """Return a whole number.

    Raises:
        ValueError: the text is something else.
    """
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise ValueError(f"{text!r:.40} is no whole number")
    return int(text)


def parse_score(text: str) -> float:
    """Return a score in 0..1.

    Raises:
        ValueError: the text is something else.
    """
    if "_" in text:  # in which Python's numbers may be grouped
        raise ValueError(f"{text!r:.40} is no number")
    score = float(text)
    if not 0 <= score <= 1:
        raise ValueError(f"the score {text} is not in 0..1")
    return score

"""Rows of many images in one buffer."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np


class PackedRows:
    """Structured rows, any number per image, kept as bare bytes.

    A numpy array for the few rows of an image would weigh more than the rows. Here they go to the
    end of one buffer, which leaves 8 bytes of overhead per image and makes joining and pickling
    trivial.
    """

    def __init__(self, dtype: np.dtype):
        """
        Args:
            dtype: structured dtype of a row.
        """
        self._dtype = dtype
        self._bytes = bytearray()
        self._lengths = array("q")

    def append(self, **columns: np.ndarray) -> None:
        """Add the rows of the next image.

        Args:
            columns: for every field of the dtype its values, the first axis being the rows.
        """
        length = len(next(iter(columns.values())))
        rows = np.empty(length, dtype=self._dtype)
        for field in self._dtype.names:
            rows[field] = columns[field]
        self._bytes += rows.tobytes()
        self._lengths.append(length)

    def extend(self, other: PackedRows) -> None:
        """Add the images of another object with the same dtype."""
        self._bytes += other._bytes
        self._lengths += other._lengths

    def arranged(self, places: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give all rows, the images in the order of their places.

        Args:
            places: (number of images,), a different number for each image, in the order in which
                they were added.

        Returns:
            The rows, and the number of rows of each image: int64 (number of images,).
        """
        lengths = np.array(self._lengths, dtype=np.int64)
        order = np.argsort(np.repeat(places, lengths), kind="stable")
        return np.frombuffer(self._bytes, self._dtype)[order], lengths[np.argsort(places)]

"""What a picture may be given as, and how each becomes pixels."""

from __future__ import annotations

import os
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image

from aiparsing_d2.data.image_files import UnreadableImageError, image_to_array, read_image

__all__ = ["Picture", "read_picture"]

Picture: TypeAlias = str | os.PathLike | bytes | Image.Image | np.ndarray | torch.Tensor
"""See :func:`read_picture`."""

_ACCEPTED = (
    "a picture is a path, the bytes of a file, a PIL image, an array (H, W), (H, W, 1), (H, W, 3) "
    "or (H, W, 4), or a tensor (H, W), (1, H, W), (3, H, W) or (4, H, W); values are uint8, uint16 "
    "or floats in 0..1"
)


def read_picture(picture: Picture, channel_order: str = "BGR") -> np.ndarray:
    """Give the pixels of a picture.

    Args:
        picture: one of

            * a path, the bytes of a file, or a PIL image: turned as its EXIF or XMP orientation
              says; grey values of 16 bits are scaled to 8;
            * an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a tensor (H, W), (1, H, W),
              (3, H, W) or (4, H, W) on any device, of uint8, uint16 (65535 is white) or floats in
              0..1 (1 is white).

            Transparency is dropped.
        channel_order: "BGR" or "RGB", of arrays and tensors; a fourth channel comes last.

    Returns:
        uint8 (H, W, 3), RGB; a copy.

    Raises:
        TypeError: it is something else; the message says what can be given.
        ValueError: its shape, type or values are others.
        FileNotFoundError: there is no such file.
        UnreadableImageError: a file or a PIL image cannot be read.
    """
    if channel_order not in ("BGR", "RGB"):
        raise ValueError(f"channel_order is {channel_order!r}, not 'BGR' or 'RGB'")
    if isinstance(picture, (str, os.PathLike, bytes)):
        return read_image(picture, "RGB")
    if isinstance(picture, Image.Image):
        try:
            return image_to_array(picture, "RGB")
        except (OSError, ValueError) as error:
            raise UnreadableImageError(f"a PIL image cannot be read: {error}") from error
    if isinstance(picture, torch.Tensor):
        name = f"a tensor of {picture.dtype} with shape {tuple(picture.shape)}"
        array = _tensor_to_array(picture)
    elif isinstance(picture, np.ndarray):
        name = f"an array of {picture.dtype} with shape {picture.shape}"
        array = picture
    else:
        raise TypeError(f"got {type(picture).__name__}; {_ACCEPTED}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise ValueError(f"got {name}; {_ACCEPTED}")
    pixels = _to_eight_bits(array[..., :3], name)
    if channel_order == "BGR":
        pixels = pixels[..., ::-1]
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()


def _tensor_to_array(tensor: torch.Tensor) -> np.ndarray:
    """Give (C, H, W) as (H, W, C); numpy does not know bfloat16."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
    return (tensor.permute(1, 2, 0) if tensor.dim() == 3 else tensor).numpy()


def _to_eight_bits(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return (array >> 8).astype(np.uint8)  # as read_image does
    if array.dtype.kind != "f":
        raise ValueError(f"got {name}; {_ACCEPTED}")
    # Resizing may have overshot a little. The condition is not true of NaN.
    if not (array.min() >= -0.01 and array.max() <= 1.01):
        raise ValueError(
            f"got {name} and values from {array.min():g} to {array.max():g}; floats are in 0..1: "
            "divide by their white, or give uint8"
        )
    return np.rint(array.clip(0, 1) * np.float32(255)).astype(np.uint8)

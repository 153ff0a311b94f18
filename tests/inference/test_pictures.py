"""Pixels of every kind of picture, set by hand, and the errors of what is none."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from aiparsing_d2.data.image_files import UnreadableImageError
from aiparsing_d2.inference import read_picture

# A red, a green and a blue pixel over a white, a black and a grey one.
RGB = np.array(
    [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(255, 255, 255), (0, 0, 0), (128, 128, 128)]],
    dtype=np.uint8,
)
BGR = np.ascontiguousarray(RGB[..., ::-1])
GREY = np.array([[0, 1, 127], [128, 254, 255]], dtype=np.uint8)
GREY_AS_RGB = np.stack([GREY] * 3, axis=-1)
ALPHA = np.full((2, 3, 1), 7, dtype=np.uint8)


@pytest.mark.parametrize(
    "array",
    [
        BGR,
        BGR.astype(np.uint16) * 257,
        BGR.astype(">u2") * 257,
        BGR / 255,
        BGR.astype(np.float32) / 255,
        BGR.astype(np.float32) / 255 * 1.001,  # as a resize overshoots
        BGR.astype(np.float16) / 255,
        np.concatenate([BGR, ALPHA], axis=2),
        np.asfortranarray(BGR),
        torch.from_numpy(BGR).permute(2, 0, 1),
        torch.from_numpy(BGR).permute(2, 0, 1).bfloat16() / 255,
        torch.from_numpy(BGR).permute(2, 0, 1).double().div(255).requires_grad_(),
        torch.from_numpy(np.concatenate([BGR, ALPHA], axis=2)).permute(2, 0, 1),
        Image.fromarray(RGB),
        Image.fromarray(np.concatenate([RGB, ALPHA], axis=2)),
        Image.fromarray(RGB).quantize(6),
    ],
    ids=lambda array: f"{type(array).__name__} {getattr(array, 'dtype', '')}",
)
def test_coloured(array):
    pixels = read_picture(array)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, RGB)
    if not isinstance(array, Image.Image):
        np.testing.assert_array_equal(read_picture(array, "RGB"), BGR)


@pytest.mark.parametrize(
    "array",
    [
        GREY,
        GREY[..., None],
        GREY.astype(np.uint16) * 257,
        GREY / 255,
        torch.from_numpy(GREY),
        torch.from_numpy(GREY)[None],
        Image.fromarray(GREY),
        Image.fromarray(GREY.astype(np.uint16) * 257),
    ],
)
@pytest.mark.parametrize("channel_order", ["BGR", "RGB"])
def test_grey(array, channel_order):
    np.testing.assert_array_equal(read_picture(array, channel_order), GREY_AS_RGB)


def test_files(tmp_path):
    path = tmp_path / "ä picture.png"
    Image.fromarray(RGB).save(path)
    for picture in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(read_picture(picture), RGB)


def test_the_result_is_a_copy():
    array = RGB.copy()
    pixels = read_picture(array, "RGB")
    array[:] = 9
    np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.parametrize(
    ("picture", "got"),
    [
        (None, "got NoneType"),
        (5, "got int"),
        ({"image": RGB}, "got dict"),
        (io.BytesIO(b""), "got BytesIO"),
    ],
)
def test_other_kinds(picture, got):
    with pytest.raises(TypeError, match=f"{got}; a picture is a path, .*PIL image, an array"):
        read_picture(picture)


@pytest.mark.parametrize(
    ("picture", "got"),
    [
        (np.zeros((3, 5, 6), np.uint8), r"array of uint8 with shape \(3, 5, 6\)"),
        (RGB[None], r"array of uint8 with shape \(1, 2, 3, 3\)"),
        (RGB[..., :2], r"array of uint8 with shape \(2, 3, 2\)"),
        (RGB[:0], r"array of uint8 with shape \(0, 3, 3\)"),
        (RGB.astype(np.int64), "array of int64"),
        (RGB > 0, "array of bool"),
        (np.array(["photo.jpg"]), "array of <U9"),
        (torch.zeros(2, 3, 4, 4), r"tensor of torch.float32 with shape \(2, 3, 4, 4\)"),
        (torch.zeros(5, 6, 3), r"tensor of torch.float32 with shape \(5, 6, 3\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "tensor of torch.int64"),
    ],
)
def test_other_shapes_and_types(picture, got):
    with pytest.raises(ValueError, match=f"got an? {got}.*a picture is a path"):
        read_picture(picture)


@pytest.mark.parametrize("value", [255.0, -1.0, np.nan, np.inf])
def test_floats_of_another_range(value):
    array = np.zeros((2, 3, 3))
    array[0, 0, 0] = value
    with pytest.raises(ValueError, match=r"floats are in 0\.\.1"):
        read_picture(array)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        read_picture(tmp_path / "none.jpg")
    with pytest.raises(UnreadableImageError, match="a file of 3 bytes is not a readable image"):
        read_picture(b"abc")
    file = io.BytesIO()
    Image.fromarray(np.tile(RGB, (50, 50, 1))).save(file, "PNG")
    cut = file.getvalue()[:-50]
    with pytest.raises(UnreadableImageError, match=f"a file of {len(cut)} bytes"):
        read_picture(cut)
    with pytest.raises(UnreadableImageError, match="PIL image cannot be read"):
        read_picture(Image.open(io.BytesIO(cut)))
    with pytest.raises(UnreadableImageError, match="range of its values"):
        read_picture(Image.fromarray(GREY.astype(np.float32)))


def test_channel_order():
    with pytest.raises(ValueError, match="channel_order is 'bgr', not 'BGR' or 'RGB'"):
        read_picture(RGB, "bgr")

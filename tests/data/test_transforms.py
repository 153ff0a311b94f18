import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from PIL import Image

from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.data.transforms import (
    FastAugInput,
    FloatResizeShortestEdge,
    FloatResizeTransform,
    transform_labels,
)


@pytest.mark.parametrize(
    "size, factor",
    [((30, 50), 2.0), ((50, 30), 2.0), ((30, 100), 1.5), ((100, 80), 0.75)],
)
def test_the_short_edge_unless_the_long_one_gets_too_long(size, factor):
    transform = FloatResizeShortestEdge(60, max_size=150).get_transform(np.zeros((*size, 3)))
    assert transform.factor == pytest.approx(factor)


def test_grey_levels_are_not_rounded():
    image = np.array([[0, 1], [3, 200]], dtype=np.uint8)
    resized = FloatResizeTransform(2.0).apply_image(image)
    assert resized.dtype == np.float32
    # A quarter and three quarters of the way between two pixels' centres.
    np.testing.assert_allclose(resized[0], [0, 0.25, 0.75, 1])
    np.testing.assert_allclose(resized[:, 0], [0, 0.75, 2.25, 3])


def test_labels_of_an_extent_are_those_of_the_nearest_pixels():
    labels = np.array([[1, 7], [19, 0]], dtype=np.uint8)
    # From half a pixel beyond the image's left side to its right one, four pixels for each.
    extent = T.ExtentTransform((-0.5, 0, 2, 2), (8, 10))
    expected = np.pad(labels.repeat(4, 0).repeat(4, 1), ((0, 0), (2, 0)))
    np.testing.assert_array_equal(transform_labels(T.TransformList([extent]), labels), expected)
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    aug_input = FastAugInput(image, sem_seg=labels)
    aug_input.transform(extent)
    np.testing.assert_array_equal(aug_input.sem_seg, expected)
    plain = T.AugInput(image)
    plain.transform(extent)
    np.testing.assert_array_equal(aug_input.image, plain.image)


def test_labels_and_points_follow():
    labels = np.array([[1, 7], [255, 0]], dtype=np.uint8)
    transform = FloatResizeTransform(2.0)
    expected = labels.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(transform.apply_segmentation(labels), expected)
    np.testing.assert_allclose(transform.apply_coords(np.array([[1.0, 2.5]])), [[2, 5]])
    boxes = np.array([[2.0, 5, 7, 8]])
    np.testing.assert_allclose(transform.inverse().apply_box(boxes), [[1, 2.5, 3.5, 4]])


def test_in_the_mapper(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 33, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    mapper = ParsingDatasetMapper(False, augmentations=[FloatResizeShortestEdge(25)])
    record = mapper({"file_name": str(tmp_path / "image.png"), "height": 20, "width": 33})
    assert record["image"].dtype == torch.float32
    assert record["image"].shape == (3, 25, 41)
    assert (record["height"], record["width"]) == (20, 33)
    blue = FloatResizeTransform(1.25).apply_image(pixels[..., 2])
    np.testing.assert_array_equal(record["image"][0], blue)
    assert (record["image"] % 1 != 0).any()


@pytest.mark.parametrize(
    "augmentation",
    [
        T.RandomBrightness(0.5, 1.7),
        T.RandomContrast(0.5, 1.7),
        T.RandomSaturation(0.5, 1.7),
        T.RandomLighting(30.0),
        T.RandomFlip(prob=1.0),
    ],
    ids=lambda augmentation: type(augmentation).__name__,
)
def test_fast_colours_are_those_of_detectron2(augmentation):
    image = np.random.default_rng(0).integers(0, 256, (67, 50, 3), dtype=np.uint8)
    results = []
    for kind in (T.AugInput, FastAugInput):
        np.random.seed(0)
        aug_input = kind(image, sem_seg=image[..., 0])
        augmentation(aug_input)
        results.append(aug_input)
    slow, fast = results
    assert fast.image.dtype == slow.image.dtype and (slow.image != image).any()
    np.testing.assert_array_equal(fast.image, slow.image)
    np.testing.assert_array_equal(fast.sem_seg, slow.sem_seg)


@pytest.mark.parametrize("size", [(40, 31), (67, 50), (150, 99), (33, 120)])
def test_fast_resizing_is_pillows_but_for_rounding(size):
    image = np.random.default_rng(0).integers(0, 256, (67, 50, 3), dtype=np.uint8)
    slow, fast = (kind(image, sem_seg=image[..., 0]) for kind in (T.AugInput, FastAugInput))
    for aug_input in (slow, fast):
        T.Resize(size)(aug_input)
    assert fast.image.shape == (*size, 3) and fast.image.dtype == np.uint8
    difference = np.abs(fast.image.astype(int) - slow.image.astype(int))
    assert difference.max() <= 2
    np.testing.assert_array_equal(fast.sem_seg, slow.sem_seg)

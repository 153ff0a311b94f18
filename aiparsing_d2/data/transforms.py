"""Transforms and augmentations that Detectron2 does not have."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.modeling import DatasetMapperTTA
from PIL import Image
from torch.nn import functional as F

__all__ = [
    "FastAugInput",
    "FloatDatasetMapperTTA",
    "FloatResizeShortestEdge",
    "FloatResizeTransform",
    "is_mirrored",
    "transform_labels",
]


# Rows of an image that are blended at a time: their float64 values stay in the processor's cache.
_ROWS_AT_A_TIME = 16


class FastAugInput(T.AugInput):
    """``AugInput`` that changes uint8 images in less time, for training.

    Colours change to the same result. Sizes are changed with Pillow's filter by torch, which rounds
    otherwise: a small share of the grey levels differs, by 2 at most.
    """

    image: np.ndarray

    def transform(self, tfm: T.Transform) -> None:
        """Apply a transform in place, as ``AugInput`` does."""
        # Not of a subclass, which may do something else.
        if type(tfm) is T.BlendTransform and self.image.dtype == np.uint8:
            self.image = _blend(tfm, self.image)
        elif type(tfm) is T.ResizeTransform:
            super().transform(_FastResize(tfm.h, tfm.w, tfm.new_h, tfm.new_w, tfm.interp))
        elif type(tfm) is T.ExtentTransform:
            super().transform(_Extent(tfm.src_rect, tfm.output_size, tfm.interp, tfm.fill))
        else:
            super().transform(tfm)


def _blend(tfm: T.BlendTransform, image: np.ndarray) -> np.ndarray:
    source = np.asarray(tfm.src_image)
    if source.ndim == 0:  # brightness, contrast: what a value becomes depends on nothing else
        table = tfm.apply_image(np.arange(256, dtype=np.uint8))
        return cv2.LUT(np.ascontiguousarray(image), table).reshape(image.shape)
    if source.shape[:-1] != image.shape[:-1]:
        return tfm.apply_image(image)
    result = np.empty(image.shape, dtype=np.uint8)
    for start in range(0, len(image), _ROWS_AT_A_TIME):
        rows = np.s_[start : start + _ROWS_AT_A_TIME]
        part = T.BlendTransform(source[rows], tfm.src_weight, tfm.dst_weight)
        result[rows] = part.apply_image(image[rows])
    return result


class _FastResize(T.ResizeTransform):
    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Detectron2's, or for colours that are interpolated linearly, a view of planes."""
        is_linear = (self.interp if interp is None else interp) == Image.Resampling.BILINEAR
        if img.dtype != np.uint8 or img.ndim != 3 or not is_linear:
            return super().apply_image(img, interp)
        planes = torch.from_numpy(np.ascontiguousarray(img)).permute(2, 0, 1)
        size = (self.new_h, self.new_w)
        (planes,) = F.interpolate(planes[None], size, mode="bilinear", antialias=True)
        return planes.permute(1, 2, 0).numpy()


class _Extent(T.ExtentTransform):
    """Detectron2's takes Pillow's NEAREST, which is 0, for no filter at all, and blends labels."""

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        nearest = Image.Resampling.NEAREST
        extent = T.ExtentTransform(self.src_rect, self.output_size, nearest, self.fill)
        return extent.apply_image(segmentation)


def transform_labels(transforms: T.TransformList, labels: np.ndarray) -> np.ndarray:
    """Transform a map of labels, each pixel's from the nearest one.

    Args:
        transforms: of an image.
        labels: uint8 (H, W) of that image.

    Returns:
        uint8 (H', W'), contiguous. No label is there that was not there before, except those that
        a transform pads with.
    """
    for tfm in transforms.transforms:
        if type(tfm) is T.ExtentTransform:
            tfm = _Extent(tfm.src_rect, tfm.output_size, tfm.interp, tfm.fill)
        labels = tfm.apply_segmentation(labels)
    return np.ascontiguousarray(labels)


class FloatResizeShortestEdge(T.Augmentation):
    """``ResizeShortestEdge`` to float32 images, as the paper's authors resize test images.

    One factor maps positions in both directions, where Detectron2 maps the sides onto each other;
    images are not smoothed before they shrink, and grey levels are not rounded.
    """

    def __init__(self, short_edge_length: int, max_size: int = sys.maxsize):
        """
        Args:
            short_edge_length: of the result, in pixels.
            max_size: most pixels of the long edge; the short one is shorter where that binds.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Return the resize of an image, which is (H, W) or (H, W, C)."""
        short, long = sorted(image.shape[:2])
        return FloatResizeTransform(min(self.short_edge_length / short, self.max_size / long))


class FloatResizeTransform(T.Transform):
    """Bilinear resize by a factor; images become float32."""

    def __init__(self, factor: float):
        """
        Args:
            factor: size of the result / size of the image; sides are rounded to whole pixels.
        """
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W) or (H, W, C) of any type to float32."""
        return self._resize(img.astype(np.float32), cv2.INTER_LINEAR)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """uint8 (H, W) labels, each pixel's from the nearest."""
        return self._resize(segmentation, cv2.INTER_NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(N, 2) x, y in pixels."""
        return coords * self.factor

    def inverse(self) -> FloatResizeTransform:
        """Map points back; to images it gives their size only to the nearest pixel."""
        return FloatResizeTransform(1 / self.factor)

    def _resize(self, array: np.ndarray, interpolation: int) -> np.ndarray:
        return cv2.resize(array, None, fx=self.factor, fy=self.factor, interpolation=interpolation)


class FloatDatasetMapperTTA(DatasetMapperTTA):
    """``DatasetMapperTTA`` with views as the paper's authors make them.

    They are resized as by :class:`FloatResizeShortestEdge`. Mirrored views are made of the mirrored
    image; where a side times the factor is not whole, mirroring the resized image instead would
    shift it by a part of a pixel.
    """

    def __call__(self, dataset_dict: dict) -> list[dict]:
        """
        Args:
            dataset_dict: as for ``DatasetMapperTTA``.

        Returns:
            Its views, with float32 images. Their ``transforms`` are for boxes: these go from one
            image to another by the ratio of the sizes, not by the factor of the resize.
        """
        image = dataset_dict["image"].permute(1, 2, 0).numpy()
        output_size = dataset_dict["height"], dataset_dict["width"]
        views = []
        for min_size in self.min_sizes:
            resize = FloatResizeShortestEdge(min_size, self.max_size).get_transform(image)
            for mirrored in (False, True)[: 1 + self.flip]:
                view = resize.apply_image(image[:, ::-1] if mirrored else image)
                height, width = view.shape[:2]
                transforms = [T.ResizeTransform(*output_size, height, width)]
                transforms += [T.HFlipTransform(width)] * mirrored
                views.append(
                    {
                        **dataset_dict,
                        "image": torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1))),
                        "transforms": T.TransformList(transforms),
                    }
                )
        return views


def is_mirrored(transforms: T.TransformList, image_size: tuple[int, int]) -> bool:
    """Whether transforms turn a picture into a mirror image, in which left and right trade places.

    A flip along either axis mirrors; two flips, or a rotation by any angle, do not.

    Args:
        transforms: geometric transforms of an image, affine ones at least roughly.
        image_size: (H, W) of the image that they take.
    """
    height, width = image_size
    corners = np.array([[0, 0], [width, 0], [0, height]], dtype=np.float64)
    origin, right, down = transforms.apply_coords(corners)
    (ax, ay), (bx, by) = right - origin, down - origin
    return bool(ax * by - ay * bx < 0)

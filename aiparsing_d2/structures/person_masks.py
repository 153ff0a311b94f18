"""Masks of people, taken from their part maps only where somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import torch
from detectron2.structures import Boxes
from torch import Tensor

from .part_maps import PartMaps


class PersonMasks:
    """A view of part maps as person masks: a pixel is the person's where its label is not 0.

    Stands where Detectron2 has a bool tensor (N, H, W), as the field ``pred_masks``, and is read
    like one by its evaluators, its ``Visualizer``, pycocotools and supervision. It takes no memory
    of its own: iteration makes one (H, W) mask at a time, and only :attr:`tensor`, :meth:`numpy`
    and ``np.asarray`` make all N.

    Attributes:
        part_maps: the :class:`PartMaps` of the N people.
    """

    dtype = torch.bool
    ndim = 3

    def __init__(self, part_maps: PartMaps):
        """
        Args:
            part_maps: of N people.
        """
        self.part_maps = part_maps

    @property
    def shape(self) -> torch.Size:
        """(N, H, W)."""
        return torch.Size((len(self.part_maps), *self.part_maps.image_size))

    @property
    def device(self) -> torch.device:
        """Where the part maps are."""
        return self.part_maps.device

    @property
    def tensor(self) -> Tensor:
        """All masks: bool (N, H, W)."""
        return self.part_maps.to_full() != 0

    def __len__(self) -> int:
        return len(self.part_maps)

    def __iter__(self) -> Iterator[Tensor]:
        """Make the masks one after the other: bool (H, W)."""
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, item: int) -> Tensor: ...

    @overload
    def __getitem__(self, item: slice | Tensor | np.ndarray | Sequence[int]) -> PersonMasks: ...

    def __getitem__(
        self, item: int | slice | Tensor | np.ndarray | Sequence[int]
    ) -> Tensor | PersonMasks:
        """Select people.

        Args:
            item: an int gives this person's mask, a bool tensor (H, W); anything else that selects
                along the first axis of a tensor gives :class:`PersonMasks`.
        """
        selected = PersonMasks(self.part_maps[item])
        return selected.tensor[0] if isinstance(item, (int, np.integer)) else selected

    @staticmethod
    def cat(masks: Sequence[PersonMasks]) -> PersonMasks:
        """Concatenate the people of several objects that share one image size."""
        return PersonMasks(PartMaps.cat([m.part_maps for m in masks]))

    def to(self, *args: Any, **kwargs: Any) -> PersonMasks:
        """Move to another device; the arguments are those of :meth:`PartMaps.to`."""
        return PersonMasks(self.part_maps.to(*args, **kwargs))

    def cpu(self) -> PersonMasks:
        """Move to the CPU."""
        return self.to("cpu")

    def numpy(self) -> np.ndarray:
        """All masks: bool array (N, H, W)."""
        return self.cpu().tensor.numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("PersonMasks are not stored as an array: reading them makes a copy")
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def any(self, dim: int | None = None) -> Tensor:
        """As ``Tensor.any``; over people (``dim=0``) one mask is made at a time."""
        if dim != 0:
            return self.tensor.any() if dim is None else self.tensor.any(dim)
        union = torch.zeros(self.shape[1:], dtype=torch.bool, device=self.device)
        for mask in self:
            union |= mask
        return union

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes, see :meth:`PartMaps.get_bounding_boxes`."""
        return self.part_maps.get_bounding_boxes()

    def __repr__(self) -> str:
        return f"PersonMasks({self.part_maps})"

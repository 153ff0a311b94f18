"""Part-label maps of the people of one image.

Naming convention:
    N: number of people. H, W: height and width of the image in pixels.
    window: integer pixel rectangle ``(x0, y0, x1, y1)`` in image coordinates, ends exclusive.
    label: 0 = not this person, ``1..C-1`` = a part or garment, 255 = ignore.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures import Boxes
from torch import Tensor

from .cropped_maps import CroppedMaps, check_cropped_maps


class PartMaps:
    """Label maps of N people, each stored only over its own pixel window of the image.

    A full-size map per person costs ``N * H * W`` bytes although a person covers a fraction of the
    image; here person i costs the area of ``windows[i]``. Outside its window a person's map is 0.
    Follows the interface of Detectron2's structures, so it can be a field of ``Instances``.

    Attributes:
        maps: N uint8 tensors; ``maps[i]`` has shape ``(y1 - y0, x1 - x0)`` of ``windows[i]``.
        windows: int64 tensor (N, 4), ``(x0, y0, x1, y1)``, ends exclusive, inside the image.
        image_size: ``(H, W)``.
    """

    def __init__(self, maps: Sequence[Tensor], windows: Tensor, image_size: tuple[int, int]):
        """
        Args:
            maps: N uint8 tensors, one per person, all on the same device.
            windows: integer tensor (N, 4) on any device.
            image_size: ``(H, W)``.

        Raises:
            ValueError: a map's dtype or shape does not fit, or a window leaves the image.
        """
        # Windows only ever address slices: on the CPU they can be read without a device sync.
        windows = torch.as_tensor(windows, dtype=torch.int64, device="cpu").reshape(-1, 4)
        height, width = (int(side) for side in image_size)
        check_cropped_maps(maps, windows.tolist(), (height, width), "PartMaps", torch.uint8)
        self.maps = list(maps)
        self.windows = windows
        self.image_size = (height, width)

    @classmethod
    def from_full(cls, maps: Tensor | np.ndarray) -> PartMaps:
        """Crop full-size maps to the bounding windows of their non-zero pixels.

        Args:
            maps: uint8 (N, H, W), tensor or array. A map without a non-zero pixel gets an empty
                window at the image's origin.
        """
        maps = torch.as_tensor(maps)
        if maps.dim() != 3:
            raise ValueError(f"PartMaps.from_full expects (N, H, W), got {tuple(maps.shape)}")
        windows = [_tight_window(part_map) for part_map in maps]
        crops = [m[y0:y1, x0:x1].clone() for m, (x0, y0, x1, y1) in zip(maps, windows)]
        return cls(crops, torch.tensor(windows), (maps.shape[1], maps.shape[2]))

    @property
    def device(self) -> torch.device:
        """Device of the maps (``cpu`` for an empty object)."""
        return self.maps[0].device if self.maps else torch.device("cpu")

    def to(self, *args: Any, **kwargs: Any) -> PartMaps:
        """Copy with the maps moved by ``Tensor.to(*args, **kwargs)`` (devices only, no dtypes)."""
        if not self.maps or self.maps[0].to(*args, **kwargs) is self.maps[0]:
            return PartMaps(self.maps, self.windows, self.image_size)
        pixels, starts = self._packed()
        return PartMaps._unpacked(pixels.to(*args, **kwargs), starts, self.windows, self.image_size)

    def _packed(self) -> tuple[Tensor, list[int]]:
        """All maps' pixels in one tensor, and where each map begins in it.

        A map that several people share, as people selected twice do, is in it once.
        """
        starts: dict[int, int] = {}
        different, total = [], 0
        for part_map in self.maps:
            if id(part_map) not in starts:
                starts[id(part_map)] = total
                different.append(part_map.reshape(-1))
                total += part_map.numel()
        pixels = torch.cat(different) if different else torch.zeros(0, dtype=torch.uint8)
        return pixels, [starts[id(part_map)] for part_map in self.maps]

    @classmethod
    def _unpacked(
        cls,
        pixels: Tensor | np.ndarray,
        starts: Sequence[int],
        windows: Tensor | np.ndarray,
        image_size: tuple[int, int],
    ) -> PartMaps:
        pixels, windows = torch.as_tensor(pixels), torch.as_tensor(windows)
        shapes = (windows[:, [3, 2]] - windows[:, [1, 0]]).tolist()
        maps = [pixels[i : i + h * w].view(h, w) for i, (h, w) in zip(starts, shapes)]
        return cls(maps, windows, image_size)

    def __reduce__(self) -> tuple[Any, ...]:
        # From a worker process to the one that trains, arrays travel in one piece; each tensor of
        # its own would be a file in shared memory.
        if self.device.type != "cpu":
            return PartMaps, (self.maps, self.windows, self.image_size)
        pixels, starts = self._packed()
        return PartMaps._unpacked, (
            pixels.numpy(),
            starts,
            self.windows.numpy(),
            self.image_size,
        )

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, item: int | slice | Tensor | np.ndarray | Sequence[int]) -> PartMaps:
        """Select people.

        Args:
            item: an int (gives one person), a slice, or anything that selects along the first
                axis of a tensor: bool mask of length N, int64 indices, a list.
        """
        if isinstance(item, (int, np.integer)):
            item = [item]
        if isinstance(item, Tensor):
            item = item.detach().cpu()
        chosen = torch.arange(len(self))[item].tolist()
        return PartMaps([self.maps[i] for i in chosen], self.windows[chosen], self.image_size)

    @staticmethod
    def cat(part_maps: Sequence[PartMaps]) -> PartMaps:
        """Concatenate the people of several objects that share one image size."""
        if not part_maps:
            raise ValueError("PartMaps.cat needs at least one PartMaps")
        sizes = {p.image_size for p in part_maps}
        if len(sizes) > 1:
            raise ValueError(f"PartMaps.cat: different image sizes {sorted(sizes)}")
        return PartMaps(
            [m for p in part_maps for m in p.maps],
            torch.cat([p.windows for p in part_maps]),
            part_maps[0].image_size,
        )

    def to_full(self) -> Tensor:
        """Paste every map into an image of zeros.

        Returns:
            uint8 (N, H, W) on the maps' device.
        """
        full = torch.zeros((len(self), *self.image_size), dtype=torch.uint8, device=self.device)
        for canvas, part_map, (x0, y0, x1, y1) in zip(full, self.maps, self.windows.tolist()):
            canvas[y0:y1, x0:x1] = part_map
        return full

    def to_cropped_maps(self) -> CroppedMaps:
        """Give the same maps and windows as numpy arrays, copied to the CPU if need be."""
        return CroppedMaps([m.cpu().numpy() for m in self.maps], self.windows.numpy())

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes of the non-zero pixels, XYXY in image pixels, ends exclusive.

        A person without a non-zero pixel gets an empty box at the origin.
        """
        boxes = torch.zeros((len(self), 4))
        for box, part_map, (left, top, _, _) in zip(boxes, self.maps, self.windows.tolist()):
            x0, y0, x1, y1 = _tight_window(part_map)
            if x1 > x0:
                box[:] = torch.tensor([left + x0, top + y0, left + x1, top + y1])
        return Boxes(boxes.to(self.device))

    def crop_and_resize(self, boxes: Tensor, size: int | tuple[int, int]) -> Tensor:
        """Crop person i's map to box i and resize it by nearest neighbour.

        The box is rounded half to even and clipped to the image, its ends are exclusive, and
        target pixel d reads source pixel ``floor(d * extent / size)``. A box that rounds to
        nothing or lies outside the image yields the one pixel nearest to its corner.

        Args:
            boxes: (N, 4) XYXY in image pixels.
            size: side, or (height, width), of the result.

        Returns:
            uint8 (N, height, width) on the maps' device.
        """
        out_h, out_w = (size, size) if isinstance(size, int) else size
        if len(boxes) != len(self):
            raise ValueError(f"crop_and_resize got {len(boxes)} boxes for {len(self)} maps")
        height, width = self.image_size
        pixels, starts = self._packed()
        if len(pixels) == 0:
            return torch.zeros((len(self), out_h, out_w), dtype=torch.uint8, device=self.device)
        # All people at once: on a GPU each small operation costs as much as a large one.
        left, top, right, bottom = self.windows.to(pixels.device).unbind(dim=1)
        x0, y0, x1, y1 = boxes.detach().round().to(pixels.device, torch.int64).unbind(dim=1)
        rows, row_is_inside = _nearest_sources(y0, y1, height, out_h, top, bottom)
        columns, column_is_inside = _nearest_sources(x0, x1, width, out_w, left, right)
        first = torch.tensor(starts, device=pixels.device)
        row_starts = first[:, None] + rows * (right - left)[:, None]
        sources = row_starts[:, :, None] + columns[:, None, :]
        is_inside = row_is_inside[:, :, None] & column_is_inside[:, None, :]
        return pixels[sources.where(is_inside, 0)].where(is_inside, 0)

    def to_rle(self) -> list[dict[int, dict]]:
        """COCO run-length codes of every person's parts.

        The cost of a person follows the window, not the image.

        Returns:
            For each person a dict from label (ascending, 0 left out) to the compressed RLE of that
            label at full image size (``{"size": [H, W], "counts": str}``, JSON-serialisable).
        """
        height, width = self.image_size
        encoded = []
        for part_map, (x0, y0, _, _) in zip(self.maps, self.windows.tolist()):
            runs = _run_lengths(part_map.cpu().numpy(), x0, y0, height, width)
            codes = {}
            for label, counts in runs.items():
                code = {"size": [height, width], "counts": counts}
                codes[label] = mask_util.frPyObjects(code, height, width)
                codes[label]["counts"] = codes[label]["counts"].decode("ascii")
            encoded.append(codes)
        return encoded

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"PartMaps(num_people={len(self)}, image_height={height}, image_width={width})"


def _tight_window(part_map: Tensor) -> tuple[int, int, int, int]:
    """Window of a map's non-zero pixels, in pixels of the map; all 0 without such a pixel."""
    if part_map.numel() == 0:
        return 0, 0, 0, 0
    pixels = part_map.cpu().numpy()
    # Of bytes, the maximum is much faster than any().
    ys = np.flatnonzero(pixels.max(axis=1)).tolist()
    if not ys:
        return 0, 0, 0, 0
    xs = np.flatnonzero(pixels.max(axis=0)).tolist()
    return xs[0], ys[0], xs[-1] + 1, ys[-1] + 1


def _run_lengths(
    part_map: np.ndarray, left: int, top: int, height: int, width: int
) -> dict[int, list[int]]:
    """Uncompressed COCO run lengths of each label of a map.

    Args:
        part_map: (h, w) labels.
        left, top: where its first pixel lies in the image.
        height, width: of the image.

    Returns:
        By label (ascending, 0 left out) the lengths of alternating runs without and with the label,
        down one column of the image after the other, the first possibly 0.
    """
    columns = np.ascontiguousarray(part_map.T)
    # Runs of equal labels within the columns.
    is_start = np.ones(columns.shape, dtype=bool)
    is_start[:, 1:] = columns[:, 1:] != columns[:, :-1]
    xs, ys = is_start.nonzero()
    labels = columns[xs, ys]
    starts = (xs + left) * height + ys + top
    ends = starts + np.diff(xs * columns.shape[1] + ys, append=columns.size)
    lengths = {}
    for label in np.unique(labels[labels != 0]).tolist():
        begin, end = starts[labels == label], ends[labels == label]
        # A run down to the image's bottom goes on at the top of the next column.
        apart = begin[1:] != end[:-1]
        begin, end = begin[np.append(True, apart)], end[np.append(apart, True)]
        bounds = np.stack([begin, end], axis=1).flatten()
        counts = np.diff(bounds, prepend=0, append=height * width)
        lengths[label] = (counts if counts[-1] else counts[:-1]).tolist()
    return lengths


def _nearest_sources(
    start: Tensor, end: Tensor, extent: int, size: int, first: Tensor, last: Tensor
) -> tuple[Tensor, Tensor]:
    """Nearest-neighbour sources along one axis.

    Args:
        start, end: int64 (N,), rounded sides of the boxes, ends exclusive, in image pixels.
        extent: image side.
        size: number of target pixels.
        first, last: int64 (N,), of the stored windows along the axis, ends exclusive.

    Returns:
        int64 (N, size), each target pixel's source, counted from the window's first pixel, and
        bool (N, size), whether it lies in the window.
    """
    start = start.clamp(0, extent - 1)
    end = torch.maximum(end.clamp(max=extent), start + 1)
    steps = torch.arange(size, device=start.device) * (end - start)[:, None] // size
    sources = start[:, None] + steps - first[:, None]
    return sources, (sources >= 0) & (sources < (last - first)[:, None])

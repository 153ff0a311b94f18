"""Part scores of people relative to their boxes.

Shape shorthand:
    N: people. C: classes incl. background. M: side of the stored logits. T = factor * M.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .part_maps import PartMaps

# Probabilities resized at a time, as a number of floats: bounds memory on large people.
_MAX_FLOATS_PER_STRIP = 2**25


class ROIPartLogits:
    """Class logits over each person's box, as the parsing predictor gives them.

    The counterpart of Detectron2's ``ROIMasks``: independent of the image's resolution until it is
    pasted. The stored logits are upsampled only when needed, which keeps N people's memory low.

    Attributes:
        tensor: (N, C, M, M) logits.
        upsample_factor: bilinear factor (aligned corners) to the resolution T the losses saw.
    """

    def __init__(self, tensor: Tensor, upsample_factor: int = 1):
        """
        Args:
            tensor: (N, C, M, M).
            upsample_factor: from M to T.
        """
        if tensor.dim() != 4:
            raise ValueError(f"ROIPartLogits expects (N, C, M, M), got {tuple(tensor.shape)}")
        self.tensor = tensor
        self.upsample_factor = upsample_factor

    @property
    def device(self) -> torch.device:
        """Where the logits are."""
        return self.tensor.device

    def to(self, *args: Any, **kwargs: Any) -> ROIPartLogits:
        """On another device or of another type; the arguments are those of ``Tensor.to``."""
        return ROIPartLogits(self.tensor.to(*args, **kwargs), self.upsample_factor)

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, item: int | slice | Tensor) -> ROIPartLogits:
        """Select people: an int (gives one person), a slice, a bool mask or indices."""
        if isinstance(item, (int, np.integer)):
            item = [item]
        return ROIPartLogits(self.tensor[item], self.upsample_factor)

    @staticmethod
    def cat(part_logits: Sequence[ROIPartLogits]) -> ROIPartLogits:
        """Concatenate people; all must share classes, resolution and factor."""
        factors = {p.upsample_factor for p in part_logits}
        if len(factors) != 1:
            raise ValueError(f"ROIPartLogits.cat: different upsample factors {sorted(factors)}")
        return ROIPartLogits(torch.cat([p.tensor for p in part_logits]), factors.pop())

    def probabilities(self) -> Tensor:
        """Softmax over classes at resolution T: float32 (N, C, T, T)."""
        logits = self.tensor.float()
        if self.upsample_factor != 1 and len(logits):
            logits = F.interpolate(
                logits, scale_factor=self.upsample_factor, mode="bilinear", align_corners=True
            )
        return logits.softmax(dim=1)

    @torch.no_grad()
    def person_boxes(self, boxes: Tensor) -> Tensor:
        """Find where within their boxes people end, as their parts tell it.

        A side is where the probability that a pixel is the person's, of any part, first exceeds one
        half, interpolated between cells. It is the box's own where it does so in the outermost
        cells.

        Args:
            boxes: (N, 4) XYXY, ends exclusive, which the logits are relative to.

        Returns:
            (N, 4) boxes within these. A person that is nowhere more likely than the background
            keeps the box.
        """
        person = 1 - self.tensor.float().softmax(dim=1)[:, 0]
        profiles = torch.stack([person.amax(dim=1), person.amax(dim=2)], dim=1)  # of x, of y
        low, high = self._first_likely(profiles), 1 - self._first_likely(profiles.flip(2))
        origin, extent = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        found = torch.cat([origin + low * extent, origin + high * extent], dim=1)
        somewhere = (profiles > 0.5).any(dim=2).all(dim=1)
        return found.where(somewhere[:, None], boxes)

    def _first_likely(self, profiles: Tensor) -> Tensor:
        """Where in 0..1 of a box's extent profiles (N, 2, M) first exceed one half: (N, 2)."""
        side = self.tensor.shape[-1]
        first = (profiles > 0.5).int().argmax(dim=2, keepdim=True)
        after = profiles.gather(2, first)
        before = profiles.gather(2, (first - 1).clamp(min=0))
        cell = first - (after - 0.5) / (after - before).clamp(min=1e-6)
        # The outermost cells stay the outermost when the logits are upsampled to `size` cells.
        size = side * self.upsample_factor
        position = (cell * (size - 1) / max(side - 1, 1) + 0.5) / size
        return position.where(first > 0, 0).squeeze(2)

    @torch.no_grad()
    def to_part_maps(
        self, boxes: Tensor, image_size: tuple[int, int], inclusive_boxes: bool = False
    ) -> tuple[PartMaps, Tensor]:
        """Paste each person into the image.

        The probabilities, with a border of one zero cell, are resized bilinearly to the box; the
        label of a pixel is the argmax after the resize.

        Args:
            boxes: (N, 4) XYXY in pixels of the output image.
            image_size: (H, W) of the output image.
            inclusive_boxes: whether right and bottom sides are the last pixels' indices. The box
                then grows with the zero border and is cut to whole pixels before the resize, as in
                the code the published weights were evaluated with.

        Returns:
            The part maps, and (N, C) the mean probability of each class over the person's pixels
            with that label (0 for absent labels).
        """
        height, width = image_size
        num_classes = self.tensor.shape[1]
        frames = boxes.detach().cpu().double().numpy()
        if inclusive_boxes:
            frames, windows = _whole_pixels(frames, self.tensor.shape[-1] * self.upsample_factor)
        else:
            # A pixel (x, y) is the unit square from (x, y): the window holds all that touch a box.
            windows = np.concatenate([np.floor(frames[:, :2]), np.ceil(frames[:, 2:])], axis=1)
        windows = np.clip(windows, 0, [width, height, width, height]).astype(np.int64)
        windows[:, 2:] = np.maximum(windows[:, 2:], windows[:, :2])

        maps, scores = [], self.tensor.new_zeros((len(self), num_classes), dtype=torch.float32)
        for i, (frame, window) in enumerate(zip(frames.tolist(), windows.tolist())):
            part_map, confidence = _paste(self[i].probabilities(), frame, window)
            maps.append(part_map)
            labels = part_map.flatten().long()
            total = torch.bincount(labels, confidence.flatten(), num_classes)
            count = torch.bincount(labels, minlength=num_classes)
            scores[i] = total / count.clamp(min=1)
        return PartMaps(maps, torch.from_numpy(windows), image_size), scores


def _whole_pixels(boxes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where inclusive boxes lie once their zero border is cut to whole pixels.

    Args:
        boxes: float64 (N, 4) XYXY, right and bottom sides inclusive.
        size: T, the cells of a box's side.

    Returns:
        (N, 4) the exact frames of the T x T cells, and (N, 4) the whole pixels of the cells and
        their border; both XYXY, ends exclusive.
    """
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = (boxes[:, 2:] - boxes[:, :2]) / 2 * ((size + 2) / size)
    # Both corners are cut toward zero, and the box has one pixel at least.
    low, high = np.trunc(centers - reach), np.trunc(centers + reach) + 1
    high = np.maximum(high, low + 1)
    border = (high - low) / (size + 2)
    return np.concatenate([low + border, high - border], axis=1), np.concatenate([low, high], 1)


def _paste(
    probabilities: Tensor, box: Sequence[float], window: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Resizes one person's probabilities to a window of the image and takes the best label.

    Args:
        probabilities: (1, C, T, T) over the box.
        box: XYXY.
        window: integer (x0, y0, x1, y1), ends exclusive.

    Returns:
        uint8 (y1 - y0, x1 - x0) labels, and float32 the winners' probabilities.
    """
    x0, y0, x1, y1 = window
    device = probabilities.device
    # The centre of the zero border's cells in the frame that `normalized` gives.
    border = 1 + 1 / probabilities.shape[-1]

    def normalized(start: int, end: int, low: float, high: float) -> Tensor:
        """Pixel centres in grid_sample's frame, where the box spans [-1, 1]."""
        positions = (np.arange(start, end) + 0.5 - low) / max(high - low, 1e-6) * 2 - 1
        # Rounding must not let a trace of the last cell label pixels that only the border covers.
        positions[np.abs(positions) > border - 1e-7] = 2
        return torch.as_tensor(positions, dtype=torch.float32, device=device)

    xs = normalized(x0, x1, box[0], box[2])
    ys = normalized(y0, y1, box[1], box[3])
    labels = torch.zeros((y1 - y0, x1 - x0), dtype=torch.uint8, device=device)
    confidence = torch.zeros(labels.shape, device=device)
    if labels.numel() == 0:
        return labels, confidence
    rows = max(1, _MAX_FLOATS_PER_STRIP // (probabilities.shape[1] * len(xs)))
    for top in range(0, len(ys), rows):
        strip = slice(top, top + rows)
        grid = torch.stack(torch.meshgrid(xs, ys[strip], indexing="xy"), dim=2)
        # Zeros outside act as the border of one zero cell.
        resized = F.grid_sample(
            probabilities, grid[None], mode="bilinear", padding_mode="zeros", align_corners=False
        )
        confidence[strip], best = resized[0].max(dim=0)
        labels[strip] = best.to(torch.uint8)
    return labels, confidence

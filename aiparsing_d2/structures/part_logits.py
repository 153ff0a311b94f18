"""Part scores of people relative to their boxes.

Shape shorthand:
    N: people. C: classes incl. background. M: side of the stored logits. T = factor * M.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .part_maps import PartMaps
from .window_labels import label_window, locate_pixels

# Probabilities resized at a time, as a number of floats: bounds memory on large people.
_MAX_FLOATS_PER_STRIP = 2**25
# Their exponentials are nothing, and the quick pasting still takes logits so far apart.
_DEPTH_OF_ABSENT = 70.0


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

    def _probabilities_of(self, person: int) -> Tensor:
        """(1, C, T, T)."""
        return self[person].probabilities()

    def without_unlikely_parts(self, min_probability: float) -> ROIPartLogits:
        """Leave out parts of which a person shows no convincing pixel.

        Their probability goes to the person's other parts, in proportion to theirs, so that the
        background's stays: patches of an unlikely garment become part of the likeliest one, and
        nobody's outline shrinks.

        Args:
            min_probability: a part is left out of a person if its probability is lower than this in
                all of the box. The likeliest part is not.

        Returns:
            float32 logits; those of a part left out are the person's lowest, far below the highest.
        """
        logits = self.tensor.float()
        parts = logits[:, 1:]
        peaks = logits.softmax(dim=1)[:, 1:].amax(dim=(2, 3), keepdim=True)
        likely = (peaks >= min_probability) | (peaks == peaks.amax(dim=1, keepdim=True))
        lowest = logits.amin(dim=(1, 2, 3), keepdim=True)
        absent = torch.minimum(lowest, logits.amax(dim=(1, 2, 3), keepdim=True) - _DEPTH_OF_ABSENT)
        # logsumexp asks whether there is nobody, which an exported graph cannot answer.
        of_likely = parts.masked_fill(~likely, -torch.inf).log_softmax(dim=1)
        raised = parts + (of_likely - parts.log_softmax(dim=1))
        kept = torch.cat([logits[:, :1], raised.where(likely, absent)], dim=1)
        return ROIPartLogits(kept, self.upsample_factor)

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

    @overload
    def to_part_maps(
        self,
        boxes: Tensor,
        image_size: tuple[int, int],
        inclusive_boxes: bool = False,
        with_scores: Literal[True] = True,
    ) -> tuple[PartMaps, Tensor]: ...

    @overload
    def to_part_maps(
        self,
        boxes: Tensor,
        image_size: tuple[int, int],
        inclusive_boxes: bool = False,
        *,
        with_scores: Literal[False],
    ) -> tuple[PartMaps, None]: ...

    @torch.no_grad()
    def to_part_maps(
        self,
        boxes: Tensor,
        image_size: tuple[int, int],
        inclusive_boxes: bool = False,
        with_scores: bool = True,
    ) -> tuple[PartMaps, Tensor | None]:
        """Paste each person into the image.

        The probabilities, with a border of one zero cell, are resized bilinearly to the box; the
        label of a pixel is the argmax after the resize. On the CPU nearly all labels are found
        without this arithmetic, see :mod:`.window_labels`, in a fifth of the time with numba
        (extra ``fast``); they are the same.

        Args:
            boxes: (N, 4) XYXY in pixels of the output image.
            image_size: (H, W) of the output image.
            inclusive_boxes: whether right and bottom sides are the last pixels' indices. The box
                then grows with the zero border and is cut to whole pixels before the resize, as in
                the code the published weights were evaluated with.
            with_scores: whether to compute the probabilities, which takes longer than the maps.

        Returns:
            The part maps, and (N, C) the mean probability of each class over the person's pixels
            with that label (0 for absent labels), or None without scores.
        """
        height, width = image_size
        num_classes = self.tensor.shape[1]
        size = self.tensor.shape[-1] * self.upsample_factor
        frames = boxes.detach().cpu().double().numpy()
        if inclusive_boxes:
            frames, windows = _whole_pixels(frames, size)
        else:
            # A pixel (x, y) is the unit square from (x, y): the window holds all that touch a box.
            windows = np.concatenate([np.floor(frames[:, :2]), np.ceil(frames[:, 2:])], axis=1)
        windows = np.clip(windows, 0, [width, height, width, height]).astype(np.int64)
        windows[:, 2:] = np.maximum(windows[:, 2:], windows[:, :2])

        positions = [
            _pixel_centers(window[axis::2], frame[axis::2], size)
            for frame, window in zip(frames.tolist(), windows.tolist())
            for axis in (0, 1)
        ]
        on_cpu = self.device.type == "cpu"
        centers = locate_pixels(positions, size) if on_cpu else []
        maps, scores = [], self.tensor.new_zeros((len(self), num_classes), dtype=torch.float32)
        for i in range(len(self)):
            probabilities = partial(self._probabilities_of, i)
            found = None
            if on_cpu:
                xs, ys = centers[2 * i], centers[2 * i + 1]
                person = self.tensor[i].detach().float()
                found = label_window(person, size, xs, ys, probabilities, with_scores)
            if found is not None:
                maps.append(torch.from_numpy(found[0]))
                if with_scores:
                    scores[i] = torch.from_numpy(found[1])
                continue
            x, y = (torch.from_numpy(p).to(self.device) for p in positions[2 * i : 2 * i + 2])
            labels, totals = _paste(probabilities(), x, y)
            maps.append(labels)
            if with_scores:
                count = torch.bincount(labels.flatten(), minlength=num_classes)
                scores[i] = totals / count.clamp(min=1)
        part_maps = PartMaps(maps, torch.from_numpy(windows), image_size)
        return part_maps, scores if with_scores else None


def _pixel_centers(window: Sequence[int], frame: Sequence[float], size: int) -> np.ndarray:
    """Pixel centres along one axis in grid_sample's frame, where the box spans [-1, 1].

    Args:
        window: start and end, in pixels.
        frame: start and end of the box.
        size: T.

    Returns:
        float32 (end - start,).
    """
    low, high = frame
    positions = (np.arange(*window) + 0.5 - low) / max(high - low, 1e-6) * 2 - 1
    # Rounding must not let a trace of the last cell label pixels that only the border covers: it
    # ends at the centre of its cells.
    positions[np.abs(positions) > 1 + 1 / size - 1e-7] = 2
    return positions.astype(np.float32)


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


def _paste(probabilities: Tensor, xs: Tensor, ys: Tensor) -> tuple[Tensor, Tensor]:
    """Resizes one person's probabilities to a window of the image and takes the best label.

    Args:
        probabilities: (1, C, T, T) over the box.
        xs, ys: float32 (w,) and (h,), pixel centres in grid_sample's frame.

    Returns:
        uint8 (h, w) labels, and (C,) sums of the winners' probabilities by label.
    """
    num_classes = probabilities.shape[1]
    labels = torch.zeros((len(ys), len(xs)), dtype=torch.uint8, device=probabilities.device)
    # MPS has no float64.
    exact = torch.float32 if probabilities.device.type == "mps" else torch.float64
    totals = torch.zeros(num_classes, dtype=exact, device=probabilities.device)
    if labels.numel() == 0:
        return labels, totals
    rows = max(1, _MAX_FLOATS_PER_STRIP // (num_classes * len(xs)))
    for top in range(0, len(ys), rows):
        strip = slice(top, top + rows)
        grid = torch.stack(torch.meshgrid(xs, ys[strip], indexing="xy"), dim=2)
        # Zeros outside act as the border of one zero cell.
        resized = F.grid_sample(
            probabilities, grid[None], mode="bilinear", padding_mode="zeros", align_corners=False
        )
        confidence, best = resized[0].max(dim=0)
        totals += torch.bincount(best.flatten(), confidence.flatten().to(exact), num_classes)
        labels[strip] = best.to(torch.uint8)
    return labels, totals

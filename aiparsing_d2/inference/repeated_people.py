"""People who were found twice."""

from __future__ import annotations

import torch

from aiparsing_d2.structures import PartMaps

__all__ = ["different_people"]

_MAX_IOU = 0.5


def different_people(part_maps: PartMaps) -> list[int]:
    """Find whom to keep of people of whom some were found twice.

    A pixel shows one person. Two maps that share more than half of the pixels of either are taken
    for the same person, although their boxes may differ enough for non-maximum suppression to keep
    both, as a half body and the whole one.

    Args:
        part_maps: the best person first.

    Returns:
        Ascending indices of the people who are no repetition of a better one that is kept.
    """
    masks = [part_map != 0 for part_map in part_maps.maps]
    windows = part_maps.windows.tolist()
    areas = [int(mask.sum()) for mask in masks]
    kept: list[int] = []
    for i in range(len(masks)):
        shared = [_shared_pixels(masks[i], windows[i], masks[k], windows[k]) for k in kept]
        if all(n <= _MAX_IOU * (areas[i] + areas[k] - n) for n, k in zip(shared, kept)):
            kept.append(i)
    return kept


def _shared_pixels(
    mask: torch.Tensor, window: list[int], other: torch.Tensor, other_window: list[int]
) -> int:
    x0, y0 = (max(a, b) for a, b in zip(window[:2], other_window[:2]))
    x1, y1 = (min(a, b) for a, b in zip(window[2:], other_window[2:]))
    if x0 >= x1 or y0 >= y1:
        return 0
    parts = [
        m[y0 - top : y1 - top, x0 - left : x1 - left]
        for m, (left, top, _, _) in ((mask, window), (other, other_window))
    ]
    return int((parts[0] & parts[1]).sum())

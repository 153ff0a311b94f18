"""Which ground-truth person each feature location is to predict (paper, Sec. III-A, Eq. 1).

Naming convention:
    L: locations of one image over all levels. G: ground-truth boxes of that image.
    distances: left, top, right, bottom from a location to a box's sides, in input pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NO_MATCH = -1


def feature_locations(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Input-image positions of a feature map's cells, row by row.

    Returns:
        float32 (height * width, 2), ``(x, y) = (column, row) * stride + stride // 2`` in pixels.
    """
    xs = torch.arange(width, device=device) * stride + stride // 2
    ys = torch.arange(height, device=device) * stride + stride // 2
    ys, xs = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([xs.flatten(), ys.flatten()], dim=1).float()


def distances_to_boxes(locations: Tensor, boxes: Tensor) -> Tensor:
    """Eq. 1 for every pair.

    Args:
        locations: (L, 2) x, y.
        boxes: (G, 4) XYXY.

    Returns:
        (L, G, 4) left, top, right, bottom distances; negative outside the box.
    """
    x, y = locations[:, None, 0], locations[:, None, 1]
    return torch.stack([x - boxes[:, 0], y - boxes[:, 1], boxes[:, 2] - x, boxes[:, 3] - y], dim=2)


def boxes_from_distances(locations: Tensor, distances: Tensor) -> Tensor:
    """Inverse of Eq. 1: (..., 2) locations and (..., 4) distances to (..., 4) XYXY boxes."""
    return torch.cat([locations - distances[..., :2], locations + distances[..., 2:]], dim=-1)


@torch.no_grad()
def match_locations(
    locations: Sequence[Tensor],
    strides: Sequence[int],
    size_ranges: Sequence[tuple[float, float]],
    gt_boxes: Tensor,
    center_sampling_radius: float,
) -> Tensor:
    """Assigns at most one ground-truth box to each location.

    A location is a candidate for a box if it lies strictly inside the square of
    ``center_sampling_radius`` strides around the box's centre, clipped to the box, and its largest
    distance to a side of the box is within its level's range, both ends included. Of several
    candidates the smallest box is taken.

    Args:
        locations: per level, (L_l, 2) x, y in input pixels.
        strides: per level, in input pixels.
        size_ranges: per level, (lowest, highest) largest distance in pixels.
        gt_boxes: (G, 4) XYXY in input pixels.
        center_sampling_radius: in strides; 0 or less lets the whole box count.

    Returns:
        int64 (L,): index of the box, or ``NO_MATCH``, levels concatenated.
    """
    counts = [len(level) for level in locations]
    all_locations = torch.cat(list(locations))
    if len(gt_boxes) == 0:
        return all_locations.new_full((len(all_locations),), NO_MATCH, dtype=torch.int64)

    def per_location(values: Sequence) -> Tensor:
        values = torch.as_tensor(values, dtype=torch.float32, device=all_locations.device)
        return values.repeat_interleave(torch.tensor(counts, device=values.device), dim=0)

    distances = distances_to_boxes(all_locations, gt_boxes)  # (L, G, 4)
    inside = distances
    if center_sampling_radius > 0:
        reach = (per_location(strides) * center_sampling_radius)[:, None, None]  # (L, 1, 1)
        centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
        from_center = all_locations[:, None] - centers  # (L, G, 2)
        # Clipping the square to the box = being inside both.
        inside = torch.cat([distances, reach + from_center, reach - from_center], dim=2)
    candidate = inside.amin(dim=2) > 0

    ranges = per_location(size_ranges)
    largest = distances.amax(dim=2)
    candidate &= (largest >= ranges[:, :1]) & (largest <= ranges[:, 1:])

    areas = (gt_boxes[:, 2:] - gt_boxes[:, :2]).prod(dim=1)
    areas = torch.where(candidate, areas, torch.inf)
    smallest, matched = areas.min(dim=1)
    return torch.where(smallest.isinf(), NO_MATCH, matched)


def centerness_targets(distances: Tensor) -> Tensor:
    """FCOS' centre-ness: sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)).

    Args:
        distances: (P, 4) left, top, right, bottom; all positive.

    Returns:
        (P,) in (0, 1].
    """
    horizontal, vertical = distances[:, 0::2], distances[:, 1::2]
    ratio = (horizontal.amin(1) / horizontal.amax(1)) * (vertical.amin(1) / vertical.amax(1))
    return ratio.sqrt()

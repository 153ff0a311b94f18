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

# Pairs of a location and a box looked at together: bounds the memory in crowds.
_MAX_PAIRS = 2**20


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
    """Eq. 1: (..., 2) locations and (..., 4) XYXY boxes, broadcast against each other.

    Returns:
        (..., 4) left, top, right, bottom distances; negative outside the box.
    """
    return torch.cat([locations - boxes[..., :2], boxes[..., 2:] - locations], dim=-1)


def boxes_from_distances(locations: Tensor, distances: Tensor) -> Tensor:
    """Inverse of Eq. 1: (..., 2) locations and (..., 4) distances to (..., 4) XYXY boxes."""
    return torch.cat([locations - distances[..., :2], locations + distances[..., 2:]], dim=-1)


@torch.no_grad()
def inside_any(locations: Tensor, boxes: Tensor) -> Tensor:
    """Which of (L, 2) locations lie strictly inside any of an image's boxes.

    Args:
        locations: (L, 2).
        boxes: (N, B, 4) XYXY, of N images; empty ones hold no location.

    Returns:
        bool (N, L).
    """
    is_inside = torch.zeros(len(boxes), len(locations), dtype=torch.bool, device=boxes.device)
    for box in boxes[:, (boxes != 0).any(dim=2).any(dim=0)].unbind(dim=1):
        is_inside |= distances_to_boxes(locations, box[:, None]).amin(dim=2) > 0
    return is_inside


@torch.no_grad()
def match_locations(
    locations: Sequence[Tensor],
    strides: Sequence[int],
    size_ranges: Sequence[Sequence[float]],
    gt_boxes: Tensor,
    center_sampling_radius: float,
) -> Tensor:
    """Assign at most one ground-truth box to each location.

    A location is a candidate for a box if it lies strictly inside the square of
    ``center_sampling_radius`` strides around the box's centre, clipped to the box, and its largest
    distance to a side of the box is within its level's range, both ends included. Of several
    candidates the smallest box is taken, of equal ones the first.

    Args:
        locations: per level, (L_l, 2) x, y in input pixels.
        strides: per level, in input pixels.
        size_ranges: per level, (lowest, highest) largest distance in pixels.
        gt_boxes: (N, G, 4) XYXY in input pixels, of N images; empty ones get no location.
        center_sampling_radius: in strides; 0 or less lets the whole box count.

    Returns:
        int64 (N, L): index of the image's box, or ``NO_MATCH``, levels concatenated.
    """
    counts = [len(level) for level in locations]
    all_locations = torch.cat(list(locations))

    def per_location(values: Sequence) -> Tensor:
        values = torch.as_tensor(values, dtype=torch.float32, device=all_locations.device)
        return values.repeat_interleave(torch.tensor(counts, device=values.device), dim=0)

    whole_box = center_sampling_radius <= 0
    reach = per_location(strides) * (torch.inf if whole_box else center_sampling_radius)
    ranges = per_location(size_ranges)
    num_images, num_boxes, _ = gt_boxes.shape
    matched = all_locations.new_full((num_images, len(all_locations)), NO_MATCH, dtype=torch.int64)
    smallest = torch.full_like(matched, torch.inf, dtype=torch.float32)
    step = max(1, _MAX_PAIRS // max(matched.numel(), 1))
    for first in range(0, num_boxes, step):
        boxes = gt_boxes[:, first : first + step]
        areas = (boxes[:, :, 2:] - boxes[:, :, :2]).prod(dim=2)
        candidate = _candidates(all_locations, boxes, reach, ranges)
        area_or_inf = torch.where(candidate, areas[:, None], torch.inf)
        smallest_here, match_here = area_or_inf.min(dim=2)
        better = smallest_here < smallest
        matched = torch.where(better, match_here + first, matched)
        smallest = torch.where(better, smallest_here, smallest)
    return matched


def _candidates(locations: Tensor, boxes: Tensor, reach: Tensor, ranges: Tensor) -> Tensor:
    """Which location (L, 2) may predict which box (N, G, 4): bool (N, L, G).

    Args:
        locations, boxes: in input pixels.
        reach: (L,) half the side of the square around a box's centre.
        ranges: (L, 2) lowest and highest largest distance.
    """
    locations, boxes = locations[:, None], boxes[:, None]
    distances = distances_to_boxes(locations, boxes)  # (N, L, G, 4)
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    from_center = (locations - centers).abs().amax(dim=3)
    # Clipping the square to the box = being inside both.
    candidate = (distances.amin(dim=3) > 0) & (from_center < reach[:, None])
    largest = distances.amax(dim=3)
    return candidate & (largest >= ranges[:, :1]) & (largest <= ranges[:, 1:])


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

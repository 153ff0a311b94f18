"""Targets of the parsing, edge and score branches (paper, Sec. III-B and "Edge information").

Shape shorthand:
    R: RoIs of the batch. S: side of the label maps and logits. C: classes incl. background.
    Label maps are integer tensors with 0 = background, 255 = ignore.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor

from aiparsing_d2.structures.part_labels import IGNORE_LABEL


def part_map_targets(instances: list[Instances], size: int) -> Tensor:
    """Crop each matched person's own part map to its proposal.

    Args:
        instances: per image, with ``proposal_boxes`` and ``gt_part_maps`` (images without RoIs may
            lack the latter).
        size: S.

    Returns:
        int64 (R, S, S); other people are background.
    """
    crops = [
        x.gt_part_maps.crop_and_resize(x.proposal_boxes.tensor, size) for x in instances if len(x)
    ]
    return torch.cat(crops).to(instances[0].proposal_boxes.device, torch.int64)


def edge_targets(part_maps: Tensor, size: int | None = None) -> Tensor:
    """Mark part boundaries: pixels that differ from a neighbour, thickened by a 3x3 dilation.

    Of two neighbours (vertical, horizontal, both diagonals) with different labels, neither of them
    255, one is marked: the lower, the left, and for both diagonals the upper one. Together with the
    diagonals' marks, the dilation makes a straight border a band 4 pixels wide.

    Args:
        part_maps: (R, S, S) labels.
        size: side of the result, at most S and S by default. A smaller one has an edge wherever
            one of the pixels under its own is on an edge, so that the band keeps its share of the
            RoI, but for what one pixel takes.

    Returns:
        int64 (R, size, size): 1 = edge, 0 = no edge, 255 where the label, or without an edge that
        of any of the pixels below, is 255.
    """
    known = part_maps != IGNORE_LABEL

    def differ(a: tuple[slice, slice], b: tuple[slice, slice]) -> Tensor:
        a, b = (slice(None), *a), (slice(None), *b)
        return (part_maps[a] != part_maps[b]) & known[a] & known[b]

    everything, first, last = slice(None), slice(None, -1), slice(1, None)
    seeds = torch.zeros_like(known)
    seeds[:, last, everything] |= differ((last, everything), (first, everything))
    seeds[:, everything, first] |= differ((everything, first), (everything, last))
    seeds[:, first, first] |= differ((first, first), (last, last))
    seeds[:, first, last] |= differ((first, last), (last, first))

    edges = F.max_pool2d(seeds[:, None].float(), 3, stride=1, padding=1)[:, 0].long()
    edges = edges.masked_fill(~known, IGNORE_LABEL)
    if size is None or size == edges.shape[-1]:
        return edges
    pooled = torch.stack([edges == 1, edges == IGNORE_LABEL], dim=1).float()
    has_edge, has_unknown = F.adaptive_max_pool2d(pooled, size).bool().unbind(dim=1)
    return has_edge.long().masked_fill(has_unknown & ~has_edge, IGNORE_LABEL)


def mean_iou(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Mean IoU of each RoI over the classes (background included) present in either map.

    Args:
        predicted: (R, S, S) labels in [0, C).
        target: (R, S, S) labels; pixels with 255 are left out.
        num_classes: C.

    Returns:
        float32 (R,) in [0, 1]; 0 for a RoI without a counted pixel.
    """
    counted = (target != IGNORE_LABEL).flatten(1)
    # A histogram of (RoI, target, prediction) triples; ignored pixels go to an extra last bin.
    pairs = target.flatten(1) * num_classes + predicted.flatten(1)
    offsets = torch.arange(len(pairs), device=pairs.device)[:, None] * num_classes**2
    bins = torch.where(counted, pairs + offsets, len(pairs) * num_classes**2)
    histogram = torch.bincount(bins.flatten(), minlength=len(pairs) * num_classes**2 + 1)
    confusion = histogram[:-1].view(len(pairs), num_classes, num_classes)
    hits = confusion.diagonal(dim1=1, dim2=2)
    union = confusion.sum(1) + confusion.sum(2) - hits
    present = union > 0
    iou = hits / union.clamp(min=1)
    return iou.sum(1) / present.sum(1).clamp(min=1)

"""The metrics of human parsing once more, by plain loops over pixels and exact fractions.

Shares nothing with the package: the tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

THRESHOLDS = [Fraction(k, 10) for k in range(1, 10)]


@dataclass
class Image:
    """One image: uint8 maps (P, H, W), (H, W), (N, H, W) and scores (N,), (N, C-1)."""

    gt_maps: np.ndarray
    category_map: np.ndarray
    maps: np.ndarray
    scores: np.ndarray
    part_scores: np.ndarray


@dataclass
class Scores:
    class_iou: list = field(default_factory=list)
    app: list = field(default_factory=list)
    pcp: list = field(default_factory=list)
    apr_per_class: dict = field(default_factory=dict)
    apr: list = field(default_factory=list)
    miou: float | None = None
    pixel_accuracy: float | None = None
    mean_accuracy: float | None = None


def paint(maps, order, shape):
    """Label and owner (-1 = nobody) of every pixel."""
    label = [[0] * shape[1] for _ in range(shape[0])]
    owner = [[-1] * shape[1] for _ in range(shape[0])]
    for n in order:
        for y in range(shape[0]):
            for x in range(shape[1]):
                if maps[n][y][x] > 0:
                    label[y][x], owner[y][x] = int(maps[n][y][x]), n
    return label, owner


def painting_order(scores, threshold):
    return [n for n in sorted(range(len(scores)), key=lambda n: (scores[n], n))
            if scores[n] >= threshold]  # fmt: skip


def pair_ious(gt, pred, num_classes):
    """IoU of every class that two whole person maps have, without the ignored pixels."""
    ious = {}
    for c in range(num_classes):
        both = either = 0
        for y in range(gt.shape[0]):
            for x in range(gt.shape[1]):
                if gt[y, x] < num_classes:
                    both += gt[y, x] == c and pred[y, x] == c
                    either += gt[y, x] == c or pred[y, x] == c
        if either:
            ious[c] = Fraction(int(both), int(either))
    return ious


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def area_under_curve(hits, num_positives):
    """All-point area under the precision-recall curve; None without ground truth."""
    if num_positives == 0:
        return None
    points = []
    right = 0
    for rank, hit in enumerate(hits, start=1):
        right += hit
        points.append((Fraction(right, num_positives), Fraction(right, rank)))
    area, recall_before = Fraction(0), Fraction(0)
    for k, (recall, _) in enumerate(points):
        area += (recall - recall_before) * max(precision for _, precision in points[k:])
        recall_before = recall
    return area


def match_people(image, num_classes, score_thresh):
    """(score, index, best GT or None, its mIoU, IoU per class) of every candidate."""
    found = []
    for n, score in enumerate(image.scores):
        if score < score_thresh:
            continue
        best, best_miou, best_ious = None, Fraction(-1), {}
        for g, gt in enumerate(image.gt_maps):
            ious = pair_ious(gt, image.maps[n], num_classes)
            miou = mean(ious.values()) or Fraction(0)
            if miou > best_miou:
                best, best_miou, best_ious = g, miou, ious
        found.append((score, n, best, best_miou, best_ious))
    return found


def brute_force_scores(
    images,
    num_classes,
    score_thresh=0.001,
    semseg_thresh=0.3,
    part_score_thresh=0.01,
    part_regions_skip_ignored=False,
):
    result = Scores()
    people, regions = [], []
    confusion = [[0] * num_classes for _ in range(num_classes)]
    gt_regions = {c: 0 for c in range(1, num_classes)}
    num_gt = 0
    for i, image in enumerate(images):
        num_gt += len(image.gt_maps)
        height, width = image.category_map.shape
        pixels = [(y, x) for y in range(height) for x in range(width)]
        painted, _ = paint(image.maps, painting_order(image.scores, semseg_thresh), (height, width))
        for y, x in pixels:
            if image.category_map[y, x] < num_classes:
                confusion[image.category_map[y, x]][painted[y][x]] += 1

        for score, n, g, miou, ious in match_people(image, num_classes, score_thresh):
            parts = (
                {int(label) for label in np.unique(image.gt_maps[g])} if g is not None else set()
            )
            parts = {c for c in parts if 0 < c < num_classes}
            people.append((-score, i, n, g, miou, ious, parts))

        gt_label, gt_owner = paint(image.gt_maps, range(len(image.gt_maps)), (height, width))
        label, owner = paint(
            image.maps, painting_order(image.scores, part_score_thresh), (height, width)
        )
        gt_sets, sets = {}, {}
        for y, x in pixels:
            ignored = image.category_map[y, x] >= num_classes or gt_label[y][x] >= num_classes
            if ignored and part_regions_skip_ignored:
                continue
            if gt_label[y][x] and not ignored:
                gt_sets.setdefault((gt_owner[y][x], gt_label[y][x]), set()).add((y, x))
            if label[y][x]:
                sets.setdefault((owner[y][x], label[y][x]), set()).add((y, x))
        for _, c in gt_sets:
            gt_regions[c] += 1
        for (n, c), area in sets.items():
            best = max(
                (Fraction(len(area & gt_area), len(area | gt_area))
                 for (_, gt_c), gt_area in gt_sets.items() if gt_c == c),
                default=Fraction(0),
            )  # fmt: skip
            # Of equal scores the later image comes first, and of an image the person painted later.
            height = painting_order(image.scores, part_score_thresh).index(n)
            regions.append((-image.part_scores[n][c - 1], -i, -height, c, best))

    for c in range(num_classes):
        row, column = sum(confusion[c]), sum(line[c] for line in confusion)
        union = row + column - confusion[c][c]
        result.class_iou.append(Fraction(confusion[c][c], union) if union else None)
    result.miou = mean(iou for iou in result.class_iou if iou is not None)
    right = sum(confusion[c][c] for c in range(num_classes))
    total = sum(map(sum, confusion))
    result.pixel_accuracy = Fraction(right, total) if total else None
    result.mean_accuracy = mean(
        Fraction(confusion[c][c], sum(confusion[c]))
        for c in range(num_classes)
        if sum(confusion[c])
    )

    people.sort(key=lambda person: person[:3])
    regions.sort(key=lambda region: region[:4])
    for t in THRESHOLDS:
        hits, taken, shares = [], set(), []
        for _, i, _, g, miou, ious, parts in people:
            hit = g is not None and miou > t and (i, g) not in taken
            hits.append(hit)
            if hit:
                taken.add((i, g))
                good = sum(1 for c, iou in ious.items() if c >= 1 and iou > t)
                shares.append(Fraction(good, len(parts)) if parts else Fraction(0))
        result.app.append(area_under_curve(hits, num_gt))
        result.pcp.append(sum(shares, Fraction(0)) / num_gt if num_gt else None)
        per_class = {
            c: area_under_curve([r[4] > t for r in regions if r[3] == c], number)
            for c, number in gt_regions.items()
            if number
        }
        for c, value in per_class.items():
            result.apr_per_class.setdefault(c, []).append(value)
        result.apr.append(mean(per_class.values()))
    return result

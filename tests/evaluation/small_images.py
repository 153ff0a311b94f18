"""Images of a few pixels, made up by hand or at random, and their scores."""

from __future__ import annotations

import numpy as np
from brute_force_metrics import Image

from aiparsing_d2.evaluation import GroundTruth, ParsingMetrics, Prediction

C = 5
"""Classes of the examples."""


def add(metrics, key, image, **kwargs):
    metrics.add_image(
        key,
        GroundTruth(image.gt_maps, image.category_map),
        Prediction(image.maps, image.scores, image.part_scores),
        **kwargs,
    )


def score(images, num_classes=C, **kwargs):
    metrics = ParsingMetrics(num_classes, **kwargs)
    for i, image in enumerate(images):
        add(metrics, f"image {i}", image)
    return metrics.compute()


def flat(scores):
    """All numbers of a ParsingScores, in one array."""
    arrays = [scores.class_iou, scores.app, scores.pcp, scores.apr_per_class.ravel(), scores.apr]
    numbers = [scores.miou, scores.pixel_accuracy, scores.mean_accuracy]
    return np.concatenate([*arrays, numbers, list((scores.box or {}).values())])


def example(gt_maps, maps, scores, part_scores=None, category_map=None):
    """An image from lists; the category map is painted from the people by default."""
    gt_maps, maps = np.array(gt_maps, dtype=np.uint8), np.array(maps, dtype=np.uint8)
    scores = np.array(scores, dtype=np.float64)
    if category_map is None:
        category_map = np.zeros(gt_maps.shape[1:], dtype=np.uint8)
        for gt in gt_maps:
            category_map[gt > 0] = gt[gt > 0]
    if part_scores is None:
        part_scores = np.repeat(scores[:, None], C - 1, axis=1)
    return Image(gt_maps, np.array(category_map, dtype=np.uint8), maps, scores, part_scores)


def random_image(rng, num_gt, num_predictions, size=(7, 9), num_classes=C):
    """Blocks of parts; predictions are shifted and disturbed copies of ground truth people."""
    height, width = size
    gt_maps = np.zeros((num_gt, height, width), dtype=np.uint8)
    for gt in gt_maps:
        y, x = rng.integers(0, height - 2), rng.integers(0, width - 2)
        h, w = rng.integers(2, height), rng.integers(2, width)
        block = gt[y : y + h, x : x + w]
        block[:] = rng.integers(0, num_classes, size=block.shape)
        block[0] = rng.integers(1, num_classes)
    category_map = np.zeros(size, dtype=np.uint8)
    for gt in gt_maps:
        gt[rng.random(size) < 0.05] = 255
        category_map[gt > 0] = gt[gt > 0]
    # The category map may say otherwise than the person maps, ignored pixels included.
    category_map[rng.random(size) < 0.1] = rng.choice([0, 1, 255])
    maps = np.zeros((num_predictions, height, width), dtype=np.uint8)
    for n, pred in enumerate(maps):
        if num_gt and rng.random() < 0.8:
            pred[:] = np.where(gt_maps[n % num_gt] < num_classes, gt_maps[n % num_gt], 0)
        noise = rng.random(size) < rng.choice([0.0, 0.1, 0.4])
        pred[noise] = rng.integers(0, num_classes, size=noise.sum())
    # Few different scores: ties are the rule. Some lie below every threshold, some on one.
    scores = rng.choice([0.0005, 0.005, 0.01, 0.2, 0.3, 0.7, 0.9], size=num_predictions)
    part_scores = rng.choice([0.1, 0.2, 0.3], size=(num_predictions, num_classes - 1))
    return Image(gt_maps, category_map, maps, scores, part_scores)

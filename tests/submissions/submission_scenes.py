"""Random ground truth and predictions, and their scores."""

from __future__ import annotations

import numpy as np
from PIL import Image

from aiparsing_d2.evaluation import GroundTruth, ParsingMetrics, ParsingScores, Prediction

NUM_CLASSES = 5
SIZE = (12, 30)


def random_scene(
    rng: np.random.Generator, *, overlapping: bool, lowest_score: float = 0.01
) -> tuple[GroundTruth, Prediction]:
    """Up to three people side by side, and as many predictions, disturbed copies of them.

    Args:
        rng: the source of everything.
        overlapping: let predictions reach into each other. Otherwise none hides a pixel of another.
        lowest_score: of the predictions.
    """
    height, width = SIZE
    num_people = int(rng.integers(0, 4))
    gt_maps = np.zeros((num_people, *SIZE), dtype=np.uint8)
    maps = np.zeros_like(gt_maps)
    for n in range(num_people):
        column = slice(10 * n + 1, 10 * n + 9)
        gt_maps[n, 2:10, column] = rng.integers(1, NUM_CLASSES, size=(4, 1)).repeat(2, axis=0)
        maps[n] = gt_maps[n]
        noise = rng.random((height, 8)) < 0.3
        maps[n, :, column][noise] = rng.integers(0, NUM_CLASSES, size=noise.sum())
        maps[n, 0, 10 * n + 1] = 1  # nobody is without a pixel
        if overlapping:
            maps[n] = np.roll(maps[n], rng.integers(-6, 7), axis=1)
    category_map = gt_maps.max(axis=0, initial=0)
    category_map[rng.random(SIZE) < 0.03] = 255
    # Few different scores: ties are the rule.
    scores = rng.choice([lowest_score, 0.3, 0.5, 0.9], size=num_people)
    x0, y0 = rng.uniform(0, 10, size=(2, num_people)) + [
        10 * np.arange(num_people),
        [0] * num_people,
    ]
    boxes = np.stack([x0, y0, x0 + 8.25, y0 + 7.1], axis=1)
    part_scores = rng.random((num_people, NUM_CLASSES - 1))
    return GroundTruth(gt_maps, category_map), Prediction(maps, scores, part_scores, boxes)


def score(
    ground_truths: list[GroundTruth], predictions: list[Prediction], num_classes: int = NUM_CLASSES
) -> ParsingScores:
    """Scores of a data set with the usual thresholds."""
    metrics = ParsingMetrics(num_classes)
    for n, (ground_truth, prediction) in enumerate(zip(ground_truths, predictions)):
        metrics.add_image(str(n), ground_truth, prediction)
    return metrics.compute()


def assert_same_pixels_and_regions(a: ParsingScores, b: ParsingScores) -> None:
    """mIoU, accuracies and APr are bit for bit the same."""
    np.testing.assert_array_equal(a.class_iou, b.class_iou)
    assert a.miou == b.miou
    assert a.pixel_accuracy == b.pixel_accuracy
    assert a.mean_accuracy == b.mean_accuracy
    np.testing.assert_array_equal(a.apr, b.apr)
    np.testing.assert_array_equal(a.apr_per_class, b.apr_per_class)


def assert_same_people(a: ParsingScores, b: ParsingScores) -> None:
    """APp and PCP are bit for bit the same."""
    np.testing.assert_array_equal(a.app, b.app)
    np.testing.assert_array_equal(a.pcp, b.pcp)


def write_png(path, pixels) -> None:
    """Writes a label map, or a Pillow image, by Pillow alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    image.save(path)

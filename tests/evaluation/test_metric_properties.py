"""What has to hold for the metrics of any images."""

from __future__ import annotations

import dataclasses
import math
import pickle

import numpy as np
import pytest
from brute_force_metrics import THRESHOLDS, match_people, mean, pair_ious
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_images import C, flat, random_image, score

from aiparsing_d2.evaluation import GroundTruth, ParsingMetrics, Prediction

seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=25, deadline=None, derandomize=True)


def random_images(rng, number=3):
    """Images in which no two people or part regions have the same score."""
    images = [random_image(rng, rng.integers(1, 4), rng.integers(1, 5)) for _ in range(number)]
    total = sum(len(image.scores) for image in images)
    scores = list(rng.permutation(np.linspace(0.0, 1.0, total)))
    return [
        dataclasses.replace(
            image,
            scores=np.array([scores.pop() for _ in image.scores]),
            part_scores=rng.random(image.part_scores.shape),
        )
        for image in images
    ]


@quick
@given(seeds, st.booleans())
def test_perfect_prediction_scores_100(seed, skip_ignored):
    rng = np.random.default_rng(seed)
    metrics = ParsingMetrics(C, part_regions_skip_ignored=skip_ignored)
    for i in range(2):
        num_people = rng.integers(1, 4)
        gt_maps = np.zeros((num_people, 5, 4 * num_people), dtype=np.uint8)
        for g, gt in enumerate(gt_maps):  # side by side
            gt[:, 4 * g : 4 * g + 4] = rng.choice([0, 1, 2, 3, 4, 255], size=(5, 4))
            gt[2, 4 * g] = rng.integers(1, C)
        # What is found in ignored pixels does not matter, in AP^r only if it skips them too.
        filling = rng.integers(0, C, gt_maps.shape) if skip_ignored else 0
        found = np.where(gt_maps == 255, filling, gt_maps)
        boxes = [
            [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            for _, (ys, xs) in ((gt, np.nonzero(gt)) for gt in gt_maps)
        ]
        metrics.add_image(
            f"image {i}",
            GroundTruth(gt_maps, gt_maps.max(axis=0)),
            Prediction(found.astype(np.uint8), rng.uniform(0.3, 1, num_people), boxes=boxes),
        )
    for group, values in metrics.summarize().items():
        for name, value in values.items():
            # Classes that were not drawn at all are undefined.
            undefined = name.startswith(("IoU-", "APr50-", "APrvol-")) and math.isnan(value)
            assert undefined or value == pytest.approx(100), (group, name)


def add_with_boxes(metrics, order, image):
    """Adds an image whose boxes depend on its arrays alone, so that they go with its people."""
    corners = np.stack([(maps > 0).sum(axis=(1, 2)) for maps in (image.maps, image.maps[:, :4])], 1)
    boxes = np.concatenate([np.zeros_like(corners), corners + 1], axis=1)
    metrics.add_image(
        f"image {order}",
        GroundTruth(image.gt_maps, image.category_map),
        Prediction(image.maps, image.scores, image.part_scores, boxes),
        image_order=order,
    )


@quick
@given(seeds, st.integers(1, 4))
def test_order_of_adding_and_number_of_processes_do_not_matter(seed, num_processes):
    # Scores have ties in and between images.
    rng = np.random.default_rng(seed)
    images = [random_image(rng, rng.integers(0, 4), rng.integers(0, 5)) for _ in range(5)]
    alone = ParsingMetrics(C)
    for order, image in enumerate(images):
        add_with_boxes(alone, order, image)

    parts = [ParsingMetrics(C) for _ in range(num_processes)]
    for order in rng.permutation(len(images)):
        add_with_boxes(parts[rng.integers(num_processes)], int(order), images[order])
    merged = ParsingMetrics(C)
    for part in rng.permutation(num_processes):
        merged.merge(pickle.loads(pickle.dumps(parts[part])))
    assert merged.num_images == len(images)
    assert merged.compute().box is not None
    np.testing.assert_array_equal(flat(merged.compute()), flat(alone.compute()))


@quick
@given(seeds)
def test_what_is_found_in_ignored_pixels_matters_to_apr_alone(seed):
    rng = np.random.default_rng(seed)
    images, changed = random_images(rng), []
    for image in images:
        ignored = rng.random(image.category_map.shape) < 0.2
        image.gt_maps[:, ignored] = 255
        image.category_map[ignored] = 255
        other = rng.integers(0, C, image.maps.shape, dtype=np.uint8)
        maps = np.where(ignored, other, image.maps)
        changed.append(dataclasses.replace(image, maps=maps))
    before, after = score(images), score(changed)
    for field in ("class_iou", "miou", "pixel_accuracy", "mean_accuracy", "app", "pcp"):
        np.testing.assert_array_equal(getattr(after, field), getattr(before, field))
    before, after = (score(some, part_regions_skip_ignored=True) for some in (images, changed))
    np.testing.assert_array_equal(flat(after), flat(before))


@quick
@given(seeds)
def test_order_of_people_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    images = random_images(rng)
    shuffled = []
    for image in images:
        order = rng.permutation(len(image.scores))
        shuffled.append(
            dataclasses.replace(
                image,
                maps=image.maps[order],
                scores=image.scores[order],
                part_scores=image.part_scores[order],
            )
        )
    np.testing.assert_array_equal(flat(score(shuffled)), flat(score(images)))


@quick
@given(seeds)
def test_order_of_ground_truth_people_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    images = []
    for image in random_images(rng):
        # The order decides which of two people a pixel shows, so they must not overlap.
        owners = rng.integers(0, len(image.gt_maps) + 1, image.category_map.shape)
        people = np.arange(len(image.gt_maps))[:, None, None]
        gt_maps = np.where(owners == people, image.gt_maps, 0)
        images.append(dataclasses.replace(image, gt_maps=gt_maps))
        # It also decides who is the best match of a prediction that two people fit equally well.
        for prediction in image.maps:
            mious = [mean(pair_ious(gt, prediction, C).values()) for gt in gt_maps]
            assume(mious.count(max(mious)) == 1)
    shuffled = [
        dataclasses.replace(image, gt_maps=rng.permutation(image.gt_maps)) for image in images
    ]
    np.testing.assert_array_equal(flat(score(shuffled)), flat(score(images)))


@quick
@given(seeds)
def test_exchanging_foreground_classes_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    images = random_images(rng)
    order = np.concatenate([[0], 1 + rng.permutation(C - 1)])  # new label -> old label
    new_label = np.arange(256, dtype=np.uint8)
    new_label[order] = np.arange(C)
    exchanged = [
        dataclasses.replace(
            image,
            gt_maps=new_label[image.gt_maps],
            category_map=new_label[image.category_map],
            maps=new_label[image.maps],
            part_scores=image.part_scores[:, order[1:] - 1],
        )
        for image in images
    ]
    before, after = score(images), score(exchanged)
    np.testing.assert_array_equal(after.class_iou, before.class_iou[order])
    np.testing.assert_array_equal(after.apr_per_class, before.apr_per_class[order])
    for field in ("miou", "pixel_accuracy", "mean_accuracy", "app", "pcp", "apr"):
        np.testing.assert_array_equal(getattr(after, field), getattr(before, field))


@quick
@given(seeds)
def test_losing_the_only_match_of_a_person_never_raises_app_or_pcp(seed):
    rng = np.random.default_rng(seed)
    images = random_images(rng)
    before = score(images)
    for i, image in enumerate(images):
        matches = match_people(image, C, score_thresh=0.001)
        for _, n, g, miou, _ in matches:
            keep = np.arange(len(image.scores)) != n
            fewer = dataclasses.replace(
                image,
                maps=image.maps[keep],
                scores=image.scores[keep],
                part_scores=image.part_scores[keep],
            )
            after = score([*images[:i], fewer, *images[i + 1 :]])
            rivals = [other for _, k, h, other, _ in matches if h == g and k != n]
            for t, threshold in enumerate(THRESHOLDS):
                if miou > threshold and all(rival <= threshold for rival in rivals):
                    assert after.app[t] < before.app[t]
                    assert after.pcp[t] <= before.pcp[t]

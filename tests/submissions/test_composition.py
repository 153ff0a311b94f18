"""Composed pictures against painting pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aiparsing_d2.evaluation.image_inputs import PartRegions, Prediction
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.structures.cropped_maps import CroppedMaps
from aiparsing_d2.submissions import SUBMISSION_FORMATS, composition
from aiparsing_d2.submissions.composition import Composition

SIZE = (13, 17)
THRESHOLDS = ScoreThresholds(0.001, 0.5, 0.2)


def people(seed: int, count: int, classes: int) -> Prediction:
    """Overlapping people made of noise, some of equal score, some below a threshold."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(1, classes, (count, *SIZE)).astype(np.uint8)
    for person_map in maps:
        person_map[rng.random(SIZE) < 0.3] = 0
        y, x = rng.integers(0, 9), rng.integers(0, 9)
        person_map[:y], person_map[:, :x] = 0, 0
        person_map[y + rng.integers(0, 8) :] = 0  # nobody is left of some
    scores = rng.choice([0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0], count)
    return Prediction(maps, scores, part_scores=rng.random((count, classes - 1)))


def paint_by_pixel(
    prediction: Prediction, threshold: float
) -> tuple[list[list[int]], list[list[int]]]:
    """Return who is seen at every pixel, -1 = nobody, and with which label."""
    ascending = sorted(range(len(prediction.scores)), key=lambda n: prediction.scores[n])
    owners, labels = (
        [[-1] * SIZE[1] for _ in range(SIZE[0])],
        [[0] * SIZE[1] for _ in range(SIZE[0])],
    )
    for n in ascending:
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                label = int(prediction.person_maps[n][y, x])
                if label and prediction.scores[n] >= threshold:
                    owners[y][x], labels[y][x] = n, label
    return owners, labels


@pytest.mark.parametrize("cropped", [False, True])
@pytest.mark.parametrize(
    ("count", "classes"), [(0, 20), (1, 20), (2, 3), (7, 20), (5, 59), (30, 59), (257, 4)]
)
def test_equals_painting_pixel_by_pixel(
    count: int, classes: int, cropped: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(composition, "_PIXELS_AT_A_TIME", 40)  # several blocks
    prediction = people(count, count, classes)
    given = prediction
    if cropped:
        whole = CroppedMaps(
            list(prediction.person_maps), np.tile([0, 0, SIZE[1], SIZE[0]], (count, 1))
        )
        given = Prediction(whole.tightened(), prediction.scores, prediction.part_scores)

    for person_threshold in (THRESHOLDS.part_regions, THRESHOLDS.semantic):
        result = Composition(given, SIZE, classes, THRESHOLDS, person_threshold)

        np.testing.assert_array_equal(
            result.category_map, paint_by_pixel(prediction, THRESHOLDS.semantic)[1]
        )
        owners, _ = paint_by_pixel(prediction, person_threshold)
        seen = sorted({n for row in owners for n in row} - {-1})
        assert result.visible.tolist() == seen
        expected = [[seen.index(n) + 1 if n >= 0 else 0 for n in row] for row in owners]
        np.testing.assert_array_equal(result.person_map, expected)

        owners, labels = paint_by_pixel(prediction, THRESHOLDS.part_regions)
        pixels = [list(zip(*rows)) for rows in zip(owners, labels)]
        regions = sorted({pixel for row in pixels for pixel in row if pixel[0] >= 0})
        expected = [[regions.index(p) + 1 if p[0] >= 0 else 0 for p in row] for row in pixels]
        np.testing.assert_array_equal(result.part_regions.region_map, expected)
        assert result.part_regions.classes.tolist() == [label for _, label in regions]
        assert result.part_regions.scores.tolist() == [
            prediction.part_scores[n, label - 1] for n, label in regions
        ]


def test_given_pictures_are_kept_and_regions_without_pixels_left_out():
    prediction = people(1, 3, 20)
    categories = np.full(SIZE, 7, dtype=np.uint8)
    region_map = np.zeros(SIZE, dtype=np.int64)
    region_map[2], region_map[5] = 3, 1
    given = PartRegions(region_map, np.array([4, 5, 6]), np.array([0.1, 0.2, 0.3]))

    result = Composition(
        Prediction(
            prediction.person_maps, prediction.scores, category_map=categories, part_regions=given
        ),
        SIZE,
        20,
        THRESHOLDS,
        0.2,
    )

    np.testing.assert_array_equal(result.category_map, categories)
    np.testing.assert_array_equal(result.part_regions.region_map[[2, 5, 6], 0], [2, 1, 0])
    assert result.part_regions.classes.tolist() == [4, 6]
    assert result.part_regions.scores.tolist() == [0.1, 0.3]


def regions_with(value: int | float = 0, classes=(4,), scores=(0.5,), dtype=np.int64) -> dict:
    region_map = np.zeros(SIZE, dtype=dtype)
    region_map[0, 0] = value
    return {"part_regions": PartRegions(region_map, np.array(classes), np.array(scores))}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (regions_with(-1), "part region map has the value -1, .* for 1 region$"),
        (regions_with(2), "part region map has the value 2"),
        (regions_with(0.5, dtype=np.float64), "part region map must hold integers"),
        (regions_with(classes=(20,)), "part region 1 has the class 20"),
        (regions_with(scores=(1.5,)), "scores of part_regions must be in 0..1"),
        (regions_with(scores=(0.5, 0.5)), "part region scores must have shape"),
        ({"category_map": np.full(SIZE, 20, dtype=np.uint8)}, "category map has the label 20"),
        ({"part_scores": np.zeros((0, 18))}, r"part_scores must have shape \(0, 19\)"),
        ({"boxes": np.zeros((1, 4))}, r"boxes must have shape \(0, 4\)"),
        ({"category_map": np.zeros((3, 3), dtype=np.uint8)}, "category map must have shape"),
    ],
)
def test_what_could_not_be_read_again_is_refused(given: dict, message: str, tmp_path: Path):
    nobody = Prediction(np.zeros((0, *SIZE), dtype=np.uint8), np.zeros(0), **given)
    for name, submission_type in SUBMISSION_FORMATS.items():
        submission = submission_type(tmp_path / name, 20)
        with pytest.raises(ValueError, match=message):
            submission.write("image", nobody, SIZE)
        assert not list(tmp_path.rglob("*.*"))

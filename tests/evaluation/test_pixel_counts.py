"""Counting by runs gives what counting every pixel does."""

from __future__ import annotations

import numpy as np
import pytest

from aiparsing_d2.evaluation.pixel_counts import count_pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize("run", [1, 2, 7, 8, 9, 100])
@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 30), (30, 1), (37, 41)])
def test_equals_counting_every_pixel(shape, run, dtype):
    rng = np.random.default_rng(run)
    size = shape[0] * shape[1]
    values = np.repeat(rng.integers(0, 200, size), run)[:size].reshape(shape).astype(dtype)
    for label_map in (values, values[:, ::-1], values[1:, 1:], np.full(shape, 3, dtype)):
        counts = count_pixels(label_map, 5)
        expected = [int((label_map == value).sum()) for value in range(len(counts))]
        assert counts.dtype == np.int64
        assert counts.tolist() == expected
        assert len(counts) == max(5, 1 + (int(label_map.max()) if label_map.size else -1))

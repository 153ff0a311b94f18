"""Data sets mixed by weight, through Detectron2's sampler and the config that shows how."""

import math
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog

from aiparsing_d2.data.datasets.registration import register_parsing_dataset
from aiparsing_d2.data.repeat_factors import repeat_factors_from_weights
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, LV_MHP_V2_PART_LABELS

CONFIG = Path(__file__).parents[2] / "configs" / "common" / "data" / "ccp_and_drawn.py"
COUNTS = {"mixed_small": 30, "mixed_large": 170}


@pytest.fixture
def register():
    names = []

    def register_records(name, count, part_labels=CIHP_PART_LABELS):
        records = [
            {"image_id": f"{name}/{i}", "file_name": f"{i}.jpg", "height": 4, "width": 6}
            for i in range(count)
        ]
        register_parsing_dataset(name, lambda: records, part_labels)
        names.append(name)

    yield register_records
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def small_and_large(register):
    for name, count in COUNTS.items():
        register(name, count)


@pytest.mark.parametrize("weights", [[0.8, 0.2], [4, 1]])
def test_factors_by_hand(small_and_large, weights):
    factors = repeat_factors_from_weights(list(COUNTS), weights)
    # 0.8 of 200 images out of 30, and 0.2 of them out of 170.
    expected = torch.tensor([160 / 30] * 30 + [40 / 170] * 170)
    torch.testing.assert_close(factors, expected)


def test_the_config_draws_the_shares_it_names(small_and_large):
    train = LazyConfig.load(str(CONFIG)).dataloader.train
    train.dataset.names = list(COUNTS)
    train.mapper = lambda record: record
    train.num_workers = 0
    train.sampler.seed = 0
    num_draws = 200 * 200  # 200 epochs
    batches = islice(instantiate(train), num_draws // train.total_batch_size)
    drawn = Counter(sample["image_id"] for batch in batches for sample in batch)
    totals = Counter()
    for image_id, times in drawn.items():
        totals[image_id.split("/")[0]] += times
    # An epoch takes each image floor(factor) or ceil(factor) times, by chance: the variances of the
    # totals are 30 * 1/3 * 2/3 = 6.7 and 170 * .235 * .765 = 30.6, and that of the share over 200
    # epochs is (.2**2 * 6.7 + .8**2 * 30.6) / 200**3, 0.0016 squared.
    assert totals["mixed_small"] / num_draws == pytest.approx(0.8, abs=4 * 0.0016)
    assert set(drawn) == {f"{name}/{i}" for name, count in COUNTS.items() for i in range(count)}
    for name, share in (("mixed_small", 0.8), ("mixed_large", 0.2)):
        # Within a data set no image is favoured: binomial in each of 200 epochs.
        factor = share * 200 / COUNTS[name]
        fraction = factor % 1
        spread = math.sqrt(200 * fraction * (1 - fraction))
        times = [drawn[f"{name}/{i}"] for i in range(COUNTS[name])]
        assert max(abs(t - 200 * factor) for t in times) < 5 * spread + factor


def test_label_sets_must_be_the_same(register):
    register("mixed_small", 3)
    register("mixed_other", 3, LV_MHP_V2_PART_LABELS)
    with pytest.raises(ValueError, match="do not have the same part labels"):
        repeat_factors_from_weights(["mixed_small", "mixed_other"], [0.5, 0.5])


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        (list(COUNTS), [1.0], "one weight per data set"),
        ("mixed_small", [1.0], "one weight per data set"),
        (list(COUNTS), [1.0, 0.0], "must be positive"),
        (list(COUNTS), [1.0, math.nan], "must be positive"),
        (["mixed_small", "mixed_empty"], [1.0, 1.0], "'mixed_empty' has no images"),
    ],
)
def test_wrong_arguments(small_and_large, register, names, weights, message):
    register("mixed_empty", 0)
    with pytest.raises(ValueError, match=message):
        repeat_factors_from_weights(names, weights)
    with pytest.raises(KeyError, match="mixed_unknown"):
        repeat_factors_from_weights(["mixed_small", "mixed_unknown"], [1.0, 1.0])

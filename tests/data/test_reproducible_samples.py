"""Samples that depend on the seed and their place in the run alone."""

import itertools
import random

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler

from aiparsing_d2.data.reproducible_samples import (
    ContinuedBatches,
    NumberedRecords,
    ReproducibleMapper,
    seed_everything,
)

# Upright and lying images, which Detectron2 puts into batches of their own.
RECORDS = [{"id": i, "width": 10 + 10 * (i % 3 == 0), "height": 15} for i in range(13)]
BATCH_SIZE = 3


def draw(record):
    numbers = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    return {**record, "numbers": numbers}


def loader(num_workers, seed=5, grouped=True):
    mapper = ReproducibleMapper(draw, seed)
    sampler = TrainingSampler(len(RECORDS), seed=0)
    batches = build_detection_train_loader(
        NumberedRecords(RECORDS, sampler, 1 if grouped else BATCH_SIZE),
        mapper=mapper,
        total_batch_size=BATCH_SIZE,
        aspect_ratio_grouping=grouped,
        num_workers=num_workers,
    )
    return ContinuedBatches(batches, mapper, BATCH_SIZE)


def first_batches(batches, count):
    found = list(itertools.islice(iter(batches), count))
    return [[(sample["id"], *sample["numbers"]) for sample in batch] for batch in found]


@pytest.fixture(scope="module")
def expected():
    return first_batches(loader(0), 14)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_number_of_workers_does_not_matter(expected, num_workers):
    assert first_batches(loader(num_workers), 14) == expected


def test_batches_without_groups_are_those_of_the_sampler():
    sampler = itertools.islice(iter(TrainingSampler(len(RECORDS), seed=0)), 5 * BATCH_SIZE)
    expected = [RECORDS[i]["id"] for i in sampler]
    alone = first_batches(loader(0, grouped=False), 5)
    assert [sample[0] for batch in alone for sample in batch] == expected
    assert first_batches(loader(3, grouped=False), 5) == alone


@pytest.mark.parametrize("num_workers", [0, 1])
def test_random_numbers_of_the_process_that_trains_stay_as_they_are(num_workers):
    """Else a step's would depend on whether the loader has just begun, and on the last sample."""
    seed_everything(1)
    expected = draw({})
    batches = iter(loader(num_workers))
    for _ in range(3):
        seed_everything(1)
        next(batches)
        assert draw({}) == expected


def test_no_two_samples_and_no_two_seeds_share_random_numbers(expected):
    samples = [sample[1:] for batch in expected for sample in batch]
    assert len(set(samples)) == len(samples) == 14 * BATCH_SIZE
    other = [s[1:] for batch in first_batches(loader(0, seed=6), 14) for s in batch]
    assert not set(samples) & set(other)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("skipped", [1, 5, 9])
def test_a_resumed_run_goes_on_with_the_same_samples(expected, num_workers, skipped):
    resumed = loader(num_workers)
    resumed.skip(skipped * BATCH_SIZE)
    assert first_batches(resumed, 14 - skipped) == expected[skipped:]


def test_its_state_is_what_was_seen(expected):
    first, second = loader(0), loader(0)
    first.skip(2 * BATCH_SIZE)
    iterator = iter(first)
    for _ in range(3):
        next(iterator)
    assert first.state_dict() == {"samples": 5 * BATCH_SIZE}
    second.load_state_dict(first.state_dict())
    assert first_batches(second, 4) == expected[5:9]
    # Another batch size goes on where the images are that were not seen.
    second._batch_size = 2 * BATCH_SIZE
    second.load_state_dict({"samples": 12 * BATCH_SIZE})
    assert second._num_skipped == 6 and second._mapper.num_skipped == 12 * BATCH_SIZE


def test_skipped_images_are_not_read(monkeypatch):
    seen = []
    batches = loader(0)
    batches._mapper.mapper = lambda record: seen.append(record["id"]) or draw(record)
    batches.skip(10 * BATCH_SIZE)
    first_batches(batches, 1)
    # Of those drawn before, at most what waits for a batch of its shape: two lying, two upright.
    assert len(seen) <= BATCH_SIZE + 2 * (BATCH_SIZE - 1)


def test_seeds_of_all_three():
    def numbers(*seeds):
        seed_everything(*seeds)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert numbers(1, 2) == numbers(1, 2)
    assert len({numbers(1, 2), numbers(2, 1), numbers(1, 3), numbers(1, 2, 1)}) == 4

"""Training samples that depend on the seed and on their place in the run alone.

Detectron2 seeds the workers of a data loader when they start. So the augmentations depend on the
number of workers, and a run that is resumed begins again with the images it began with. Here each
sample has random numbers of its own, and a resumed run goes on where it was.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from torch.utils.data import IterableDataset, get_worker_info

__all__ = ["ContinuedBatches", "NumberedRecords", "ReproducibleMapper", "seed_everything"]

_NUMBER = "number_of_sample"
_SKIPPED = "skipped_sample"


def seed_everything(*numbers: int) -> None:
    """Seed Python's, numpy's and torch's random numbers by some integers, at least 0."""
    torch.manual_seed(_seed_cpu(*numbers))


def _seed_cpu(*numbers: int) -> int:
    (seed,) = np.random.SeedSequence(numbers).generate_state(1).tolist()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    return seed


class NumberedRecords(IterableDataset):
    """Records in a sampler's order, each with its number in it, shared by a loader's workers.

    Detectron2's versions differ in which worker gets which, and so in the order of the batches.
    """

    def __init__(self, records: Sequence[dict[str, Any]], sampler: Iterable[int], in_turn: int):
        """
        Args:
            records: of a data set.
            sampler: gives indices of ``records``, the same in every worker.
            in_turn: records that a worker takes before it is the next one's turn: the batch size
                for a loader whose workers make whole batches, else 1.
        """
        self._records = records
        self._sampler = sampler
        self._in_turn = in_turn

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        mine, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number, index in enumerate(self._sampler):
            if number // self._in_turn % num_workers == mine:
                yield {**self._records[index], _NUMBER: number}


class ReproducibleMapper:
    """A mapper that maps each of :class:`NumberedRecords` with random numbers of its own."""

    def __init__(self, mapper: Callable[[dict[str, Any]], dict[str, Any]], seed: int):
        """
        Args:
            mapper: what maps a record; its random numbers are the global ones of Python, numpy and
                torch.
            seed: of the run, at least 0. Processes of a run differ by their ranks.
        """
        self.mapper = mapper
        self.num_skipped = 0  # samples at the start that are left unmapped
        self._seed = (seed, comm.get_rank())

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map a numbered record, or give what a loader groups images by if it is to be skipped."""
        number = record.pop(_NUMBER)
        if number < self.num_skipped:
            shape: dict[str, Any] = {
                key: record[key] for key in ("width", "height") if key in record
            }
            return {**shape, _SKIPPED: (record, number)}
        return self._map(record, number)

    def finish(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Map a sample that was skipped; others are given back."""
        return self._map(*sample[_SKIPPED]) if _SKIPPED in sample else sample

    def _map(self, record: dict[str, Any], number: int) -> dict[str, Any]:
        _seed_cpu(*self._seed, number)
        return self.mapper(record)


class ContinuedBatches:
    """A training loader that goes on, without reading the images, behind what was seen already.

    Its state, to be put into checkpoints, is the number of samples that all processes of the run
    have seen, so the batch size may change from one part of a run to the next.
    """

    def __init__(
        self,
        data_loader: Iterable[list[dict[str, Any]]],
        mapper: ReproducibleMapper,
        batch_size: int,
    ):
        """
        Args:
            data_loader: gives batches without end; it maps with ``mapper``.
            mapper: as it is in this process.
            batch_size: samples in a batch of this process.
        """
        self._data_loader = data_loader
        self._mapper = mapper
        self._batch_size = batch_size
        self._num_skipped = self._num_seen = 0  # batches

    def skip(self, num_samples: int) -> None:
        """Go on behind as many samples of all processes, before the first batch is taken."""
        self._num_skipped = num_samples // (self._batch_size * comm.get_world_size())
        self._num_seen = self._num_skipped
        self._mapper.num_skipped = self._num_skipped * self._batch_size

    def state_dict(self) -> dict[str, int]:
        return {"samples": self._num_seen * self._batch_size * comm.get_world_size()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.skip(state_dict["samples"])

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        batches = iter(self._data_loader)
        for number in itertools.count():
            with _keeping_random_numbers():
                batch = next(batches)
                if number >= self._num_skipped:
                    # Images are grouped by their shape, so some drawn before come later.
                    batch = [self._mapper.finish(sample) for sample in batch]
            if number >= self._num_skipped:
                self._num_seen = number + 1
                yield batch


@contextmanager
def _keeping_random_numbers() -> Iterator[None]:
    """Those of a training step must not depend on what a loader in its process has drawn.

    It draws when it begins, also in a run that is resumed, and without workers for each sample.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])

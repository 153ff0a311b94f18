"""What a training step costs, among the metrics of a run."""

from __future__ import annotations

import logging

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

__all__ = ["StepStatistics"]

logger = logging.getLogger(__name__)

SLOW_DATA_SHARE = 0.25
_ITERATIONS_WATCHED = 100


class StepStatistics(HookBase):
    """Writes how fast a training is, beside Detectron2's ``time`` and ``data_time``.

    In each iteration from the third on:

    * ``images_per_second``: of all processes together;
    * ``data_share``: the share of the time that passed waiting for images, in the process that
      waited longest;
    * ``max_mem_mb``: most GPU memory that tensors had so far, in MiB, on the GPU of the main
      process; without a GPU not there.

    Where a quarter of 100 iterations passes waiting for images, a warning says so, once, with what
    to do. To be registered behind Detectron2's ``IterationTimer``, in the main process.
    """

    def __init__(self, num_workers: int | None = None, pastes_people: bool = False):
        """
        Args:
            num_workers: of the training loader, for the warning; None if unknown.
            pastes_people: whether the loader reads more images than it gives.
        """
        self._num_workers = num_workers
        self._pastes_people = pastes_people
        self._waited = self._passed = 0.0
        self._watched = 0
        self._is_told = False

    def after_step(self) -> None:
        storage = self.trainer.storage
        times = storage.histories()
        # IterationTimer begins after the first iterations, in which workers start.
        if "time" not in times or "data_time" not in times:
            return
        passed, waited = times["time"].latest(), times["data_time"].latest()
        num_images = len(self.trainer.latest_batch) * comm.get_world_size()
        storage.put_scalar("images_per_second", num_images / passed)
        storage.put_scalar("data_share", min(waited / passed, 1.0))
        if torch.cuda.is_available():
            storage.put_scalar("max_mem_mb", torch.cuda.max_memory_allocated() / 2**20)
        if self._is_told:
            return
        self._passed += passed
        self._waited += waited
        self._watched += 1
        if self._watched == _ITERATIONS_WATCHED:
            if self._waited > SLOW_DATA_SHARE * self._passed:
                self._is_told = True
                logger.warning("%s", self._advice())
            self._waited = self._passed = 0.0
            self._watched = 0

    def _advice(self) -> str:
        share, seconds = self._waited / self._passed, self._passed / self._watched
        ways = ["store images at about the size that is trained on"]
        if self._pastes_people:
            ways.insert(0, "raise dataloader.train.mapper.copy_paste.cache_size")
        if self._num_workers is not None:
            ways.insert(
                0, f"raise dataloader.train.num_workers ({self._num_workers}) if cores are free"
            )
        return (
            f"The data loader is slow: of the last {self._watched} iterations, {seconds:.2f} s "
            f"each, {share:.0%} passed waiting for images. What helps: {'; '.join(ways)}"
        )

"""Random numbers of a training that do not depend on where it was interrupted."""

from __future__ import annotations

from detectron2.engine import HookBase
from detectron2.utils import comm

from aiparsing_d2.data.reproducible_samples import seed_everything

__all__ = ["SeededIterations"]


class SeededIterations(HookBase):
    """Seeds the random numbers before each iteration, by the run's seed, the process and the
    iteration: what the model draws in a resumed run is what it would have drawn.
    """

    def __init__(self, seed: int):
        """
        Args:
            seed: of the run, at least 0.
        """
        self._seed = seed

    def before_step(self) -> None:
        # One number more than samples have, so that no sample shares an iteration's.
        seed_everything(self._seed, comm.get_rank(), self.trainer.iter, 1)

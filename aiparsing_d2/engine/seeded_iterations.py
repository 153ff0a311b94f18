"""Random numbers of a training that do not depend on where it was interrupted."""

from __future__ import annotations

import secrets

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from aiparsing_d2.data.reproducible_samples import seed_everything

from .checkpointing import newest_whole_checkpoint

__all__ = ["SeededIterations", "seed_of_run"]


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

    def state_dict(self) -> dict[str, int]:
        return {"seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Keep the seed that the run was resumed with."""

    def before_step(self) -> None:
        # One number more than samples have, so that no sample shares an iteration's.
        seed_everything(self._seed, comm.get_rank(), self.trainer.iter, 1)


def seed_of_run(output_dir: str | None) -> int:
    """Return the seed of a run that was given none; the same in all processes.

    Args:
        output_dir: of a run that is resumed; None for a new run.

    Returns:
        The seed that the run has had, or, for a new run, one drawn by the system.
    """
    return comm.all_gather(_find_seed(output_dir) if comm.is_main_process() else 0)[0]


def _find_seed(output_dir: str | None) -> int:
    checkpoint = newest_whole_checkpoint(output_dir) if output_dir is not None else None
    if checkpoint is not None:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        state = content["trainer"].get("hooks", {}).get(SeededIterations.__qualname__)
        if state is not None:  # earlier versions did not keep it
            return state["seed"]
    # A process adds its rank, and numpy takes no more than 32 bits.
    return secrets.randbelow(2**31)

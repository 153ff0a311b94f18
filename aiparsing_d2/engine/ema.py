"""Averages of the weights over a run."""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .config_error import ConfigError
from .finite_steps import without_ddp

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage(HookBase):
    """Keeps an exponential moving average of a model's weights and buffers.

    After every iteration, each value is decay times the average plus (1 - decay) times the model's.
    The decay of iteration i, from 0, is min(``decay``, (1 + i) / (10 + i)), so the random weights
    of the start are soon forgotten.

    The average is what a checkpointer is to be given as its model: what is in a checkpoint under
    "model" is then what was evaluated, for whoever reads it. The weights in training are this
    hook's state, in a checkpoint that of the trainer. A new run takes them from the average, into
    which the checkpointer has loaded what to start from. A resumed run goes on as if it had not
    stopped.

    Attributes:
        averaged_model: a copy of the model in evaluation mode, which holds the average.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999):
        """
        Args:
            model: what is trained.
            decay: from 0 to less than 1; 1 / (1 - decay) iterations are averaged, roughly.

        Raises:
            ValueError: another decay.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"train.ema.decay must be from 0 to less than 1, got {decay}")
        # Copied behind the wrapper, which has made the weights of all processes equal.
        self._model = without_ddp(model)
        self._decay = decay
        self._is_resumed = False
        self.averaged_model = copy.deepcopy(self._model).eval().requires_grad_(False)

    def before_train(self) -> None:
        """Start from the average, or go on with a resumed one.

        Raises:
            ConfigError: the run is resumed from a checkpoint that holds no average.
        """
        if self.trainer.start_iter == 0:
            self._model.load_state_dict(self.averaged_model.state_dict())
        elif not self._is_resumed:
            raise ConfigError(
                "the run to continue was not trained with train.ema.enabled; continue it without, "
                "or start another run from its weights by train.init_checkpoint"
            )

    @torch.no_grad()
    def after_step(self) -> None:
        i = self.trainer.iter
        average, current = self.averaged_model.state_dict(), self._model.state_dict()
        floats = [name for name, value in current.items() if value.is_floating_point()]
        add_to_average = get_ema_multi_avg_fn(min(self._decay, (1 + i) / (10 + i)))
        add_to_average([average[name] for name in floats], [current[name] for name in floats], i)
        for name in current.keys() - set(floats):  # counters
            average[name].copy_(current[name])

    def state_dict(self) -> dict[str, Any]:
        return self._model.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._model.load_state_dict(state_dict)
        self._is_resumed = True

"""Training steps on finite losses and gradients only."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import SimpleTrainer, hooks
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from aiparsing_d2.whole_files import whole_file

from .config_error import ConfigError

__all__ = ["NONFINITE_ACTIONS", "FiniteStepTrainer", "NonFiniteError", "without_ddp"]

logger = logging.getLogger(__name__)

NONFINITE_ACTIONS = ("stop", "skip")
MAX_SKIPS_IN_A_ROW = 10
_MAX_DUMPS = 10

# Of the optimisers with fused steps, which take their states' shapes on trust.
_ELEMENTWISE_STATES = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum")


class NonFiniteError(FloatingPointError):
    """A loss or a gradient is infinite or NaN; the message names it, and the images."""


class FiniteStepTrainer(SimpleTrainer):
    """``SimpleTrainer`` whose optimiser never steps on a loss or gradient that is not finite.

    All processes of a run decide alike. What is not finite is named, with the images of the batch;
    the batch is left in ``output_dir`` as ``nonfinite_<iteration>.pt``: "iteration", "losses",
    "batch" (what the model was given) and "model" (its weights), to be read by ``torch.load`` with
    ``weights_only=False``. Then the training stops, or goes on with the next batch as if this one
    had not been, buffers of the model included. It stops, too, after 10 such batches in a row, as
    then the weights are the cause.

    A model that raises a ``FloatingPointError`` itself, as Detectron2's RPN does, counts as a loss
    that is not finite, but in several processes always ends the run: those it did not happen in
    know nothing of it.

    A gradient scaler skips steps by itself, as long as its scale is 1 or more. Before an
    optimiser's state is loaded, its shapes are compared with the parameters'.

    Attributes:
        precision_name: of the forward passes; checkpoints keep it.
    """

    precision_name = "float32"

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        nonfinite: str = "stop",
        output_dir: str = "",
        **kwargs: Any,
    ):
        """
        Args:
            model, data_loader, optimizer, kwargs: as for ``SimpleTrainer``.
            nonfinite: "stop" or "skip".
            output_dir: where batches are left; "" for nowhere.

        Raises:
            ConfigError: ``nonfinite`` is something else.
        """
        if nonfinite not in NONFINITE_ACTIONS:
            raise ConfigError(
                f"train.nonfinite is {nonfinite!r}; choose one of {', '.join(NONFINITE_ACTIONS)}"
            )
        self._batches = _RememberedBatches(data_loader)
        super().__init__(model, self._batches, optimizer, **kwargs)
        self._skips = nonfinite == "skip"
        self._output_dir = output_dir
        self._num_dumps = 0
        self._skips_in_a_row = 0

    @property
    def latest_batch(self) -> Any:
        """The batch of the iteration, as the loader gave it to this process."""
        return self._batches.latest

    def train(self, start_iter: int, max_iter: int) -> None:
        # What is told line by line needs no traceback in the log; the terminal shows it as the
        # error that ends the run, and need not show it twice.
        log = logging.getLogger("detectron2.engine.train_loop")
        terminals = [h for h in logging.getLogger("detectron2").handlers if _is_terminal(h)]
        log.addFilter(_without_traceback)
        for handler in terminals:
            handler.addFilter(_is_not_raised)
        try:
            super().train(start_iter, max_iter)
        finally:
            log.removeFilter(_without_traceback)
            for handler in terminals:
                handler.removeFilter(_is_not_raised)

    def after_train(self) -> None:
        if sys.exc_info()[0] is None:
            super().after_train()
            return
        # What hooks do at the end, as a last evaluation, is for runs that come to it; and what they
        # raise would hide why this one did not.
        for hook in self._hooks:
            if isinstance(hook, hooks.PeriodicWriter):
                for writer in hook._writers:
                    with contextlib.suppress(OSError):  # on a full disk, again
                        writer.close()

    def run_step(self) -> None:
        # Batch normalisation has taken in what is wrong with a batch before it shows.
        buffers = [b.clone() for b in self.model.buffers()] if self._skips else []
        try:
            super().run_step()
            self._skips_in_a_row = 0
        except FloatingPointError as raised:
            error = raised if isinstance(raised, NonFiniteError) else self._raised_by_model(raised)
            self._skips_in_a_row += 1
            if not self._skips:
                raise NonFiniteError(
                    f"{error}\n  The checkpoints are from before. Resume with a lower rate, with "
                    "train.clip_gradients.max_norm, or with train.nonfinite=skip"
                ) from error
            if self._skips_in_a_row > MAX_SKIPS_IN_A_ROW:
                raise NonFiniteError(
                    f"{error}\n  so were the {MAX_SKIPS_IN_A_ROW} batches before: the weights "
                    "themselves must be the cause; resume with a lower rate"
                ) from error
            logger.warning("%s\n  The batch is skipped.", str(error))
            self.optimizer.zero_grad()
            with torch.no_grad():
                for buffer, before in zip(self.model.buffers(), buffers):
                    buffer.copy_(before)

    def _raised_by_model(self, error: FloatingPointError) -> NonFiniteError:
        """Return what is told of an error in the forward pass.

        Raises:
            NonFiniteError: there are other processes, which cannot be asked to skip the batch.
        """
        lines = self._lines_and_dump([str(error) or type(error).__name__], {})
        told = NonFiniteError(self._message(lines))
        if comm.get_world_size() > 1:
            raise told from error
        return told

    def _write_metrics(
        self, loss_dict: Mapping[str, torch.Tensor], data_time: float, *args: Any, **kwargs: Any
    ) -> None:
        """Check before writing; Detectron2 calls this between the backward pass and the step."""
        losses = {name: loss.detach().item() for name, loss in loss_dict.items()}
        wrong_losses = [f"{name} is {v}" for name, v in losses.items() if not math.isfinite(v)]
        found = wrong_losses or self._nonfinite_gradients()
        if in_any_process(bool(found), next(self.model.parameters()).device):
            # Processes share their gradients: a wrong loss in one makes them wrong in all.
            are_wrong = comm.all_gather(bool(wrong_losses))
            if any(are_wrong) and not wrong_losses:
                found = []
            raise NonFiniteError(self._describe(found, losses))
        super()._write_metrics(loss_dict, data_time, *args, **kwargs)

    def _nonfinite_gradients(self) -> list[str]:
        scaler = getattr(self, "grad_scaler", None)
        if scaler is not None and scaler.get_scale() >= 1:
            return []
        gradients = {
            name: parameter.grad
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }
        if not gradients:
            return []
        largest = torch.stack(
            [torch.linalg.vector_norm(gradient, math.inf) for gradient in gradients.values()]
        )
        # One look at the device, however many gradients there are.
        finite = torch.isfinite(largest).tolist()
        names = [name for name, is_finite in zip(gradients, finite) if not is_finite]
        if not names:
            return []
        more = f" and of {len(names) - 3} more parameters" if len(names) > 3 else ""
        return [f"the gradient of {', '.join(names[:3])}{more} is not finite"]

    def _describe(self, found: list[str], losses: dict[str, float]) -> str:
        """Leave the batch for a replay, and return what all processes have found, line by line."""
        mine = self._lines_and_dump(found, losses) if found else []
        return self._message([line for lines in comm.all_gather(mine) for line in lines])

    def _lines_and_dump(self, found: list[str], losses: dict[str, float]) -> list[str]:
        batch = self.latest_batch
        dump = self._dump(batch, losses)
        return [
            *found,
            *(f"image: {x.get('file_name', x.get('image_id'))}" for x in batch),
            *([f"batch, to replay: {dump}"] if dump else []),
        ]

    def _message(self, lines: list[str]) -> str:
        return "\n  ".join([f"not finite at iteration {self.iter}, before the step:", *lines])

    def _dump(self, batch: list[dict[str, Any]], losses: dict[str, float]) -> Path | None:
        if not self._output_dir or self._num_dumps == _MAX_DUMPS:
            return None
        self._num_dumps += 1
        rank = f"_process_{comm.get_rank()}" if comm.get_world_size() > 1 else ""
        path = Path(self._output_dir, f"nonfinite_{self.iter:07d}{rank}.pt")
        content = {
            "iteration": self.iter,
            "losses": losses,
            "batch": batch,
            "model": self._plain_model().state_dict(),
        }
        with whole_file(path, "wb", durable=True) as file:
            torch.save(content, file)
        return path

    def _plain_model(self) -> nn.Module:
        return without_ddp(self.model)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "precision": self.precision_name,
            "optimizer_class": type(self.optimizer).__name__,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See ``SimpleTrainer``. The optimiser's settings, such as the rate, stay those it has.

        Raises:
            ConfigError: the optimiser's state is of another optimiser or of other parameters, or
                the weights of the checkpoint are an average.
        """
        hooks_state = state_dict.get("hooks", {})
        own = {type(hook).__qualname__ for hook in self._hooks}
        if "ExponentialMovingAverage" in hooks_state.keys() - own:
            raise ConfigError(
                "the run to continue was trained with train.ema.enabled=True; continue it with "
                "that, or start another run from its average by train.init_checkpoint"
            )
        own_class = type(self.optimizer).__name__
        # Checkpoints of earlier versions do not tell.
        if state_dict.get("optimizer_class", own_class) != own_class:
            raise ConfigError(
                f"the optimizer's state in the checkpoint is of {state_dict['optimizer_class']}, "
                f"the config's optimizer is {own_class}: resume with the config of the run, or "
                "start another run from its weights by train.init_checkpoint"
            )
        _check_optimizer_state(self.optimizer, state_dict["optimizer"])
        groups = self.optimizer.param_groups
        settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        super().load_state_dict(state_dict)
        # What a run is resumed with holds, also where the checkpoint was made with something else.
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(own, initial_lr=own["lr"])


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], NonFiniteError):
        record.msg, record.args = "The training stops: %s", (record.exc_info[1],)
        record.exc_info = None
    return True


def _is_not_raised(record: logging.LogRecord) -> bool:
    arguments = record.args if isinstance(record.args, tuple) else ()
    return not any(isinstance(argument, NonFiniteError) for argument in arguments)


def _is_terminal(handler: logging.Handler) -> bool:
    return getattr(handler, "stream", None) in (sys.stdout, sys.stderr)


class _RememberedBatches:
    """A data loader that keeps its latest batch at hand."""

    def __init__(self, data_loader: Iterable):
        self.data_loader = data_loader
        self.latest: Any = None

    def __iter__(self) -> Iterator:
        for batch in self.data_loader:
            self.latest = batch
            yield batch


def without_ddp(model: nn.Module) -> nn.Module:
    """Return the model inside the wrapper that training in several processes puts around it."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def in_any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process of the run; all must ask."""
    if comm.get_world_size() == 1:
        return flag
    flags = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(flags)
    return flags.item() > 0


def _check_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    saved = [i for group in state["param_groups"] for i in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if len(saved) != len(parameters):
        raise ConfigError(
            f"the optimizer's state in the checkpoint is of {len(saved)} parameters, the model has "
            f"{len(parameters)} to train: resume with the config of the run"
        )
    for number, (i, parameter) in enumerate(zip(saved, parameters)):
        for name in _ELEMENTWISE_STATES:
            moments = state["state"].get(i, {}).get(name)
            if moments is not None and moments.shape != parameter.shape:
                raise ConfigError(
                    f"the optimizer's state in the checkpoint does not fit: {name} of parameter "
                    f"{number} is {tuple(moments.shape)}, the parameter {tuple(parameter.shape)}. "
                    "Resume with the config of the run, or start another run from its weights by "
                    "train.init_checkpoint"
                )

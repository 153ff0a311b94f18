"""What a run starts from, and keeping what it has written."""

from __future__ import annotations

import json
import os
from typing import Any

from detectron2.engine import hooks
from fvcore.common.checkpoint import _filter_reused_missing_keys
from torch import nn

from aiparsing_d2.checkpoint import ParsingCheckpointer

from .config_error import ConfigError

_BODY = "backbone.bottom_up."


class FittingCheckpointer(ParsingCheckpointer):
    """``ParsingCheckpointer`` that refuses weights which do not fit the model.

    Detectron2's ``DetectionCheckpointer`` logs a warning and goes on with random weights where
    there are none. Here evaluation and resumption need a value for each tensor, and each tensor of
    the file a place. A training may start from less, as an ImageNet body under new heads: then only
    the body (``backbone.bottom_up``), if the model has one, must be filled, and all that is filled
    by nothing is logged.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        allow_unfitting: bool = False,
        **checkpointables: Any,
    ):
        """
        Args:
            model, save_dir, checkpointables: see ``ParsingCheckpointer``.
            allow_unfitting: whether to log, as Detectron2 does, instead of raising.
        """
        super().__init__(model, save_dir, **checkpointables)
        self._allow_unfitting = allow_unfitting
        self._is_start = False

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """See ``ParsingCheckpointer``; without a resumption the weights are a start.

        Raises:
            ConfigError: the weights do not fit.
        """
        self._is_start = not (resume and self.has_checkpoint())
        try:
            return super().resume_or_load(path, resume=resume)
        finally:
            self._is_start = False

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """See ``ParsingCheckpointer``.

        Raises:
            ConfigError: the weights do not fit. What is loaded beside the model, an optimiser's
                state say, is untouched then.
        """
        self._path = path
        return super().load(path, *args, **kwargs)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        super()._log_incompatible_keys(incompatible)
        if self._allow_unfitting:
            return
        missing = sorted(_filter_reused_missing_keys(self.model, incompatible.missing_keys))
        shapes = {name: shapes for name, *shapes in incompatible.incorrect_shapes}
        # A tensor of another shape is also missing from what was loaded.
        missing = [name for name in missing if name not in shapes]
        unexpected = incompatible.unexpected_keys
        if self._is_start:
            unfilled = {*missing, *shapes}
            if all(name in unfilled for name, _ in self.model.named_parameters()):
                raise ConfigError(f"{self._path} fills no tensor of the model")
            # Training sets running statistics itself; published bodies often lack them.
            missing = [
                name
                for name in missing
                if name.startswith(_BODY) and not name.endswith(("running_mean", "running_var"))
            ]
            shapes = {name: pair for name, pair in shapes.items() if name.startswith(_BODY)}
            unexpected = []
        problems = [
            *(f"not in the file: {name}" for name in missing),
            *(f"not in the model: {name}" for name in unexpected),
            *(
                f"{name}: {file} in the file, {model} in the model"
                for name, (file, model) in shapes.items()
            ),
        ]
        if problems:
            raise ConfigError(
                f"{self._path} does not fit the model; {len(problems)} tensors differ. Give the "
                "config that the weights were trained with, other weights, or "
                "train.allow_unfitting_weights=True:\n  " + "\n  ".join(problems)
            )


class PersistentBestCheckpointer(hooks.BestCheckpointer):
    """``BestCheckpointer`` that goes well with ``--resume``.

    Detectron2's starts afresh, so that the first evaluation after a resumption replaces a better
    checkpoint: this one writes ``<file_prefix>.json`` (metric, value, iteration) beside it. And
    Detectron2's makes the best checkpoint the one to resume from; after the last evaluation that
    one counts an iteration too many. Here it stays the latest periodic one.
    """

    @property
    def _record_file(self) -> str:
        return os.path.join(self._checkpointer.save_dir, f"{self._file_prefix}.json")

    def before_train(self) -> None:
        if self.trainer.start_iter > 0 and os.path.isfile(self._record_file):
            with open(self._record_file) as f:
                record = json.load(f)
            if record["metric"] == self._val_metric:
                self.best_metric, self.best_iter = record["value"], record["iteration"]

    def _best_checking(self) -> None:
        known = self.best_iter
        latest = self._checkpointer.get_checkpoint_file()
        super()._best_checking()
        if self.best_iter != known:
            if latest:
                self._checkpointer.tag_last_checkpoint(os.path.basename(latest))
            record = {
                "metric": self._val_metric,
                "value": self.best_metric,
                "iteration": self.best_iter,
            }
            with open(self._record_file, "w") as f:
                json.dump(record, f)


def has_checkpoint(output_dir: str) -> bool:
    """Whether a run has left checkpoints in its output folder, to continue from."""
    return os.path.isfile(os.path.join(output_dir, "last_checkpoint"))


def check_output_dir(output_dir: str) -> None:
    """Refuse to start a new run where another one has left checkpoints.

    Args:
        output_dir: of the new run.

    Raises:
        FileExistsError: the folder holds a checkpoint.
    """
    if has_checkpoint(output_dir):
        raise FileExistsError(
            f"{output_dir} holds the checkpoints of an earlier run. Add --resume to continue it, "
            "or set train.output_dir to another folder."
        )


def check_init_checkpoint(checkpoint: str) -> None:
    """Refuse to start from weights that are not there, before anything is built for them.

    Args:
        checkpoint: a file, a URL, a name of Detectron2's catalogue ("detectron2://…"), or "" for
            random weights. Whether a URL or a name exists shows only when it is loaded.

    Raises:
        FileNotFoundError: there is no such file.
    """
    # Detectron2 after v0.6 takes options behind a question mark.
    file = checkpoint.partition("?")[0]
    if file and "://" not in file and not os.path.isfile(file):
        raise FileNotFoundError(
            f"{os.path.abspath(file)}, the weights to start from, does not exist. Train the config "
            "that leaves it there, convert the authors' weights by 'python -m aiparsing_d2 "
            "convert-weights authors', or give another file: train.init_checkpoint=... to "
            "train_net.py, weights=... to model_zoo."
        )

"""What makes a resumed run end as if it had not been interrupted.

A checkpoint is written in the middle of an iteration's end: the average of the weights is taken in
before, the evaluation and the metrics are due after. So a resumed run begins with what is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)

from aiparsing_d2.data.json_files import parse_json, read_json
from aiparsing_d2.whole_files import whole_file

__all__ = ["ContinuedWriter", "RecordedEvaluation", "RestOfIteration", "open_writers"]

# Of the medians that Detectron2's writers give.
_WINDOW = 20
# What the machine takes is measured anew, and not before the first iterations have passed.
_MEASURED = {
    "data_share",
    "data_time",
    "eta_seconds",
    "images_per_second",
    "max_mem_mb",
    "time",
}


class RestOfIteration(HookBase):
    """At the start of a resumed run, ends the iteration that its checkpoint was written in.

    Must be the last hook.
    """

    def __init__(self, rest: Sequence[HookBase]):
        """
        Args:
            rest: the hooks of the run that come after the one which writes checkpoints.
        """
        self._rest = rest

    def before_train(self) -> None:
        if self.trainer.start_iter == 0:
            return
        # The loop sets its own number; a finished run, which has none left, counts on from this.
        self.trainer.iter = self.trainer.storage.iter = self.trainer.start_iter - 1
        for hook in self._rest:
            hook.after_step()


class RecordedEvaluation(hooks.EvalHook):
    """``EvalHook`` that knows, when a run is resumed, whether the last evaluation was finished.

    It leaves its figures as ``last_evaluation.json`` (iteration, results). The rest of a resumed
    iteration takes them from there; only where they are missing, it evaluates.
    """

    def __init__(
        self, eval_period: int, evaluate: Callable[[], Mapping[str, Any] | None], output_dir: str
    ):
        """
        Args:
            eval_period, evaluate: as for ``EvalHook``.
            output_dir: of the run.
        """
        super().__init__(eval_period, self._evaluate_once)
        self._evaluate = evaluate
        self._record = Path(output_dir, "last_evaluation.json")

    def before_train(self) -> None:
        # One of a later iteration is of weights that are made again.
        if comm.is_main_process() and self._recorded_iteration() >= self.trainer.start_iter:
            self._record.unlink()

    def _evaluate_once(self) -> Mapping[str, Any] | None:
        iteration = self.trainer.iter
        if iteration < self.trainer.start_iter:
            is_known = comm.is_main_process() and self._recorded_iteration() == iteration
            if comm.all_gather(is_known)[0]:
                return self._read()["results"] if comm.is_main_process() else {}
        results = self._evaluate()
        if results and comm.is_main_process():
            figures = {name: float(v) for name, v in flatten_results_dict(results).items()}
            with whole_file(self._record, durable=True) as file:
                json.dump({"iteration": iteration, "results": figures}, file)
        return results

    def _recorded_iteration(self) -> int:
        return self._read()["iteration"] if self._record.is_file() else -1

    def _read(self) -> dict[str, Any]:
        try:
            record = read_json(self._record)
            return {"iteration": int(record["iteration"]), "results": dict(record["results"])}
        except (ValueError, KeyError, TypeError):  # somebody's own; what is due is evaluated
            return {"iteration": -1, "results": {}}


class ContinuedWriter(hooks.PeriodicWriter):
    """``PeriodicWriter`` that writes each iteration once, however often a run is interrupted.

    With a checkpoint it keeps the scalars that medians are taken of, and what has been written of
    them. A resumed run drops from ``metrics.json`` what was written after the checkpoint, or half
    of a line; so does a new run with the lines of one that left no checkpoint.
    """

    def __init__(
        self,
        writers: Callable[[int], list[EventWriter]],
        output_dir: str,
        period: int = 20,
    ):
        """
        Args:
            writers: opens the writers, given the first iteration that they will write; called when
                the training starts. In other processes than the main one there are none.
            output_dir: of the run.
            period: in iterations.
        """
        super().__init__([], period)
        self._open = writers
        self._metrics = Path(output_dir, "metrics.json")
        self._last_write: int | None = None  # unknown
        self._ends: list[int] = []  # of the run, before it was made longer
        self._loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        if self._last_write is None:  # not in a training
            return {}
        storage = self.trainer.storage
        scalars = {
            name: {
                "values": history.values()[-_WINDOW:],
                "smoothing_hint": storage.smoothing_hints()[name],
            }
            for name, history in storage.histories().items()
            if name not in _MEASURED
        }
        return {
            "last_write": self._last_write,
            "ends": [*self._ends, self.trainer.max_iter],
            "scalars": scalars,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict

    def before_train(self) -> None:
        start_iter = self.trainer.start_iter
        # Checkpoints of earlier versions do not tell.
        self._last_write = self._loaded.get("last_write", start_iter - 1)
        ends = self._loaded.get("ends", [start_iter])
        self._ends = [end for end in ends if 0 < end <= start_iter < self.trainer.max_iter]
        self._restore_scalars()
        if comm.is_main_process():
            drop_later_lines(self._metrics, self._last_write, self._ends)
            self._writers = self._open(self._last_write + 1)

    def _restore_scalars(self) -> None:
        storage, iteration = self.trainer.storage, self.trainer.storage.iter
        for name, scalar in self._loaded.get("scalars", {}).items():
            for value, storage.iter in scalar["values"]:
                storage.put_scalar(name, value, smoothing_hint=scalar["smoothing_hint"])
        storage.iter = iteration
        latest = storage.latest()
        for name in [n for n, (_, written) in latest.items() if written <= self._last_write]:
            del latest[name]

    def after_step(self) -> None:
        """Write, if that is due.

        Raises:
            OSError: the files cannot be written; the error names them.
        """
        try:
            super().after_step()
        except OSError as error:
            raise OSError(
                f"{self._metrics} or TensorBoard's file beside it cannot be written: {error}"
            ) from error
        iteration = self.trainer.iter
        if (iteration + 1) % self._period == 0 or iteration == self.trainer.max_iter - 1:
            self._last_write = iteration


def drop_later_lines(metrics: Path, last: int, ends: Sequence[int] = ()) -> None:
    """Drop the lines of a ``metrics.json`` that are not whole, or of later iterations.

    Args:
        metrics: the file, which may be missing.
        last: the last iteration that is kept.
        ends: iterations of which evaluations are kept, too. The last evaluation of a run counts as
            of the iteration after it.
    """
    if not metrics.is_file():
        return
    lines = metrics.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _is_kept(line, last, ends)]
    if kept != lines:
        with whole_file(metrics, "wb", durable=True) as file:
            file.writelines(kept)


def _is_kept(line: bytes, last: int, ends: Sequence[int]) -> bool:
    try:
        values = parse_json(line)
        iteration = values["iteration"]
        is_end = iteration in ends and "lr" not in values
        return line.endswith(b"\n") and (iteration <= last or is_end)
    except (ValueError, KeyError, TypeError):
        return False


def open_writers(output_dir: str, max_iter: int, first: int) -> list[EventWriter]:
    """Open Detectron2's default writers in a folder that an earlier part of the run wrote to.

    Args:
        output_dir: of the run.
        max_iter: of the run.
        first: the first iteration to come. What TensorBoard has of it, or later, it hides.
    """
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(str(Path(output_dir, "metrics.json"))),
        _FlushedTensorboardWriter(output_dir, purge_step=first),
    ]


class _FlushedTensorboardWriter(TensorboardXWriter):
    """Leaves nothing in memory, where a kill finds it."""

    def write(self) -> None:
        super().write()
        self._writer.flush()

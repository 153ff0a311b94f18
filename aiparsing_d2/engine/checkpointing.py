"""Keeping what a run has written."""

from __future__ import annotations

import json
import os

from detectron2.engine import hooks


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

    def before_train(self):
        if self.trainer.start_iter > 0 and os.path.isfile(self._record_file):
            with open(self._record_file) as f:
                record = json.load(f)
            if record["metric"] == self._val_metric:
                self.best_metric, self.best_iter = record["value"], record["iteration"]

    def _best_checking(self):
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


def check_output_dir(output_dir: str) -> None:
    """Refuses to start a new run where another one has left checkpoints.

    Args:
        output_dir: of the new run.

    Raises:
        FileExistsError: the folder holds a checkpoint.
    """
    if os.path.isfile(os.path.join(output_dir, "last_checkpoint")):
        raise FileExistsError(
            f"{output_dir} holds the checkpoints of an earlier run. Add --resume to continue it, "
            "or set train.output_dir to another folder."
        )

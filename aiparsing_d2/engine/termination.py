"""Ending a run before its time, in a way that it can go on from."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from fvcore.common.checkpoint import Checkpointer

from .finite_steps import in_any_process

__all__ = ["SaveOnTermination", "Terminated", "resume_command"]

logger = logging.getLogger(__name__)


class Terminated(SystemExit):
    """The run was ended by SIGTERM, after a checkpoint; the process exits with 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class SaveOnTermination(HookBase):
    """After SIGTERM, saves a checkpoint at the end of the iteration and ends the run.

    SIGTERM is what schedulers send some time before they kill. One process that gets it ends all.
    An evaluation that is due may take longer than that: this hook's place is where checkpoints are
    written, so that the rest of the iteration is left to the resumption.
    """

    def __init__(self, checkpointer: Checkpointer):
        """
        Args:
            checkpointer: of the run, in each process.
        """
        self._checkpointer = checkpointer
        self._is_due = False

    def before_train(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._handler_before = signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: Any) -> None:
        self._is_due = True

    def after_step(self) -> None:
        device = next(self.trainer.model.parameters()).device
        if in_any_process(self._is_due, device):
            iteration = self.trainer.iter
            self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
            logger.warning(
                "Ended by SIGTERM after iteration %d. To go on: %s", iteration, resume_command()
            )
            raise Terminated

    def after_train(self) -> None:
        if hasattr(self, "_handler_before"):
            signal.signal(signal.SIGTERM, self._handler_before)


def resume_command() -> str:
    """Return the command line of this process with ``--resume``."""
    if "LOCAL_RANK" in os.environ:
        return "the same torchrun command with --resume"
    script, *arguments = sys.argv
    program = ["-m", "aiparsing_d2"] if Path(script).name == "__main__.py" else [script]
    flag = [] if {"--resume", "--eval-only", "eval"} & set(arguments) else ["--resume"]
    return shlex.join([sys.executable, *program, *arguments, *flag])

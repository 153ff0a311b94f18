"""What a run starts from, and keeping what it has written."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import hooks
from detectron2.utils import comm
from fvcore.common.checkpoint import _filter_reused_missing_keys
from torch import nn

from aiparsing_d2.checkpoint import ParsingCheckpointer
from aiparsing_d2.counted import counted
from aiparsing_d2.data.id_lists import path_problem
from aiparsing_d2.data.json_files import read_json, shortened
from aiparsing_d2.whole_files import whole_file

from .config_error import ConfigError
from .finite_steps import NonFiniteError

logger = logging.getLogger(__name__)

_BODY = "backbone.bottom_up."


class FittingCheckpointer(ParsingCheckpointer):
    """``ParsingCheckpointer`` that refuses weights which do not fit the model.

    Detectron2's ``DetectionCheckpointer`` logs a warning and goes on with random weights where
    there are none. Here evaluation and resumption need a value for each tensor, and each tensor of
    the file a place. A training may start from less, as an ImageNet body under new heads: then only
    the body (``backbone.bottom_up``), if the model has one, must be filled, and all that is filled
    by nothing is logged.

    A run is resumed from the newest of its checkpoints that is whole.
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
        self._is_start = self._may_be_body = False
        self._is_tagging = True
        self._more_content: dict[str, Any] = {}
        self._resumed_from: str | None = None

    def has_checkpoint(self) -> bool:
        return has_checkpoint(self.save_dir)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """See ``ParsingCheckpointer``; without a resumption the weights are a start.

        Raises:
            ConfigError: the weights do not fit, or none of the run's checkpoints is whole.
        """
        # The main process looks, so that all load the same.
        is_main = comm.is_main_process()
        file = newest_whole_checkpoint(self.save_dir) if resume and is_main else None
        self._resumed_from = comm.all_gather(file)[0]
        if self._resumed_from is not None:
            return self.load(self._resumed_from)
        self._is_start = True
        try:
            return self.load(path, checkpointables=[])
        finally:
            self._is_start = False

    def load_body_or_all(self, path: str) -> dict[str, Any]:
        """Load weights that fill the whole model, or its body and nothing else.

        Raises:
            ConfigError: they fill something else.
        """
        self._may_be_body = True
        try:
            return self.load(path)
        finally:
            self._may_be_body = False

    def complete(self) -> None:
        """Make model_final.pth of a finished run that was stopped before it had written that."""
        if not self.save_to_disk or self._resumed_from is None:
            return
        last, final = Path(self._resumed_from), Path(self.save_dir, "model_final.pth")
        if last != final:
            with open(last, "rb") as source, whole_file(final, "wb", durable=True) as file:
                shutil.copyfileobj(source, file)
            self.tag_last_checkpoint(final.name)

    def save(self, name: str, **kwargs: Any) -> None:
        """See ``ParsingCheckpointer``.

        Raises:
            NonFiniteError: a weight is infinite or NaN, or a buffer NaN; nothing is written.
        """
        parameters = {name for name, _ in self.model.named_parameters()}
        wrong = [
            tensor
            for tensor, value in self.model.state_dict().items()
            if value.is_floating_point()
            and not (torch.isfinite(value) if tensor in parameters else ~torch.isnan(value)).all()
        ]
        if wrong:
            raise NonFiniteError(
                f"{os.path.join(self.save_dir, name)}.pth is not written, as weights are infinite "
                f"or NaN: {', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}. What was "
                "written before is as it was: resume from there with a lower rate"
            )
        super().save(name, **self._more_content, **kwargs)

    @contextmanager
    def leaving_last_checkpoint(self, **more_content: Any) -> Iterator[None]:
        """Save in the block, with more content, what is not to be the checkpoint to resume from."""
        self._is_tagging, self._more_content = False, more_content
        try:
            yield
        finally:
            self._is_tagging, self._more_content = True, {}

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        if self._is_tagging:
            super().tag_last_checkpoint(last_filename_basename)

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
        unfilled = {*missing, *shapes}
        parameters = {name for name, _ in self.model.named_parameters()}
        if self._is_start or (self._may_be_body and _outside_body(parameters) <= unfilled):
            if parameters <= unfilled:
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
                f"{self._path} does not fit the model in {counted(len(problems), 'tensor')}. Give "
                "the config that the weights were trained with, other weights, or "
                "train.allow_unfitting_weights=True:\n  " + "\n  ".join(problems)
            )


def _outside_body(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith(_BODY)}


class BoundedCheckpoints(hooks.PeriodicCheckpointer):
    """``PeriodicCheckpointer`` that keeps ``max_to_keep`` files over all parts of a run.

    Detectron2's knows of those alone that it has written since the latest start, so that each
    resumption would leave as many again.
    """

    def before_train(self) -> None:
        super().before_train()
        numbered = re.compile(rf"{re.escape(self.file_prefix)}_(\d+)\.pth")
        files = {
            int(match[1]): str(file)
            for file in Path(self.checkpointer.save_dir).iterdir()
            if (match := numbered.fullmatch(file.name))
        }
        earlier = [files[i] for i in sorted(files) if i < self.trainer.start_iter]
        if self.max_to_keep is not None:
            # A kill came between a new file and the end of the oldest.
            for file in earlier[: -self.max_to_keep]:
                logger.info("Removing %s, as %d later ones are kept", file, self.max_to_keep)
                self.path_manager.rm(file)
            self.recent_checkpoints = earlier[-self.max_to_keep :]


class PersistentBestCheckpointer(hooks.BestCheckpointer):
    """``BestCheckpointer`` that goes well with ``--resume``.

    Detectron2's starts afresh, so that the first evaluation after a resumption replaces a better
    checkpoint: this one keeps the record (metric, value, iteration) in the checkpoint itself, as
    "best", so that the two always belong together; ``<file_prefix>.json`` is a copy to read. And
    Detectron2's makes the best checkpoint the one to resume from; after the last evaluation that
    one counts an iteration too many. Here the latest periodic one is left to be that.
    """

    @property
    def _file(self) -> Path:
        return Path(self._checkpointer.save_dir, f"{self._file_prefix}.pth")

    def before_train(self) -> None:
        if self.trainer.start_iter == 0 or not self._file.is_file():
            return
        problem = _damage(self._file)
        if problem:
            logger.warning("%s %s; the next evaluation replaces it", self._file, problem)
            return
        content = torch.load(self._file, map_location="cpu", weights_only=True, mmap=True)
        copy = self._file.with_suffix(".json")
        record = content.get("best")
        if record is None and copy.is_file():  # earlier versions kept it there alone
            record = _read_best_record(copy)
        if record is not None and record["metric"] == self._val_metric:
            self.best_metric, self.best_iter = record["value"], record["iteration"]
            self._write_copy(record)

    def _best_checking(self) -> None:
        latest = self.trainer.storage.latest().get(self._val_metric)
        record = dict(zip(("metric", "value", "iteration"), (self._val_metric, *(latest or ()))))
        known = self.best_iter
        with self._checkpointer.leaving_last_checkpoint(best=record):
            super()._best_checking()
        if self.best_iter != known:
            self._write_copy(record)

    def _write_copy(self, record: dict[str, Any]) -> None:
        with whole_file(self._file.with_suffix(".json"), durable=True) as file:
            json.dump(record, file)


def _read_best_record(file: Path) -> dict[str, Any]:
    try:
        record = read_json(file)
        metric, value, iteration = record["metric"], record["value"], record["iteration"]
        if type(value) not in (int, float) or type(iteration) is not int:
            raise TypeError(f"it holds {shortened(record)}")
        return {"metric": metric, "value": value, "iteration": iteration}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file} is no record of the best checkpoint ({error}). Mend it or remove it; without "
            "it the next evaluation replaces the best checkpoint"
        ) from error


def has_checkpoint(output_dir: str) -> bool:
    """Whether a run has left checkpoints in its output folder, to continue from."""
    record = Path(output_dir, "last_checkpoint")
    return bool(output_dir) and (record.is_file() or bool(_checkpoints(output_dir)))


def _checkpoints(output_dir: str) -> list[Path]:
    """Return the files to resume a run from; the best checkpoint is none."""
    files = Path(output_dir).glob("model_*.pth")
    return [file for file in files if re.fullmatch(r"model_(\d+|final)\.pth", file.name)]


def newest_whole_checkpoint(output_dir: str) -> str | None:
    """Find the checkpoint to resume a run from.

    That is the one which ``last_checkpoint`` names. Is it missing or damaged, then it is, with a
    warning, the whole one of the highest iteration.

    Args:
        output_dir: of the run.

    Returns:
        The file; None if the run has left none.

    Raises:
        ConfigError: there are checkpoints, or a record of one, but none is whole.
    """
    if not has_checkpoint(output_dir):
        return None
    record = Path(output_dir, "last_checkpoint")
    # Old versions, and failing disks, may leave an empty record.
    name = record.read_text(errors="replace").strip() if record.is_file() else ""
    problems = []
    if name and ("/" in name or path_problem(name)):
        problems.append(f"{record} names no file of its folder, but {shortened(name)}")
    elif name:
        problem = _damage(record.with_name(name))
        if problem is None:
            return str(record.with_name(name))
        problems.append(f"{record.with_name(name)} {problem}")
    else:
        problems.append(f"{record} {'is empty' if record.is_file() else 'is missing'}")
    found: list[tuple[int, str]] = []
    for file in _checkpoints(output_dir):
        if file.name == name:
            continue
        problem = _damage(file)
        if problem is None:
            try:
                found.append((_iteration(file), str(file)))
                continue
            except Exception as error:  # weights of another kind, by the name of a checkpoint
                problem = f"is no checkpoint of a run ({type(error).__name__}: {error})"
        problems.append(f"{file} {problem}")
    if not found:
        raise ConfigError(
            f"there is no whole checkpoint to resume from: {'; '.join(problems)}. Put one back, or "
            "start a new run in another train.output_dir"
        )
    iteration, file = max(found)
    logger.warning(
        "%s. Resuming from %s, after iteration %d, instead.", "; ".join(problems), file, iteration
    )
    return file


def _damage(file: Path) -> str | None:
    """Return what is wrong with a file of torch.save, None if it is whole."""
    if not file.is_file():
        return "does not exist"
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()  # compares checksums
    except Exception as error:  # BadZipFile, NotImplementedError, zlib.error, struct.error, ...
        return f"is damaged ({error})"
    return f"is damaged (in its part {broken})" if broken else None


def _iteration(file: Path) -> int:
    return int(torch.load(file, map_location="cpu", weights_only=True, mmap=True)["iteration"])


def remove_unfinished(output_dir: str) -> None:
    """Remove the files of a killed run that have not got their name yet.

    Args:
        output_dir: of a run that this process is about to resume.
    """
    for part in Path(output_dir).glob("*.part"):
        if re.fullmatch(r".+\.\d+\.part", part.name):
            logger.info("Removing %s, which was not finished", part)
            part.unlink()


def check_output_dir(
    output_dir: str, resume: bool = False, best_prefix: str = "model_best"
) -> None:
    """Refuse to start a new run where another one has left checkpoints.

    Args:
        output_dir: of the new run.
        resume: whether the run goes on from the last checkpoint, if there is one.
        best_prefix: name of the best checkpoint, without ".pth".

    Raises:
        FileExistsError: the folder holds a checkpoint that the run would not go on from.
    """
    if has_checkpoint(output_dir):
        if resume:
            return
        raise FileExistsError(
            f"{output_dir} holds the checkpoints of an earlier run. Add --resume to continue it, "
            "or set train.output_dir to another folder."
        )
    best = Path(output_dir, f"{best_prefix}.pth")
    if best.is_file():  # the first evaluation would replace it
        raise FileExistsError(
            f"{best} is of an earlier run, of which there is no checkpoint to continue from. Move "
            "it to another folder, or set train.output_dir to another."
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
            "'aiparsing train', weights=... to model_zoo."
        )

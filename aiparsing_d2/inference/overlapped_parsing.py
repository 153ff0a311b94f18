"""Many pictures: some are read and others written while the model works on a few."""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import torch

from .parsed_image import ParsedImage
from .pictures import Picture
from .predictor import ParsingPredictor, PreparedPicture

__all__ = ["Outcome", "parse_overlapped"]

# Decoding and encoding leave Python's lock to the model most of the time.
_NUM_IO_THREADS = 3
# Bounds memory, and how often models wait for Python's lock.
_MAX_MODELS = 4

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)

Task = TypeVar("Task")


class Outcome(NamedTuple):
    """What became of a task.

    Attributes:
        task: as it was given.
        result: what ``write`` returned; None after an error.
        error: why there is no result, or None.
    """

    task: Any
    result: Any
    error: Exception | None

    @property
    def disk_error(self) -> str:
        """Why the next picture cannot be written either; or ""."""
        if isinstance(self.error, OSError) and self.error.errno in _DISK_ERRORS:
            return os.strerror(self.error.errno).lower()
        return ""


def parse_overlapped(
    predictor: ParsingPredictor,
    tasks: Iterable[Task],
    read: Callable[[Task], Picture],
    write: Callable[[Task, ParsedImage], object],
    is_ended: Callable[[], bool] = lambda: False,
    *,
    channel_order: str = "BGR",
    num_readers: int = _NUM_IO_THREADS,
    num_ahead: int = 2 * _NUM_IO_THREADS,
) -> Generator[Outcome, None, None]:
    """Parse many pictures, several at once, while others are read and written in threads.

    On a CPU a few pictures go through the model side by side, each on its share of the cores: on
    two cores 1.2 times as many a second as one after the other on both. Torch's number of threads
    (``OMP_NUM_THREADS``) is what they share. A few pictures are in memory at a time, however many
    there are. Whatever is wrong with one does not cost the others.

    Args:
        predictor: does what it does for a picture alone, so the results are the same but for
            rounding, which depends on the number of threads.
        tasks: what stands for the pictures; taken a few ahead.
        read: gives the picture of a task, such as its path; called in threads.
        write: keeps what was found; called in threads.
        is_ended: asked before each picture goes to the model, in threads too. Once it says yes,
            what the model has seen is still written, and the rest of the tasks have no outcome.
        channel_order: "BGR" or "RGB", of pictures that are arrays.
        num_readers: threads that read. One alone reads in the order of the tasks.
        num_ahead: pictures in memory beside those that the model works on.

    Yields:
        The outcomes, in the order of the tasks, soon after each was written.
    """
    num_models, num_cores = _share_cores(predictor.device)
    readers = _make_threads(num_readers, "reader", 1)
    models = _make_threads(num_models, "model", num_cores)
    writers = _make_threads(_NUM_IO_THREADS, "writer", 1)

    def prepare(task: Task) -> PreparedPicture:
        return predictor.prepare(read(task), channel_order=channel_order)

    def parse(task: Task, prepared: list[Future]) -> Future | None:
        """Give what will become of the task, or None where all is ended before."""
        if is_ended():
            return None
        # Nothing may hold a picture once the model has seen it.
        return writers.submit(write, task, predictor.parse_prepared(prepared.pop().result()))

    tasks = iter(tasks)
    pending: deque[tuple[Task, Future]] = deque()
    try:
        while True:
            room = 0 if is_ended() else num_models + num_ahead - len(pending)
            for task in islice(tasks, room):
                pending.append((task, models.submit(parse, task, [readers.submit(prepare, task)])))
            if not pending:
                break
            outcome = _outcome(*pending.popleft())
            if outcome is not None:
                yield outcome
            outcome = None  # holds the picture, where that is what was written
    finally:
        readers.shutdown(cancel_futures=True)
        models.shutdown(cancel_futures=True)
        writers.shutdown()


def _share_cores(device: torch.device) -> tuple[int, int]:
    """Give how many pictures go through the model at once, and how many cores each has."""
    if device.type != "cpu":
        return 1, torch.get_num_threads()
    num_cores = torch.get_num_threads()
    num_models = min(num_cores, _MAX_MODELS)
    return num_models, num_cores // num_models


def _make_threads(number: int, name: str, num_cores: int) -> ThreadPoolExecutor:
    """Make threads in which PyTorch computes with so many cores each.

    By default each would have as many helpers as there are cores. Once there are more of these than
    cores, OpenMP lets the model's sleep whenever they wait, while a core is idle.
    """
    elsewhere = torch.get_num_threads()
    return ThreadPoolExecutor(number, name, _compute_with, (num_cores, elsewhere))


def _compute_with(num_cores: int, elsewhere: int) -> None:
    """Let PyTorch compute with so many cores in this thread, and as before in others."""
    torch.get_num_threads()  # the first call in a thread takes over what others have
    torch.set_num_threads(num_cores)
    # A part of the setting, that of threads to come, is not of this thread alone: set it back.
    other = threading.Thread(target=torch.set_num_threads, args=(elsewhere,))
    other.start()
    other.join()


def _outcome(task: Any, parsing: Future) -> Outcome | None:
    error = parsing.exception()
    if error is None:
        writing = parsing.result()
        if writing is None:
            return None
        error = writing.exception()
        if error is None:
            return Outcome(task, writing.result(), None)
    if not isinstance(error, Exception):
        raise error
    # The frames in which it was raised hold the picture.
    return Outcome(task, None, error.with_traceback(None))

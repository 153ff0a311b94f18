"""Many pictures, of which some are read and others written while the model works on one."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from .parsed_image import ParsedImage
from .pictures import Picture
from .predictor import ParsingPredictor, PreparedPicture

__all__ = ["Outcome", "parse_overlapped"]

# Each holds a picture; decoding and encoding leave Python's lock to the model most of the time.
_NUM_READERS = _NUM_WRITERS = 3

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
) -> Iterator[Outcome]:
    """Parse pictures one by one while others are read and written in threads.

    A few pictures are in memory at a time, however many there are. Whatever is wrong with one does
    not cost the others.

    Args:
        predictor: does what it does for a picture alone, so the results are the same.
        tasks: what stands for the pictures; taken a few ahead.
        read: gives the picture of a task, such as its path; called in threads.
        write: keeps what was found; called in threads.
        is_ended: asked before each picture goes to the model. Once it says yes, what the model has
            seen is still written, and the rest of the tasks have no outcome.

    Yields:
        The outcomes, in the order of the tasks, soon after each was written.
    """

    def prepare(task: Task) -> PreparedPicture:
        return predictor.prepare(read(task))

    tasks = iter(tasks)
    reading: deque[tuple[Task, Future]] = deque()
    writing: deque[tuple[Task, Future]] = deque()
    readers = ThreadPoolExecutor(_NUM_READERS, "reader")
    writers = ThreadPoolExecutor(_NUM_WRITERS, "writer")
    try:
        while not is_ended():
            for task in islice(tasks, _NUM_READERS - len(reading)):
                reading.append((task, readers.submit(prepare, task)))
            if not reading:
                break
            task, prepared = reading.popleft()
            try:
                parsed = predictor.parse_prepared(prepared.result())
            except Exception as error:
                writing.append((task, _failed(error)))
            else:
                writing.append((task, writers.submit(write, task, parsed)))
            # Nothing may hold a picture while the next ones are waited for.
            prepared = parsed = None
            while writing and (len(writing) > _NUM_WRITERS or writing[0][1].done()):
                yield _outcome(*writing.popleft())
        while writing:
            yield _outcome(*writing.popleft())
    finally:
        readers.shutdown(cancel_futures=True)
        writers.shutdown()


def _failed(error: Exception) -> Future:
    future: Future = Future()
    future.set_exception(error)
    return future


def _outcome(task: Any, future: Future) -> Outcome:
    error = future.exception()
    if error is None:
        return Outcome(task, future.result(), None)
    if not isinstance(error, Exception):
        raise error
    # The frames in which it was raised hold the picture.
    return Outcome(task, None, error.with_traceback(None))

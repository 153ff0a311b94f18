"""Work in several processes: the only place of the library that starts any.

Workers are spawned, not forked: a fork copies the locks of other threads (of OpenCV, torch or a
progress bar) in whatever state they are, and can hang on them. So the function and its tasks are
pickled, and a script that calls this needs ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

__all__ = ["WorkerDiedError", "map_in_processes"]

_TASKS_AHEAD = 4
"""Tasks a worker that are begun or done before the caller asks for their results."""

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerDiedError(RuntimeError):
    """A worker process was killed, or could not start."""


@contextlib.contextmanager
def map_in_processes(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    num_workers: int,
    initializer: Callable[[], object] | None = None,
) -> Iterator[Iterator[Result]]:
    """Apply a function to every task; the workers live as long as the ``with`` block.

    ::

        with map_in_processes(function, tasks, num_workers) as results:
            for result in results:
                ...

    Args:
        function: sent to every worker once, so it may hold much.
        tasks: read as the results are taken, a few for each worker ahead.
        num_workers: processes; 0 and 1 mean none beside this one.
        initializer: called once in every worker before its first task; not in this process.

    Yields:
        The results, in the order of the tasks.

    Raises:
        WorkerDiedError: a worker ended before its work was done.
        Exception: what the function raised.
    """
    if num_workers <= 1:
        yield map(function, tasks)
        return
    executor = ProcessPoolExecutor(
        num_workers,
        multiprocessing.get_context("spawn"),
        _start_worker,
        (function, initializer),
    )
    try:
        yield _results_in_order(executor, iter(tasks), num_workers)
    except BrokenProcessPool as error:
        raise WorkerDiedError(
            "A worker process ended before its work was done. Unless it printed an error of its "
            "own, it was killed, most often for lack of memory: free some, or use fewer workers "
            f"than {num_workers}."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _results_in_order(
    executor: ProcessPoolExecutor, tasks: Iterator[Task], num_workers: int
) -> Iterator[Result]:
    futures: deque[Future[Result]] = deque()
    while True:
        for task in islice(tasks, _TASKS_AHEAD * num_workers - len(futures)):
            # Submitting may start a worker, which inherits that it is deaf to Ctrl-C: this process
            # hears it alone, and ends the others.
            with _interrupts_blocked():
                futures.append(executor.submit(_call, task))
        if not futures:
            return
        yield futures.popleft().result()


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Put Ctrl-C off to the end of the block."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_function: Callable | None = None
"""What a worker process applies."""


def _start_worker(function: Callable, initializer: Callable[[], object] | None) -> None:
    global _function
    _function = function
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer()


def _end_with_parent() -> None:
    # A worker whose parent was killed would wait for its next task for ever.
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(task: Any) -> Any:
    return _function(task)

"""Many pictures in blocks, by several workers with a model each, through Ray Data.

What goes through Ray are names and counts. A worker reads the pictures of a block and writes their
results itself, and last a file of the table of all people. So a block is done once that file is
there, a worker that dies costs the blocks that it has begun, and the next call goes on with the
pictures that are not in the table.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from aiparsing_d2.parallel import WorkerDiedError

from .overlapped_parsing import parse_overlapped
from .parsed_image import ParsedImage
from .parsed_table import make_row, write_rows
from .picture_shards import StoredPicture, read_stored_picture
from .predictor import ParsingPredictor
from .saving import save

__all__ = ["BlockReport", "parse_blocks"]

_MAX_RETRIES = 3
"""Times that a block is begun again after its worker has died."""


class BlockReport(NamedTuple):
    """What became of a block.

    Attributes:
        num_pictures: that were parsed.
        num_people: in them.
        problems: what is wrong with each of the others.
        end_reason: why no other block can be parsed either: its results cannot be written, or there
            is no model; or "".
    """

    num_pictures: int
    num_people: int
    problems: list[str]
    end_reason: str = ""


def parse_blocks(
    blocks: Sequence[Sequence[StoredPicture]],
    make_predictor: Callable[[], ParsingPredictor],
    output: str,
    kinds: Sequence[str],
    settings: dict[str, Any],
    *,
    num_workers: int,
) -> Iterator[BlockReport]:
    """Parse blocks of pictures, and write the results.

    Args:
        blocks: of pictures.
        make_predictor: called once by each worker, to which it is pickled.
        output: path or URL of the folder of the results, which all workers can reach.
        kinds: of results beside the table.
        settings: kept in the table.
        num_workers: actors of Ray, which share the GPUs there are. 0: this process, without Ray.

    Yields:
        Reports in the order in which blocks are done.

    Raises:
        OSError: the disk of the results is full, or cannot be written to; or a worker cannot make
            the predictor.
        WorkerDiedError: the workers of one block died again and again.
    """
    arguments = (make_predictor, output, tuple(kinds), settings)
    tasks = [{"block": json.dumps(block)} for block in blocks]
    if num_workers == 0:
        results = map(_BlockParser(*arguments), tasks)
    else:
        results = _map_in_actors(tasks, arguments, num_workers)
    for result in results:
        report = BlockReport(*json.loads(result["report"]))
        if report.end_reason:
            raise OSError(report.end_reason)
        yield report


class _BlockParser:
    """Holds a model, and parses one block after the other."""

    def __init__(
        self,
        make_predictor: Callable[[], ParsingPredictor],
        output: str,
        kinds: tuple[str, ...],
        settings: dict[str, Any],
    ):
        self._end_reason = ""
        try:
            self._predictor = make_predictor()
        except (OSError, ValueError) as error:
            # Raised here, Ray would take it for the death of a worker, and start the next one.
            self._end_reason = str(error)
        self._output, self._kinds, self._settings = output, kinds, settings

    def __call__(self, task: dict[str, str]) -> dict[str, str]:
        """Parse a block; task and report are JSON, for Ray makes tables of them."""
        if self._end_reason:
            return _report(0, 0, [], self._end_reason)
        block = [StoredPicture(*picture) for picture in json.loads(task["block"])]
        rows, problems = [], []
        outcomes = parse_overlapped(self._predictor, block, read_stored_picture, self._write)
        for outcome in outcomes:
            picture, row, error = outcome
            if error is None:
                rows.append(row)
            elif outcome.disk_error:
                return _report(0, 0, [], outcome.disk_error)
            else:
                problems.append(f"{picture.path}: {str(error) or type(error).__name__}")
        try:
            if rows:
                write_rows(rows, self._output, self._settings)
        except OSError as error:
            return _report(0, 0, [], str(error))
        return _report(len(rows), sum(len(row["people"]) for row in rows), problems)

    def _write(self, picture: StoredPicture, parsed: ParsedImage) -> dict[str, Any]:
        file_system, folder = fsspec.core.url_to_fs(self._output)
        if isinstance(file_system, LocalFileSystem):
            save(parsed, folder, picture.name, self._kinds)
        else:
            with tempfile.TemporaryDirectory() as local:
                save(parsed, local, picture.name, self._kinds)
                for file in Path(local).rglob("*"):
                    if file.is_file():
                        place = file.relative_to(local).as_posix()
                        file_system.pipe_file(f"{folder}/{place}", file.read_bytes())
        return make_row(parsed, picture.name, picture.path)


def _report(*values: Any) -> dict[str, str]:
    return {"report": json.dumps(BlockReport(*values))}


def _map_in_actors(
    tasks: list[dict[str, str]], arguments: tuple, num_workers: int
) -> Iterator[dict[str, str]]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A worker with a model needs no more of a GPU than its share.
    num_gpus = min(1, ray.cluster_resources().get("GPU", 0) / num_workers)
    blocks: Any = ray.data.from_items(tasks, override_num_blocks=len(tasks))
    results = blocks.map(
        _BlockParser,
        fn_constructor_args=arguments,
        num_cpus=1,
        num_gpus=num_gpus or None,
        compute=ray.data.ActorPoolStrategy(size=num_workers),
        max_task_retries=_MAX_RETRIES,
    )
    try:
        yield from results.iter_rows()
    except ray.exceptions.RayActorError as error:
        raise WorkerDiedError(
            f"one block's worker died {_MAX_RETRIES + 1} times, most often for lack of memory: use "
            "fewer workers"
        ) from error

"""``parse-many``: parse more pictures than one process can, from tar shards too, into a table.

::

    python -m aiparsing_d2 parse-many s3://bucket/shards/ --output /shared/parsed --workers 8
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from aiparsing_d2.counted import counted
from aiparsing_d2.parallel import WorkerDiedError

from .model_arguments import predictor_arguments
from .parse import (
    add_parsing_arguments,
    expand_inputs,
    printable,
)
from .progress_bar import progress_bar

__all__ = ["add_parser", "run"]

_EPILOG = """\
What is in DIR afterwards:
  people.parquet/   a table, one row a picture: name, source, height, width, people; each person
                    has box, scores, run lengths (COCO's "counts") and parts
  and the files of --save, named as those of aiparsing parse; for 5.jpg of shards/01.tar in shards/
  they are DIR/01/5.json and so on

Pictures that are in the table already are not parsed again, so the same command goes on after an
interrupt and adds pictures that are new. One that cannot be parsed is named, the others are parsed,
and the exit status is 1.

Workers are actors of Ray on this machine, or on the cluster that RAY_ADDRESS names; GPUs are shared
among them. 0 workers: this process alone, without Ray.

examples:
  aiparsing parse-many photographs/ --output parsed/ --workers 4
  aiparsing parse-many 'shards/*.tar' --output parsed/ --save overlay --workers 0
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "parse-many",
        help="parse pictures and tar shards with many workers, into a table",
        description="Parse pictures and tar shards with many workers, through Ray Data, into a "
        "table in Parquet files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a picture, an uncompressed tar file with pictures (WebDataset's shards), a folder of "
        "either, or a pattern; a path or a URL that fsspec knows, as s3://... or gs://...; a list "
        "of those, whose name ends in .txt; - for such a list from standard input",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="for the results; a path or URL"
    )
    parser.add_argument(
        "--workers",
        type=functools.partial(_at_least, 0),
        default=1,
        metavar="N",
        help="processes, each with a model (default: %(default)s)",
    )
    parser.add_argument(
        "--block",
        type=functools.partial(_at_least, 1),
        default=128,
        metavar="N",
        help="pictures that a worker parses between two files of the table; what is lost at most "
        "if it dies (default: %(default)s)",
    )
    add_parsing_arguments(parser, save_default=())
    parser.set_defaults(run=run)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    try:
        import pyarrow  # noqa: F401

        if args.workers:
            import ray.data  # noqa: F401  Ray alone lacks what it needs
    except ImportError as error:
        needed = "this needs Ray and pyarrow: pip install 'aiparsing_d2[ray]'"
        print(f"aiparsing parse-many: {needed} ({error})", file=sys.stderr)
        return 1

    from aiparsing_d2.inference import ParsingPredictor
    from aiparsing_d2.inference.block_parsing import parse_blocks
    from aiparsing_d2.inference.parsed_table import names_in_table
    from aiparsing_d2.inference.picture_shards import find_stored_pictures

    problems = []

    def note(problem: str) -> None:
        problems.append(problem)
        tqdm.write(printable(problem), file=sys.stderr)

    output = _absolute(args.output)
    inputs = map(_absolute, expand_inputs(args.inputs, note))
    arguments = predictor_arguments(args)
    for key in ("config", "weights"):
        if os.path.exists(arguments.get(key, "")):
            arguments[key] = os.path.abspath(arguments[key])
    checked = dict(arguments)
    if args.workers:  # which may have other devices
        checked["device"] = "cpu"
        if args.device != "cpu":
            checked["precision"] = None
    try:
        # What is wrong with them is told here, not by a worker.
        predictor = ParsingPredictor(**checked)
        settings = {
            "model": arguments.get("config"),
            "weights": arguments.get("weights"),
            "threshold": predictor.score_threshold,
            "save": sorted(args.save),
            "parts": list(predictor.part_labels.names),
        }
        done = names_in_table(output, settings)
    except (ImportError, OSError, ValueError) as error:  # what a kind of address needs, too
        print(f"aiparsing parse-many: {error}", file=sys.stderr)
        return 1
    found = list(find_stored_pictures(inputs, output, args.save or ["json"], note))
    pictures = [picture for picture in found if picture.name not in done]
    blocks = [pictures[i : i + args.block] for i in range(0, len(pictures), args.block)]
    num_parsed = num_people = 0
    reason = ""
    try:
        with (
            _ray(args.workers if blocks else 0),
            progress_bar(len(pictures), "Parsing", "picture", is_shown=bool(pictures)) as bar,
        ):
            for report in parse_blocks(
                blocks,
                functools.partial(ParsingPredictor, **arguments)
                if args.workers
                else lambda: predictor,
                output,
                args.save,
                settings,
                num_workers=min(args.workers, len(blocks)),
            ):
                num_parsed += report.num_pictures
                num_people += report.num_people
                num_failed = len(report.problems)
                bar.advance(report.num_pictures + num_failed, num_failed=num_failed)
                for problem in report.problems:
                    note(problem)
    except KeyboardInterrupt:
        reason = "Interrupted"
    except (OSError, WorkerDiedError) as error:
        reason = f"Ended, since {error}"
    counts = [f"{counted(num_people, 'person')} in {counted(num_parsed, 'picture')}"]
    if num_kept := len(found) - len(pictures):
        counts.append(f"{num_kept} in the table before")
    if problems:
        counts.append(f"{len(problems)} failed")
    print(f"{printable(output)}: {', '.join(counts)}")
    if reason:
        print(
            f"{reason}: {num_parsed} of {counted(len(pictures), 'picture')} done; the same command "
            "goes on from here.",
            file=sys.stderr,
        )
        return 130 if reason == "Interrupted" else 1
    return 1 if problems else 0


def _absolute(path: str) -> str:
    """Write a path in one way, which workers in other folders read alike."""
    if path.startswith(("file://", "local://")):
        import fsspec

        path = fsspec.core.url_to_fs(path)[1]
    return path.rstrip("/") if "://" in path else os.path.abspath(path)


@contextmanager
def _ray(num_workers: int) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster of RAY_ADDRESS."""
    if not num_workers:
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else it prints, as an error, what it advises on the arguments of actors.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    here: dict[str, Any] = {"include_dashboard": False}
    if "RAY_ADDRESS" not in os.environ:
        here["num_cpus"] = max(num_workers, os.cpu_count() or 1)
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **here)
    try:
        yield
    finally:
        ray.shutdown()

"""``compose``: make a validation set of crowds or of cut people from a registered data set.

::

    python -m aiparsing_d2 compose crowds --dataset ccp_val --output datasets/ccp_crowd
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aiparsing_d2.counted import counted

from .argument_types import not_negative, positive

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "compose",
        help="make a validation set of crowds, or of people cut by the picture's edges",
        description="Make a validation set, in CIHP's layout, from the photographs of a registered "
        "data set. The same call makes the same images; an interrupted one goes on.",
        epilog="example:\n  aiparsing compose crowds --dataset ccp_val --output datasets/ccp_crowd",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "composition",
        choices=("crowds", "crops"),
        help="crowds: two to six people in a picture. crops: portraits, half bodies, people cut "
        "at any side",
    )
    parser.add_argument("--dataset", required=True, metavar="NAME", help="the registered data set")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--num-images", type=positive, default=300, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=not_negative, metavar="N", default=0, help="default: %(default)s"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from detectron2.data import DatasetCatalog

    import aiparsing_d2.data.datasets  # noqa: F401  registers the built-in data sets
    from aiparsing_d2.preparation.composed_scenes import COMPOSITIONS, compose_data_set
    from aiparsing_d2.structures.part_labels import get_part_labels

    try:
        compose_data_set(
            COMPOSITIONS[args.composition],
            DatasetCatalog.get(args.dataset),
            get_part_labels(args.dataset),
            args.output,
            num_images=args.num_images,
            seed=args.seed,
        )
    except (KeyError, OSError, ValueError) as error:
        # KeyError shows its message in quotes.
        message = error.args[0] if isinstance(error, KeyError) else error
        print(f"aiparsing compose: {message}", file=sys.stderr)
        return 1
    print(f"{counted(args.num_images, 'image')} in {args.output}")
    return 0

"""The command line: ``python -m aiparsing_d2 COMMAND ...``, installed as ``aiparsing``.

Each command is a module with ``add_parser(subparsers)``, which adds its arguments and sets ``run``
as their default, and ``run(args) -> int``, which gives the exit status. Modules import what takes
time only in ``run``, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import compose, convert_weights, evaluate, parse, prepare

__all__ = ["main"]

_COMMANDS = (parse, prepare, compose, evaluate, convert_weights)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; those of the process if not given.

    Returns:
        The exit status: 0 if all went well, 130 if the user interrupted, else what the command
        gives.
    """
    parser = argparse.ArgumentParser(
        prog="aiparsing",
        description="Parse people in pictures, prepare data sets of instance-level human parsing, "
        "evaluate results and convert weights.",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130

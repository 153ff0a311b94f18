"""The command line: ``python -m aiparsing_d2 COMMAND ...``, installed as ``aiparsing``.

Each command is a module with ``add_parser(subparsers)``, which adds its arguments and sets ``run``
as their default, and ``run(args) -> int``, which gives the exit status. Modules import what takes
time only in ``run``, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from aiparsing_d2 import __version__

from . import (
    analyze,
    app,
    benchmark,
    compose,
    convert_weights,
    doctor,
    evaluate,
    export,
    parse,
    parse_many,
    prepare,
    train,
)

__all__ = ["main", "make_parser"]

_COMMANDS = (
    parse,
    parse_many,
    app,
    prepare,
    compose,
    train,
    evaluate,
    export,
    convert_weights,
    analyze,
    benchmark,
    doctor,
)


class _CommandParser(argparse.ArgumentParser):
    """Takes flags before, between and behind the overrides of a command that has some."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        # argparse takes the first row of overrides for all, and leaves the others.
        namespace, rest = super().parse_known_args(args, namespace)
        if rest and hasattr(namespace, "opts") and not any(word.startswith("-") for word in rest):
            namespace.opts, rest = [*namespace.opts, *rest], []
        if rest:  # told with the usage of this command, not that of all
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return namespace, rest


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="aiparsing",
        description="Parse people in pictures; prepare data sets of instance-level human parsing, "
        "train on them, evaluate results and convert weights.",
        epilog="example:\n  aiparsing parse photo.jpg --output parsed/",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aiparsing_d2 {__version__}")
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_CommandParser
    )
    for command in _COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; those of the process if not given.

    Returns:
        The exit status: 0 if all went well, 130 if the user interrupted, else what the command
        gives.
    """
    try:
        args = make_parser().parse_args(argv)
        return args.run(args)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130

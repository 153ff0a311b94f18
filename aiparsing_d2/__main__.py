"""``python -m aiparsing_d2`` and ``aiparsing``: see :mod:`aiparsing_d2.cli`."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line; Ctrl-C ends it without a traceback while it is imported, too.

    Returns:
        The exit status, as of :func:`aiparsing_d2.cli.main`.
    """
    try:
        from .cli import main as run_command

        return run_command()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


# Worker processes import this module again, and must not run the command again.
if __name__ == "__main__":
    sys.exit(main())

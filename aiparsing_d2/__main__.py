"""``python -m aiparsing_d2``: see :mod:`aiparsing_d2.cli`."""

import sys

from .cli import main

# Worker processes import this module again, and must not run the command again.
if __name__ == "__main__":
    sys.exit(main())

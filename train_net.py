#!/usr/bin/env python
"""``aiparsing train`` as a script, for torchrun and for work in a clone."""

import sys

from aiparsing_d2 import cli
from aiparsing_d2.engine.training import main  # noqa: F401  for scripts that import this one

# Worker processes import this file again, and must not run it again.
if __name__ == "__main__":
    sys.exit(cli.main(["train", *sys.argv[1:]]))

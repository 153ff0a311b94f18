"""Makes the modules that the tests of the evaluation share importable from this folder too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))

"""What importing the package's drawing and inference does not cost."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["aiparsing_d2.inference", "aiparsing_d2.visualization"])
def test_importing_it_leaves_matplotlib_out(module):
    code = f"import sys, {module}; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

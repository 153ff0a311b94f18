import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_prints_speed_floor_and_memory():
    arguments = "--height 60 --width 80 --persons 3 --predictions 4 --repeats 1 --images 20".split()
    result = subprocess.run(
        [sys.executable, ROOT / "tools" / "benchmark_evaluator.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "60 x 80 pixels, 20 classes, 3 people, 4 predictions" in result.stdout
    rows = re.findall(r"^\| (side by side|everybody .*?) +((?:\| +[\d.]+ )+)", result.stdout, re.M)
    assert len(rows) == 2
    for _, cells in rows:
        speed, milliseconds, floor, ratio = map(float, cells.split("|")[1:])
        assert speed > 0 and milliseconds > floor and ratio > 1
    assert re.search(r"from image 10 to 20 \(-?\d+ bytes per image", result.stdout)

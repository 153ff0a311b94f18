"""The kinds of files that a preparation writes, never seen half written."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aiparsing_d2.whole_files import whole_file

__all__ = ["write_csv", "write_json", "write_png", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with whole_file(path) as file:
        file.write(text)


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write a JSON file."""
    with whole_file(path) as file:
        json.dump(value, file, indent=indent)
        file.write("\n")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table as comma-separated values."""
    with whole_file(path) as file:
        csv.writer(file).writerows([header, *rows])


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a uint8 array (H, W) as a grey PNG."""
    with whole_file(path, "wb") as file:
        Image.fromarray(pixels).save(file, format="PNG")

"""Writing files that are never seen half written."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

__all__ = ["replaced", "write_csv", "write_json", "write_png", "write_text"]


@contextlib.contextmanager
def replaced(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes its place, and its name, only once it has been written without error.

    Args:
        path: the file; folders above it are made, and an earlier file is replaced.
        mode: "w" for UTF-8 text, "wb" for bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with open(part, mode, **text) as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with replaced(path) as file:
        file.write(text)


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write a JSON file."""
    with replaced(path) as file:
        json.dump(value, file, indent=indent)
        file.write("\n")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table as comma-separated values."""
    with replaced(path) as file:
        csv.writer(file).writerows([header, *rows])


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a uint8 array (H, W) as a grey PNG."""
    with replaced(path, "wb") as file:
        Image.fromarray(pixels).save(file, format="PNG")

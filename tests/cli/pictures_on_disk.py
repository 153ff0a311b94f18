"""Pictures to parse, and what there is afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def save_picture(path: Path, height: int = 80, width: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(0).integers(0, 256, (height // 10, width // 10, 3))
    pixels = blocks.repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def names_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}

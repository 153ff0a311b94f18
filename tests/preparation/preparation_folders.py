"""Data set folders small enough to check by hand, in the layouts of the three archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

# Two people side by side: number 1 has a face (13) and arms (14, 15), number 3 a left leg (16).
CATEGORY_MAP = np.array(
    [
        [0, 13, 13, 0, 0, 0],
        [14, 13, 15, 0, 16, 16],
        [14, 13, 0, 0, 0, 16],
        [0, 0, 0, 0, 0, 0],
    ],
    dtype=np.uint8,
)
HUMAN_MAP = np.array(
    [
        [0, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 3, 3],
        [1, 1, 0, 0, 0, 3],
        [0, 0, 0, 0, 0, 0],
    ],
    dtype=np.uint8,
)
# class + 20 * (human - 1)
INSTANCE_MAP = np.array(
    [
        [0, 13, 13, 0, 0, 0],
        [14, 13, 15, 0, 56, 56],
        [14, 13, 0, 0, 0, 56],
        [0, 0, 0, 0, 0, 0],
    ],
    dtype=np.uint8,
)
INSTANCE_TABLE = "13 13 1\n14 14 1\n15 15 1\n56 16 3\n"

# Two people of LV-MHP-v2, the second in front of the first: faces (3) and tee-shirts (12).
FIRST_PERSON = np.array([[0, 3, 3, 0], [0, 12, 12, 12], [0, 12, 12, 12]], dtype=np.uint8)
SECOND_PERSON = np.array([[0, 0, 3, 3], [0, 0, 12, 58], [0, 0, 0, 0]], dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, kind: str | None = None) -> None:
    """Write a picture of the kind that its suffix says, or of another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format=kind)


def put_suffixes_in_upper_case(root: Path) -> None:
    """Rename all files but the lists."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        if path.suffix != ".txt" or "Instance_ids" in path.parts:
            path.rename(path.with_suffix(path.suffix.upper()))


def red(labels: np.ndarray) -> np.ndarray:
    """RGB with the labels in the red channel."""
    return np.stack([labels, 0 * labels, 0 * labels], axis=-1)


def add_cihp_image(root: Path, split: str, image_id: str) -> None:
    folder = root / {"train": "Training", "val": "Validation"}[split]
    add_labels(folder, image_id)
    save(folder / "Images" / f"{image_id}.jpg", np.zeros((4, 6, 3), dtype=np.uint8))
    with open(root / f"{split}_id.txt", "a", encoding="utf-8") as file:
        file.write(f"{image_id}\n")


def add_labels(folder: Path, name: str) -> None:
    save(folder / "Category_ids" / f"{name}.png", CATEGORY_MAP)
    save(folder / "Human_ids" / f"{name}.png", HUMAN_MAP)
    save(folder / "Instance_ids" / f"{name}.png", INSTANCE_MAP)
    (folder / "Instance_ids" / f"{name}.txt").write_text(INSTANCE_TABLE, encoding="utf-8")


def make_cihp(root: Path) -> Path:
    """Training images "0000001" and "0000002", both of the two people."""
    add_cihp_image(root, "train", "0000001")
    add_cihp_image(root, "train", "0000002")
    return root


def make_lv_mhp_v2(root: Path) -> Path:
    """Training images "10" and "11", both of the two people."""
    for image_id in ("10", "11"):
        save(root / "train" / "images" / f"{image_id}.jpg", np.zeros((3, 4, 3), dtype=np.uint8))
        for number, person in enumerate((FIRST_PERSON, SECOND_PERSON), start=1):
            name = f"{image_id}_02_{number:02d}.png"
            save(root / "train" / "parsing_annos" / name, red(person))
    (root / "list").mkdir()
    (root / "list" / "train.txt").write_text("10\n11\n", encoding="utf-8")
    return root


def make_vip(root: Path) -> Path:
    """Frames 1 and 26 of the training video "videos3", and frame 2, which is not annotated."""
    for frame in (1, 2, 26):
        name = f"videos3/{frame:012d}"
        save(root / "Images" / f"{name}.jpg", np.zeros((4, 6, 3), dtype=np.uint8))
        if frame != 2:
            add_labels(root / "Annotations", name)
    (root / "lists").mkdir()
    (root / "lists" / "train_id.txt").write_text(
        "videos3/000000000001\nvideos3/000000000026\n", encoding="utf-8"
    )
    return root


MAKERS = {"cihp": make_cihp, "lv_mhp_v2": make_lv_mhp_v2, "vip": make_vip}

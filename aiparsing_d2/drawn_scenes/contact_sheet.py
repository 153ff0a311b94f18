"""A sheet of drawn scenes beside their labels, to look at."""

import numpy as np

from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

from .scene import DrawnScene, check_seed, draw_scene

_GAP = 6


def colour_labels(category_map: np.ndarray) -> np.ndarray:
    """CIHP's colours of a part map (H, W): uint8 RGB (H, W, 3)."""
    return np.array(CIHP_PART_LABELS.colors, dtype=np.uint8)[category_map]


def _cell(scene: DrawnScene) -> np.ndarray:
    return np.concatenate([scene.image, colour_labels(scene.category_map)], axis=1)


def draw_contact_sheet(
    seed: int, rows: int = 4, columns: int = 3, height: int = 240, width: int = 320
) -> np.ndarray:
    """Draw ``rows * columns`` scenes, each beside the colouring of its labels.

    Returns:
        uint8 RGB image.

    Raises:
        ValueError: the seed is negative.
    """
    check_seed(seed)
    cell_size = (rows * (height + _GAP) - _GAP, columns * (2 * width + _GAP) - _GAP, 3)
    sheet = np.full(cell_size, 255, dtype=np.uint8)
    for index in range(rows * columns):
        scene = draw_scene(np.random.default_rng([seed, index]), height, width)
        top = index // columns * (height + _GAP)
        left = index % columns * (2 * width + _GAP)
        sheet[top : top + height, left : left + 2 * width] = _cell(scene)
    return sheet

"""An exported file against the model it was made from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .graph_formats import RunGraph
from .image_parser import ImageParser

__all__ = ["check_graph", "check_pictures"]

# Largest difference of an output: float32 rounds differently in other orders of summation.
_TOLERANCES = {"boxes": 0.05, "part_logits": 0.01}  # pixels, logits
_SCORE_TOLERANCE = 1e-3

# People of whom a graph is run with.
_NUMBERS = (0, 1, 3)


def check_pictures(short_side: int) -> list[np.ndarray]:
    """Draw pictures of other sizes than the example the graph was made with, RGB.

    Args:
        short_side: of pictures as the model is used to.
    """
    generator = np.random.default_rng(0)
    pictures = []
    for height, width in ((1.0, 1.4), (1.25, 1.0), (1.1, 1.1)):
        height, width = round(height * short_side), round(width * short_side)
        blocks = generator.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
        pictures.append(blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width].copy())
    return pictures


@torch.no_grad()
def check_graph(parser: ImageParser, run: RunGraph, pictures: Sequence[np.ndarray]) -> list[int]:
    """Compare a graph's outputs with the model's.

    Each picture is parsed with thresholds that leave 0, 1, 3 and all people, as far as there are
    as many.

    Args:
        parser: of the model.
        run: the graph.
        pictures: uint8 (H, W, 3), RGB, resized as for the model.

    Returns:
        The numbers of people with whom it was run.

    Raises:
        ValueError: an output differs.
    """
    numbers = []
    for picture in pictures:
        outputs = parser(torch.from_numpy(picture), torch.tensor(0.0))
        scores = outputs[parser.output_names.index("scores")].numpy()
        for threshold in _thresholds(scores):
            expected = parser(torch.from_numpy(picture), torch.tensor(threshold))
            outputs = run(picture, threshold)
            for name, output, value in zip(parser.output_names, outputs, expected, strict=True):
                _compare(name, output, value.numpy(), picture.shape[:2])
            numbers.append(len(expected[0]))
    return sorted(numbers)


def _thresholds(scores: np.ndarray) -> list[float]:
    """Thresholds that leave some people, far from every score; ``scores`` descend."""
    thresholds = [0.0]
    for number in _NUMBERS:
        if number < len(scores):
            above = scores[number - 1] if number else 1.0
            thresholds.append(float(above + scores[number]) / 2)
    return thresholds


def _compare(
    name: str, output: np.ndarray, expected: np.ndarray, image_size: tuple[int, int]
) -> None:
    where = f"of a picture of {image_size[0]} x {image_size[1]} (height x width) with "
    where += f"{len(expected)} people"
    if output.shape != expected.shape:
        raise ValueError(
            f"the exported graph's {name} {where} have the shape {output.shape}, the model's "
            f"{expected.shape}"
        )
    difference = float(np.abs(output - expected).max(initial=0))
    if not difference <= _TOLERANCES.get(name, _SCORE_TOLERANCE):
        raise ValueError(f"the exported graph's {name} {where} differ by {difference:.2g}")

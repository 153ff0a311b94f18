"""Speed of exported files beside the model they were made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from aiparsing_d2.export import FORMATS, ImageParser, export_predictor
from aiparsing_d2.inference import ParsingPredictor

from .measured_pipeline import draw_picture
from .measuring import Case, Clock, Settings
from .report import Report, shown_ratio, shown_time

__all__ = ["measure_exports"]

_EAGER = "eager"
_THRESHOLD = 0.1

Run = Callable[[np.ndarray, float], Sequence[Sized]]


def measure_exports(
    settings: Settings,
    config: str,
    weights: str | None,
    formats: Sequence[str],
    image_sizes: Sequence[tuple[int, int]],
) -> Report:
    """Measure graphs on the CPU, from pixels to part logits.

    Args:
        settings: see there.
        config: a name of the model zoo.
        weights: a file; None: those of the model zoo.
        formats: of ``FORMATS``.
        image_sizes: (height, width) of the drawn picture before it is resized, in pixels.

    Raises:
        ValueError: a graph does not give what the model gives.
    """
    report = Report(
        notes=[
            f"{config}, from the pixels of a drawn picture to the part logits of those with a score"
            f" of {_THRESHOLD} at least. A graph's outputs were compared with the model's before,"
            " with several thresholds: boxes differ by 0.05 pixels at most, logits by 0.01, scores"
            " by 0.001."
        ]
    )
    predictor = ParsingPredictor(config, weights, device="cpu", precision=None)
    parser = ImageParser(predictor.model, predictor.image_format).eval()
    with TemporaryDirectory(prefix="benchmark_export_") as name:
        folder = Path(name)
        pictures = {size: _pixels(predictor, folder, size) for size in image_sizes}
        graphs: dict[str, Run] = {_EAGER: torch.no_grad()(_run_eagerly(parser))}
        for format_name in formats:
            try:
                (file, *_), _ = export_predictor(
                    predictor, folder / format_name, format_name, pictures=list(pictures.values())
                )
                graphs[format_name] = FORMATS[format_name].load(file)
            except ImportError as error:
                report.left_out.append(f"{format_name}: {error}")
        for size, pixels in pictures.items():
            people = len(graphs[_EAGER](pixels, _THRESHOLD)[0])
            cases = {name: _case(name, graph, pixels) for name, graph in graphs.items()}
            shared = {
                "image_size": list(size),
                "input_size": list(pixels.shape[:2]),
                "people": people,
            }
            report.add_group(settings, cases, shared, reference=_EAGER)
    report.columns = {
        "picture": lambda row: "{}x{}".format(*row["image_size"]),
        "input": lambda row: "{}x{}".format(*row["input_size"]),
        "people": lambda row: row["people"],
        "way": lambda row: row["way"],
        "ms": lambda row: shown_time(row, "ms", ".1f"),
        f"time / {_EAGER}'s": shown_ratio,
    }
    return report


def _pixels(predictor: ParsingPredictor, folder: Path, size: tuple[int, int]) -> np.ndarray:
    """Resize a drawn picture for the model: uint8 (H, W, 3), RGB."""
    file = folder / "picture.jpg"
    draw_picture(file, size)
    pixels = predictor.prepare(file).tensor.numpy().transpose(1, 2, 0)
    return np.ascontiguousarray(pixels if predictor.image_format == "RGB" else pixels[..., ::-1])


def _run_eagerly(parser: ImageParser) -> Run:
    return lambda pixels, threshold: parser(torch.from_numpy(pixels), torch.tensor(threshold))


def _case(name: str, graph: Run, pixels: np.ndarray) -> Case:
    def run(clock: Clock) -> None:
        graph(pixels, _THRESHOLD)
        clock.mark("graph")

    return Case(run, {"way": name})

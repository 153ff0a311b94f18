"""From a predictor to files that run without this package."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from aiparsing_d2.inference import ParsingPredictor
from aiparsing_d2.whole_files import check_writable, whole_file

from .description import describe
from .graph_formats import FORMATS
from .image_parser import ImageParser
from .verification import check_graph, check_pictures

__all__ = ["FORMATS", "export_predictor"]

_RUNNER = "parse_onnx.py"


def export_predictor(
    predictor: ParsingPredictor,
    folder: Path,
    format_name: str = "onnx",
    *,
    pictures: Sequence[np.ndarray] | None = None,
    overwrite: bool = False,
    report: Callable[[str], object] = lambda step: None,
) -> tuple[list[Path], list[int]]:
    """Write a model as a graph, and what one must know to use it.

    The graph is :class:`ImageParser` on the CPU, in float32. Its file is loaded again and compared
    with the model before it takes its name.

    Args:
        predictor: with the model, which it keeps as built (``precision=None``); left as it is.
        folder: for the files.
        format_name: of ``FORMATS``.
        pictures: uint8 (H, W, 3), RGB, to compare on, resized as for the model; drawn ones if not
            given.
        overwrite: whether earlier files may be replaced.
        report: is given a line about each step that takes long, before it, and about each file.

    Returns:
        The files: the graph, its JSON and, for ONNX, a script that needs neither torch nor this
        package; and the numbers of people with whom graph and model were compared.

    Raises:
        FileExistsError: there are files already.
        OSError: the folder cannot be written to.
        ImportError: packages of the extra "export" are missing.
        ValueError: the model cannot be exported, or the file does not do what the model does.
    """
    if predictor.precision is not None:
        raise ValueError(
            f"this predictor's model is optimised for {predictor.precision}; a graph is made of "
            "the model as it is: ParsingPredictor(..., precision=None)"
        )
    graph_format = FORMATS[format_name]
    target = folder / graph_format.file_name
    files = [target, folder / f"{target.name}.json"]
    if format_name == "onnx":
        files.append(folder / _RUNNER)
    for file in files:
        if file.exists() and not overwrite:
            raise FileExistsError(f"{file} exists; give another folder, or allow to overwrite it")
    parser = ImageParser(copy.deepcopy(predictor.model).cpu().float(), predictor.image_format)
    description = describe(predictor, parser, format_name, target.name)
    if pictures is None:
        pictures = check_pictures(description["resize"]["short_side"])
    check_writable(folder)
    # Elsewhere: the folder is made for what is kept.
    with tempfile.TemporaryDirectory() as elsewhere:
        file = Path(elsewhere, target.name)
        report(f"writing the model as {format_name}, which takes longest")
        try:
            graph_format.write(parser.eval(), file)
        except ImportError:
            raise
        except Exception as error:
            raise ValueError(
                f"torch could not write this model as {format_name}: {error}"
            ) from error
        report(f"comparing {target.name} with the model on {len(pictures)} pictures")
        numbers = check_graph(parser, graph_format.load(file), pictures)
        with whole_file(target, "wb") as stream, open(file, "rb") as graph:
            shutil.copyfileobj(graph, stream)
    with whole_file(files[1]) as stream:
        json.dump(description, stream, indent=1)
    if format_name == "onnx":
        shutil.copyfile(Path(__file__).with_name(_RUNNER), folder / _RUNNER)
    for file in files:
        report(f"written: {file}, {file.stat().st_size:,} bytes")
    return files, numbers

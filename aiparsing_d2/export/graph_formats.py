"""The formats of graphs: how each is written, and read again to be checked."""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import numpy as np
import timm.layers.padding
import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn

if TYPE_CHECKING:
    from .image_parser import ImageParser

__all__ = ["FORMATS", "Format", "RunGraph", "can_export_programs"]

RunGraph = Callable[[np.ndarray, float], Sequence[np.ndarray]]
"""From an image and a threshold to the outputs of :meth:`ImageParser.forward`."""

_EXAMPLE_SIZE = (288, 352)


class Format(NamedTuple):
    """How a graph is written to a file and loaded from there."""

    file_name: str
    write: Callable[[ImageParser, Path], None]
    load: Callable[[Path], RunGraph]


def _example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (*_EXAMPLE_SIZE, 3), generator=generator, dtype=torch.uint8)
    return image, torch.tensor(0.0)


@torch.no_grad()
def _write_torchscript(parser: ImageParser, path: Path) -> None:
    with warnings.catch_warnings():
        # That the number of boxes is a constant: only to Detectron2's checks, which are left out.
        warnings.simplefilter("ignore")
        graph = torch.jit.trace(parser, _example(), check_trace=False)
    buffer = io.BytesIO()
    torch.jit.save(graph, buffer)
    path.write_bytes(buffer.getvalue())


def _load_torchscript(path: Path) -> RunGraph:
    return _run_module(torch.jit.load(path))


# An argument of torch.export.export since about torch 2.9. Without it, it cannot be proved that
# adjacent levels' maps fit, as images are not padded to a multiple.
_DEFERRED = "prefer_deferred_runtime_asserts_over_guards"


def can_export_programs() -> bool:
    """Whether torch is new enough for the formats that are made by torch.export."""
    return _DEFERRED in inspect.signature(torch.export.export).parameters


@torch.no_grad()
def _export_program(parser: ImageParser) -> torch.export.ExportedProgram:
    if not can_export_programs():
        raise ValueError(
            f"torch {torch.__version__} is too old for it (2.9 is not); torchscript can be written "
            "with any"
        )
    height, width = (torch.export.Dim(name, min=parser.least_side) for name in ("height", "width"))
    with _symbolic_sizes():
        return torch.export.export(
            parser,
            _example(),
            dynamic_shapes=({0: height, 1: width}, None),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def _write_torch_export(parser: ImageParser, path: Path) -> None:
    torch.export.save(_export_program(parser), path)


def _load_torch_export(path: Path) -> RunGraph:
    return _run_module(torch.export.load(path).module())


def _run_module(graph: nn.Module) -> RunGraph:
    @torch.no_grad()
    def run(image: np.ndarray, score_threshold: float) -> list[np.ndarray]:
        outputs = graph(torch.from_numpy(image), torch.tensor(score_threshold))
        return [output.numpy() for output in outputs]

    return run


def _write_onnx(parser: ImageParser, path: Path) -> None:
    onnxscript, _ = _onnx_packages()
    op = onnxscript.opset18

    def stable_sort(
        x: Any, *, stable: bool = False, dim: int = -1, descending: bool = False
    ) -> Any:
        # TopK takes the lower index of equal values, so its order is that of a stable sort.
        size = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
        return op.TopK(x, size, axis=dim, largest=int(descending), sorted=1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _export_program(parser),
            dynamo=True,
            verbose=False,
            input_names=["image", "score_threshold"],
            output_names=parser.output_names,
            custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
        )
    program.save(str(path))


def _load_onnx(path: Path) -> RunGraph:
    _, onnxruntime = _onnx_packages()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: np.ndarray, score_threshold: float) -> list[np.ndarray]:
        inputs = {"image": image, "score_threshold": np.array(score_threshold, np.float32)}
        return session.run(None, inputs)

    return run


def _onnx_packages() -> tuple[Any, Any]:
    try:
        import onnx  # noqa: F401  read by torch
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise ImportError(
            f"export to ONNX needs {error.name}: pip install 'aiparsing_d2[export]'"
        ) from error
    return onnxscript, onnxruntime


@contextlib.contextmanager
def _symbolic_sizes() -> Iterator[None]:
    """While open, the layers of the libraries reckon with sizes that are not known yet."""

    def conv_forward(self: Conv2d, x: Tensor) -> Tensor:
        # Detectron2 v0.6 asks whether the batch is empty, which a graph cannot answer.
        x = nn.Conv2d.forward(self, x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)

    def get_same_padding(size: Any, kernel_size: int, stride: int, dilation: int) -> Any:
        # timm divides floats, which torch does not simplify: terms grow with each layer.
        spanned = (-(size // -stride) - 1) * stride + (kernel_size - 1) * dilation + 1
        return torch.sym_max(spanned - size, 0)

    with (
        mock.patch.object(Conv2d, "forward", conv_forward),
        mock.patch.object(timm.layers.padding, "get_same_padding", get_same_padding),
    ):
        yield


FORMATS = {
    "onnx": Format("model.onnx", _write_onnx, _load_onnx),
    "torchscript": Format("model.torchscript", _write_torchscript, _load_torchscript),
    "torch-export": Format("model.pt2", _write_torch_export, _load_torch_export),
}
"""By the name of the format."""

"""``export``: write a trained model as a file that runs without this package.

::

    python -m aiparsing_d2 export --output exported/
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .model_arguments import add_config_arguments

__all__ = ["add_parser", "run"]

_EPILOG = """\
The graph takes a picture of any size and gives any number of people. A JSON file beside it says how
a picture is resized for it and what its outputs are; beside an ONNX file lies parse_onnx.py, which
parses pictures with numpy, onnxruntime and Pillow alone. The file is loaded again and compared
with the model before it is kept. ONNX needs pip install 'aiparsing_d2[export]'.

examples:
  aiparsing export --output exported/
  aiparsing export --model demo/aiparsing_tiny_FPN_drawn_cihp --format torchscript \\
      --weights output/train_demo/model_final.pth --output exported/
"""

# Of aiparsing_d2.export.FORMATS, which imports torch.
_FORMATS = ("onnx", "torchscript", "torch-export")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "export",
        help="write a model as ONNX, TorchScript or torch.export",
        description="Write a model as a file that runs without this package.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--format", choices=_FORMATS, default="onnx", help="of the graph; default: %(default)s"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the files")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier files")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from aiparsing_d2.export import export_predictor
    from aiparsing_d2.inference import ParsingPredictor
    from aiparsing_d2.inference.predictor import DEFAULT_CONFIG

    def report(step: str) -> None:
        print(f"aiparsing export: {step}", file=sys.stderr, flush=True)

    try:
        report("loading the model")
        predictor = ParsingPredictor(
            args.config_file or args.model or DEFAULT_CONFIG,
            args.weights,
            device="cpu",
            precision=None,
        )
        files, numbers = export_predictor(
            predictor, args.output, args.format, overwrite=args.overwrite, report=report
        )
    except (ImportError, OSError, ValueError) as error:
        print(f"aiparsing export: {error}", file=sys.stderr)
        return 1
    print(
        f"{', '.join(map(str, files))}: as the model on {len(numbers)} drawn inputs with "
        f"{', '.join(map(str, sorted(set(numbers))))} people"
    )
    return 0

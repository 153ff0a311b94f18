"""``convert-weights``: bring other projects' weights under this project's names.

::

    # the authors' checkpoint of the whole model
    python -m aiparsing_d2 convert-weights authors model_final.pth output/authors_R_50_cihp.pth \
        --config-file configs/cihp/aiparsing_R_50_FPN_cihp_authors.py

    # an ImageNet backbone of torchvision
    python -m aiparsing_d2 convert-weights torchvision resnet50.pth output/torchvision_R_50.pth \
        --config-file configs/cihp/aiparsing_R_50_FPN_cihp_75ep.py \
        --set model.backbone.bottom_up.stages.stride_in_1x1=False

Detectron2's own .pkl and .pth files need no conversion.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

__all__ = ["add_parser", "run"]

_SOURCES = {
    "authors": "a checkpoint published by the paper's authors (the whole model)",
    "torchvision": "a ResNet or ResNeXt of torchvision (the backbone)",
}

_EPILOG = """\
Every tensor of IN has to fit a parameter of the config's model and, from the authors, every
parameter has to be filled; else nothing is written. What IN holds besides (an optimiser's state, an
iteration, a classifier) is named and dropped. Start from the result, or evaluate it, with
train.init_checkpoint=OUT.

examples:
  aiparsing convert-weights authors model_final.pth output/authors_R_50_cihp.pth \\
      --config-file cihp/aiparsing_R_50_FPN_cihp_authors
  aiparsing convert-weights torchvision resnet50.pth output/torchvision_R_50.pth \\
      --config-file cihp/aiparsing_R_50_FPN_cihp_75ep \\
      --set model.backbone.bottom_up.stages.stride_in_1x1=False
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "convert-weights",
        help="bring weights of the paper's authors or of torchvision under this project's names",
        description="Convert other projects' weights.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sources = parser.add_subparsers(title="sources", metavar="SOURCE", required=True)
    for name, title in _SOURCES.items():
        source = sources.add_parser(
            name,
            help=title,
            description=f"Convert {title}.",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        source.add_argument("input", type=Path, metavar="IN", help="a .pth file")
        source.add_argument("output", type=Path, metavar="OUT", help="the .pth file to write")
        source.add_argument(
            "--config-file",
            required=True,
            metavar="FILE",
            help="LazyConfig the weights are for, or its name in the zoo",
        )
        source.add_argument(
            "--set",
            dest="overrides",
            nargs="+",
            default=[],
            metavar="KEY=VALUE",
            help="overrides of the config",
        )
        source.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
        source.add_argument(
            "--verbose", action="store_true", help="print every tensor's old and new name"
        )
        source.set_defaults(run=run, source=name)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    try:
        _convert(args)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _convert(args: argparse.Namespace) -> None:
    if args.output.suffix != ".pth":
        raise ValueError(
            f"{args.output} has to end with .pth: Detectron2's checkpointer reads files with other "
            "endings, such as .pkl, as other formats"
        )
    if args.output.exists() and not args.overwrite:
        raise FileExistsError(f"{args.output} exists; give another name, or --overwrite")

    import torch
    from detectron2.config import instantiate

    from aiparsing_d2 import checkpoint
    from aiparsing_d2.checkpoint.settings import differing_settings, differing_stride
    from aiparsing_d2.engine import apply_overrides, load_lazy_config
    from aiparsing_d2.model_zoo import find_config_file

    file = checkpoint.read_weights(args.input)
    config = apply_overrides(load_lazy_config(find_config_file(args.config_file)), args.overrides)
    if "model" not in config:
        raise ValueError(f"{args.config_file} has no model; give a config of a whole run")
    # Shapes are enough.
    with torch.device("meta"):
        model = instantiate(config.model)

    if args.source == "authors":
        conversion, architecture = checkpoint.convert_authors(file, model)
        differing = differing_settings(config, checkpoint.AUTHORS_SETTINGS)
        # Where the authors' ResNeXt has its stride is not known.
        differing += differing_stride(model, in_1x1=True, grouped=False)
    else:
        conversion, architecture = checkpoint.convert_torchvision(file, model), []
        differing = differing_settings(config, checkpoint.TORCHVISION_SETTINGS)
        differing += differing_stride(model, in_1x1=False)
    checkpoint.write_weights(args.output, conversion.weights)

    if args.verbose:
        for target, source in sorted(conversion.sources.items()):
            print(f"{source} -> {target}")
    for line in architecture:
        print(line)
    if conversion.dropped:
        print(f"not carried over: {', '.join(conversion.dropped)}")
    print(
        f"{args.output}: {len(conversion.weights)} of the model's {len(model.state_dict())} tensors"
    )
    if differing:
        print(
            f"The weights were trained with other settings than those of {args.config_file}. "
            "To train or test with them, set",
            *differing,
            sep="\n  ",
        )

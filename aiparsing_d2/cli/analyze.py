"""``analyze``: count a model's parameters, multiply-adds and activations.

::

    python -m aiparsing_d2 analyze --config-file cihp/aiparsing_R_50_FPN_cihp_75ep
"""

from __future__ import annotations

import argparse
import logging
import sys

from aiparsing_d2.counted import counted

from .argument_types import positive

__all__ = ["add_parser", "run"]

_EPILOG = """\
Needs no weights and no data. The layers run once, at test, on one black image and a given number of
people. Left out is what costs little or depends on the pixels: box selection, RoI pooling, pasting.

examples:
  aiparsing analyze --config-file cihp/aiparsing_R_50_FPN_cihp_75ep
  aiparsing analyze --config-file demo/aiparsing_tiny_FPN_drawn_cihp --image-size 96 128 \\
      --num-people 10 model.roi_heads.parsing_pooler.output_size=16
  aiparsing analyze --config-file yaml/cihp/aiparsing_R_50_FPN_cihp_75ep.yaml \\
      MODEL.RESNETS.DEPTH 101
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "analyze",
        help="count a model's parameters, multiply-adds and activations",
        description="Count a model's parameters, multiply-adds and activations, beside the paper's "
        "Tables V and IX.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file",
        required=True,
        metavar="FILE",
        help="a LazyConfig or a yacs config, or its name in the zoo",
    )
    parser.add_argument(
        "--image-size",
        nargs=2,
        type=positive,
        metavar=("HEIGHT", "WIDTH"),
        help="of the network's input, in pixels; default: of a 3:2 photo as the config resizes it "
        "at test, 800 1200 for the paper's models and 600 900 for AIParsing-light",
    )
    parser.add_argument(
        "--num-people",
        type=positive,
        default=4,
        metavar="N",
        help="boxes that are parsed (CIHP has 3.5 people an image); default: %(default)s",
    )
    parser.add_argument(
        "--num-proposals",
        type=positive,
        default=1000,
        metavar="N",
        help="boxes that reach the box head, if there is one; default: %(default)s",
    )
    parser.add_argument(
        "opts", nargs="*", metavar="key=value", help="overrides; of a yacs config KEY VALUE ..."
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from aiparsing_d2.analysis import layer_costs
    from aiparsing_d2.model_zoo import find_config_file

    # What a mistake in a config or an override leads to.
    config_errors = (
        AssertionError,
        HydraException,
        ImportError,
        KeyError,
        OmegaConfBaseException,
        OSError,
        SyntaxError,
        TypeError,
        ValueError,
        YAMLError,
    )
    # It logs what the message below says.
    logging.getLogger("detectron2.config.instantiate").setLevel(logging.CRITICAL)
    try:
        cfg = layer_costs.read_config(find_config_file(args.config_file), args.opts)
        model = layer_costs.build_untrained(cfg)
        height, width = args.image_size or layer_costs.image_size_at_test(cfg)
    except config_errors as error:
        message = " ".join(str(error).split())
        print(f"error: {args.config_file}: {type(error).__name__}: {message}", file=sys.stderr)
        return 1
    people = counted(args.num_people, "person")
    print(f"Running one image of {height} x {width} pixels with {people} ...")
    costs = layer_costs.analyze(model, (height, width), args.num_people, args.num_proposals)
    print(f"\n{layer_costs.cost_table(costs)}\n\n{layer_costs.paper_table(model, costs)}")
    return 0

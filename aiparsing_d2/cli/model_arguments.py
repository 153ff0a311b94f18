"""The arguments of commands that parse pictures, and the predictor that they describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiparsing_d2.inference import ParsingPredictor

__all__ = [
    "add_config_arguments",
    "add_model_arguments",
    "make_predictor",
    "predictor_arguments",
]


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a model and its weights."""
    config = parser.add_mutually_exclusive_group()
    config.add_argument(
        "--model",
        metavar="NAME",
        help="config of the model zoo; default: photographs/aiparsing_lite0_FPN_ccp",
    )
    config.add_argument("--config-file", metavar="FILE", help="LazyConfig or yacs config")
    parser.add_argument(
        "--weights", metavar="FILE", help="default: those that the package carries for the model"
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that :func:`make_predictor` reads."""
    add_config_arguments(parser)
    parser.add_argument("--device", help="e.g. cpu; default: a GPU where there is one")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="what the network computes in; default: fp32; auto: bf16 on CPUs that are fast in it",
    )
    parser.add_argument(
        "--threshold",
        type=_threshold,
        metavar="T",
        help="lowest score of a person, in 0..1; default: 0.38; lower finds more people, and more "
        "that are none",
    )


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1")
    return value


def predictor_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Give what the command line says of :class:`~aiparsing_d2.inference.ParsingPredictor`."""
    arguments = {
        "config": args.model or args.config_file,
        "weights": args.weights,
        "device": args.device,
        "score_threshold": args.threshold,
        "precision": args.precision,
    }
    # What is not given is the predictor's own default.
    return {key: value for key, value in arguments.items() if value is not None}


def make_predictor(args: argparse.Namespace) -> ParsingPredictor:
    """Load the model that the arguments describe.

    Raises:
        ValueError, OSError: as :class:`~aiparsing_d2.inference.ParsingPredictor` does.
    """
    from aiparsing_d2.inference import ParsingPredictor

    return ParsingPredictor(**predictor_arguments(args))

"""``train`` and ``eval``: train the model of a LazyConfig, or evaluate it, on CPU or GPU.

::

    python -m aiparsing_d2 train --config-file cihp/aiparsing_R_50_FPN_cihp_75ep --num-gpus 8
    torchrun --nproc_per_node 8 -m aiparsing_d2 train --config-file my_config.py
    python -m aiparsing_d2 eval --config-file my_config.py --weights output/my_run/model_best.pth

``train_net.py`` in a clone is ``train``.
"""

from __future__ import annotations

import argparse
import sys
import traceback

__all__ = ["add_parser", "run"]

_PROCESSES = """\
in processes that torchrun starts, on one machine or several, on GPUs or the CPU:
  torchrun --nproc_per_node 8 -m aiparsing_d2 {command} --config-file ...
"""

_TRAIN_EPILOG = f"""\
train on one machine:
  aiparsing train --config-file cihp/aiparsing_R_50_FPN_cihp_75ep --num-gpus 8
{_PROCESSES.format(command="train")}try all that it takes, for a minute, before:
  the same with --dry-run
continue an interrupted run:
  the same with --resume
another batch size, with rate, length and periods scaled alike:
  append train.scale_to_batch_size=2
override any key:
  append e.g. train.device=cpu dataloader.train.total_batch_size=4
  (a key that the config does not have is refused; +key=value adds it)

example, on drawn scenes (python -m aiparsing_d2.drawn_scenes --output datasets/drawn_cihp):
  aiparsing train --config-file demo/aiparsing_tiny_FPN_drawn_cihp train.max_iter=20
"""

_EVAL_EPILOG = f"""\
Figures are printed, and written with the results to the folder eval/ in train.output_dir.

{_PROCESSES.format(command="eval")}with test-time augmentation too:
  append test_time_augmentation.enabled=True

example, of the run that 'aiparsing train --help' ends with:
  aiparsing eval --config-file demo/aiparsing_tiny_FPN_drawn_cihp \\
      --weights output/train_demo/model_final.pth
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the commands to the parser of ``aiparsing``."""
    train = subparsers.add_parser(
        "train",
        help="train the model of a config",
        description="Train the model of a LazyConfig, on CPU or GPU.",
        epilog=_TRAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    train.add_argument(
        "--eval-only", action="store_true", help="evaluate train.init_checkpoint, as eval does"
    )
    train.add_argument(
        "--dry-run",
        action="store_true",
        help="make every stage of the training once, write nothing that stays, and estimate time, "
        "memory and disk of the run",
    )
    _add_common_arguments(train)
    train.set_defaults(weights=None)

    evaluate = subparsers.add_parser(
        "eval",
        help="evaluate the model of a config",
        description="Evaluate the model of a LazyConfig on the data set of its dataloader.test.",
        epilog=_EVAL_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.add_argument(
        "--weights", metavar="FILE", help="what to evaluate; default: train.init_checkpoint"
    )
    _add_common_arguments(evaluate)
    evaluate.set_defaults(resume=False, eval_only=True, dry_run=False)


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="a LazyConfig, or its name in the zoo"
    )
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="GPUs per machine")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="RANK")
    parser.add_argument(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="where the processes meet; several machines need one, tcp://HOST:PORT",
    )
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the config")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run a command; returns the exit status."""
    import torch

    from aiparsing_d2.checkpoint import WeightFileError
    from aiparsing_d2.data.annotations import AnnotationError
    from aiparsing_d2.data.id_lists import IdListError
    from aiparsing_d2.data.json_files import JsonError
    from aiparsing_d2.engine import (
        ConfigError,
        NonFiniteError,
        dry_run,
        launch,
        resume_command,
        training,
    )
    from aiparsing_d2.model_zoo import find_config_file

    told = (
        *(ConfigError, NonFiniteError, OSError, WeightFileError),
        *(AnnotationError, IdListError, JsonError),
    )

    try:
        args.config_file = find_config_file(args.config_file)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.dry_run and (args.resume or args.eval_only):
        print("error: --dry-run is of a new training: leave the other flag out", file=sys.stderr)
        return 1
    if args.weights is not None:
        args.opts.append(f"train.init_checkpoint={_quoted(args.weights)}")
    try:
        launch(
            dry_run.main if args.dry_run else training.main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except dry_run.DryRunError as error:
        if not isinstance(error.__cause__, (*told, torch.cuda.OutOfMemoryError)):
            traceback.print_exception(error.__cause__)
        print(f"error: {error}", file=sys.stderr)
        return 1
    except told as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if args.dry_run:
            raise
        print(f"Interrupted. To go on: {resume_command()}", file=sys.stderr)
        return 130
    return 0


def _quoted(text: str) -> str:
    """Return a text as a value in Hydra's grammar, where backslashes count before quotes only."""
    return "'" + text.replace("'", r"\'") + "'"

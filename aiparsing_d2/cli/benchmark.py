"""``benchmark``: measure speed and memory of models, data sets and the evaluator.

::

    python -m aiparsing_d2 benchmark models --output output/benchmark
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .argument_types import not_negative, positive

if TYPE_CHECKING:
    from aiparsing_d2.analysis.measured_models import ModelSettings
    from aiparsing_d2.analysis.report import Report

__all__ = ["add_parser", "run"]

Measure: TypeAlias = "Callable[[argparse.Namespace, dict[str, Any]], Report]"

# Those of analysis, which is not imported for --help.
MODELS = ("aiparsing", "aiparsing-light", "parsing-rcnn", "mask-rcnn")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
INFERENCE_PRECISIONS = ("none", "fp32", "tf32", "bf16", "fp16")
EXPORT_FORMATS = ("onnx", "torchscript", "torch-export")
# The fast ones first: where the time is over, the slowest are left out.
TRAINING_PRECISIONS = ("bf16", "tf32", "fp32")

_HOW_INFER = """\
Needs no weights and no data: a picture is drawn, weights are random with a fixed seed, and the
given number of people takes the place of what the detector found, with drawn parts in the place of
the parsing branch's. Settings take turns. A ratio is the median of the ratios of neighbours in
time, with the least and the greatest; "tie" where these span 1.
"""

_HOW_MODELS = """\
Needs no weights and no data: pictures are drawn, weights are random with a fixed seed, and what
would depend on weights is forced. At test the detector's work is done, then the given number of
people takes the place of what it found; while training, boxes around the people join its proposals,
so that the branches train on as many RoIs as they do once the detector finds people.

Models take turns, so that what disturbs the machine disturbs all of them. A ratio is the median of
the ratios of neighbours in time, with the least and the greatest; "tie" where these span 1.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "benchmark",
        help="measure speed and memory of models, data sets and the evaluator",
        description="Measure speed and memory.",
        epilog="example:\n  aiparsing benchmark models --models aiparsing-light --people 4",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(title="what is measured", metavar="WHAT", required=True)
    for add in (
        _add_infer,
        _add_train,
        _add_models,
        _add_processes,
        _add_paste,
        _add_compose,
        _add_evaluate,
        _add_data,
        _add_export,
        _add_memory,
        _add_peak,
    ):
        add(kinds)


def _add_infer(kinds: argparse._SubParsersAction) -> None:
    parser = _add_kind(
        kinds,
        "infer",
        "a model's inference, stage by stage",
        f"{_HOW_INFER}\nexample:\n"
        "  aiparsing benchmark infer --people 1 5 --precisions none fp32 bf16",
    )
    _add_config(parser)
    _add_people(parser, [5])
    _add_image_sizes(parser)
    _add_inference_precisions(
        parser,
        ["none", "fp32"],
        "none: the model as its config builds it; tf32: fp32 with TF32 convolutions and products; "
        "the first one is what others are compared with; default: none fp32",
    )
    parser.add_argument(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        help="memory format; default: on CPUs, but for the model as built",
    )
    parser.add_argument(
        "--compile", action="store_true", help="by torch.compile, which takes minutes at first"
    )
    parser.add_argument(
        "--cuda-graphs",
        action="store_true",
        help="with --compile: backbone and detection head as CUDA graphs",
    )
    _add_against(parser)
    _add_plot(parser)
    _add_common(parser, _infer, repeats=5, max_seconds=600)


def _add_models(kinds: argparse._SubParsersAction) -> None:
    parser = _add_kind(
        kinds,
        "models",
        "inference, model beside model",
        f"{_HOW_MODELS}\nexample:\n  aiparsing benchmark models --output output/benchmark",
    )
    _add_people(parser, [1, 5, 20, 50])
    _add_model_arguments(parser, PRECISIONS)
    _add_common(parser, _models, repeats=10, max_seconds=80)


def _add_train(kinds: argparse._SubParsersAction) -> None:
    parser = _add_kind(
        kinds,
        "train",
        "a training step, model beside model",
        f"{_HOW_MODELS}\nexample:\n"
        "  aiparsing benchmark train --batch-sizes 2 8 --precisions tf32 bf16",
    )
    parser.add_argument(
        "--batch-sizes", type=positive, nargs="+", default=[2, 8, 16], metavar="N", help="images"
    )
    parser.add_argument(
        "--num-people", type=int, choices=range(1, 7), default=4, help="in each image"
    )
    _add_model_arguments(parser, TRAINING_PRECISIONS)
    _add_common(parser, _train, repeats=5, max_seconds=80)


def _add_processes(kinds: argparse._SubParsersAction) -> None:
    parser = _add_kind(
        kinds,
        "processes",
        "inference in several processes side by side",
        f"{_HOW_INFER}\nexample:\n  aiparsing benchmark processes --processes 1 2",
    )
    parser.add_argument(
        "--processes",
        type=positive,
        nargs="+",
        default=[1, 2],
        metavar="N",
        help="each with a model of its own; on a CPU they share PyTorch's threads; default: 1 2",
    )
    _add_config(parser)
    _add_people(parser, [5])
    _add_image_sizes(parser)
    _add_inference_precisions(parser, ["fp32"], "as of infer; default: fp32")
    _add_plot(parser)
    _add_common(parser, _processes, repeats=5, max_seconds=600)


def _add_paste(kinds: argparse._SubParsersAction) -> None:
    parser = _add_kind(
        kinds,
        "paste",
        "pasting people into the picture, beside a plain loop",
        "Drawn people, whose labels are compared before anything is timed.\n\n"
        "example:\n  aiparsing benchmark paste --people 5 50 --classes 20 59",
    )
    _add_people(parser, [1, 5, 20, 50])
    _add_image_sizes(parser)
    parser.add_argument(
        "--classes",
        type=int,
        choices=range(2, 257),
        nargs="+",
        default=[20],
        metavar="N",
        help="the background included; default: 20",
    )
    _add_against(parser)
    _add_plot(parser)
    _add_common(parser, _paste, repeats=5, max_seconds=600)


def _add_compose(kinds: argparse._SubParsersAction) -> None:
    parser = _add_kind(
        kinds,
        "compose",
        "composing a submission's pictures, beside a plain loop",
        "Drawn people, whose pictures are compared before anything is timed.\n\n"
        "example:\n  aiparsing benchmark compose --people 1 5 20 --image-size 400 500",
    )
    _add_people(parser, [1, 5, 20, 50])
    _add_image_sizes(parser)
    _add_against(parser)
    _add_plot(parser)
    _add_common(parser, _compose, repeats=20, max_seconds=80, on_cpu=True)


def _add_memory(kinds: argparse._SubParsersAction) -> None:
    parser = _add_kind(
        kinds,
        "memory",
        "peak memory of inference and of a training step",
        "Each number of people and of images has a process of its own.\n\n"
        "example:\n  aiparsing benchmark memory --people 1 20 --batch-sizes 2",
    )
    _add_config(parser)
    _add_people(parser, [1, 5, 20, 50])
    parser.add_argument(
        "--batch-sizes",
        type=positive,
        nargs="*",
        default=[2],
        metavar="N",
        help="images of a training step; default: 2",
    )
    _add_image_sizes(parser)
    _add_inference_precisions(
        parser, ["fp32"], "as of infer; training steps take bf16 or float32; default: fp32"
    )
    _add_plot(parser)
    _add_common(parser, _memory, repeats=5, max_seconds=600)


def _add_export(kinds: argparse._SubParsersAction) -> None:
    parser = _add_kind(
        kinds,
        "export",
        "exported files, beside the model they are made of",
        "Outputs are compared before anything is timed.\n\n"
        "example:\n  aiparsing benchmark export --formats torchscript",
    )
    parser.add_argument(
        "--config",
        default="photographs/aiparsing_lite0_FPN_ccp",
        metavar="NAME",
        help="of the model zoo; default: %(default)s",
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="default: those that the package carries for the config"
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=EXPORT_FORMATS,
        default=["onnx", "torchscript"],
        help="default: onnx torchscript",
    )
    _add_image_sizes(parser)
    _add_common(parser, _export, repeats=10, max_seconds=600, on_cpu=True)


def _add_peak(kinds: argparse._SubParsersAction) -> None:
    parser = _add_kind(
        kinds,
        "peak",
        "what the device computes and copies at most",
        "The limit that other measurements state shares of.\n\n"
        "example:\n  aiparsing benchmark peak --precisions fp32 bf16",
    )
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="default: all"
    )
    _add_common(parser, _peak, repeats=10, max_seconds=80)


def _add_data(kinds: argparse._SubParsersAction) -> None:
    parser = _add_kind(
        kinds,
        "data",
        "indexing a data set, and making training samples of it",
        "A data set in CIHP's layout is written to a temporary folder, a few drawn scenes over and "
        "over.\nMappers are timed in CPU time of one thread.\n\n"
        "example:\n  aiparsing benchmark data --images 500",
    )
    parser.add_argument(
        "--images", type=positive, default=5000, metavar="N", help="images of the data set"
    )
    parser.add_argument(
        "--size", type=positive, nargs=2, default=(400, 500), metavar=("H", "W"), help="in pixels"
    )
    parser.add_argument(
        "--mapped-images",
        type=positive,
        default=24,
        metavar="N",
        help="images that a mapper is timed on",
    )
    _add_repeats(parser, 5)
    _add_output(parser, _data)


def _add_evaluate(kinds: argparse._SubParsersAction) -> None:
    parser = _add_kind(
        kinds,
        "evaluate",
        "scoring images, and what it leaves in memory",
        "Made-up images are scored with all metrics, in CPU time. The floor is what any exact "
        "evaluator has\nto do at least: count the labels of every person in its window, and those "
        "of the image, once each.\n\n"
        "example:\n  aiparsing benchmark evaluate --images 200 --repeats 1",
    )
    for name, default, help in (
        ("--height", 400, "in pixels"),
        ("--width", 500, "in pixels"),
        ("--classes", 20, "the background included"),
        ("--persons", 4, "annotated people per image"),
        ("--predictions", 5, "predicted people per image"),
    ):
        parser.add_argument(name, type=positive, default=default, metavar="N", help=help)
    parser.add_argument(
        "--images",
        type=not_negative,
        default=5000,
        metavar="N",
        help="images of the memory figures; 0 leaves them out",
    )
    _add_repeats(parser, 7)
    _add_output(parser, _evaluate)


def _add_kind(
    kinds: argparse._SubParsersAction, name: str, what: str, epilog: str
) -> argparse.ArgumentParser:
    return kinds.add_parser(
        name,
        help=what,
        description=f"Measure {what}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_repeats(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--repeats",
        type=positive,
        default=default,
        metavar="N",
        help="the median of these is reported; default: %(default)s",
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        default="cihp/aiparsing_R_50_FPN_cihp_25ep",
        metavar="NAME",
        help="of the model zoo; default: %(default)s",
    )


def _add_people(parser: argparse.ArgumentParser, default: list[int]) -> None:
    parser.add_argument(
        "--people",
        type=positive,
        nargs="+",
        default=default,
        metavar="N",
        help=f"in the picture; default: {' '.join(map(str, default))}",
    )


def _add_image_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image-size",
        dest="image_sizes",
        action="append",
        type=positive,
        nargs=2,
        metavar=("H", "W"),
        help="in pixels; may be given several times; default: 800 1216",
    )


def _add_inference_precisions(
    parser: argparse.ArgumentParser, default: list[str], help: str
) -> None:
    parser.add_argument(
        "--precisions", nargs="+", choices=INFERENCE_PRECISIONS, default=default, help=help
    )


def _add_against(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--against",
        type=Path,
        metavar="CHECKOUT",
        help="compare with the version of the package in this folder: outputs first, then times",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        metavar="SHARE",
        help="by which the outputs of versions may differ: labels in the share of pixels, numbers "
        "in units of their standard deviation; default: %(default)s",
    )


def _add_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="a picture (.png, .pdf, ...) of how cost grows"
    )


def _add_model_arguments(parser: argparse.ArgumentParser, precisions: tuple[str, ...]) -> None:
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), help="default: all"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=precisions,
        default=list(precisions),
        help="tf32: float32 with TF32 convolutions and products; bf16, fp16: autocast; default: "
        "those that the device has",
    )
    parser.add_argument("--channels-last", action="store_true", help="memory format of the weights")
    parser.add_argument(
        "--image-size",
        type=positive,
        nargs=2,
        default=(800, 1216),
        metavar=("H", "W"),
        help="in pixels",
    )


def _add_common(
    parser: argparse.ArgumentParser,
    measure: Measure,
    repeats: int,
    max_seconds: float,
    on_cpu: bool = False,
) -> None:
    """Add what says where and how long, and which function measures.

    Args:
        parser: of the kind of measurement.
        measure: the function.
        repeats, max_seconds: defaults.
        on_cpu: whether it measures on the CPU only, whatever devices there are.
    """
    _add_repeats(parser, repeats)
    parser.add_argument(
        "--warm-up",
        type=not_negative,
        default=2,
        metavar="N",
        help="rounds before; default: %(default)s",
    )
    if on_cpu:
        parser.add_argument("--device", choices=("cpu",), default="cpu", help="the CPU only")
    else:
        parser.add_argument("--device", help="cpu or cuda; default: a GPU where there is one")
    parser.add_argument("--num-threads", type=positive, metavar="N", help="of PyTorch on the CPU")
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=max_seconds,
        metavar="S",
        help="no round is begun after these; what is missing is listed; default: %(default)s",
    )
    _add_output(parser, measure)


def _add_output(parser: argparse.ArgumentParser, measure: Measure) -> None:
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="for benchmark_WHAT.json and .md"
    )
    parser.set_defaults(run=run, measure=measure, what=parser.prog.split()[-1])


def run(args: argparse.Namespace) -> int:
    """Run a measurement that gives a report; returns the exit status."""
    from aiparsing_d2.analysis.report import describe_machine
    from aiparsing_d2.whole_files import check_writable, whole_file

    name = args.what
    files = [args.output / f"benchmark_{name}.{kind}" for kind in ("json", "md") if args.output]
    plot = getattr(args, "plot", None)
    start = time.monotonic()
    try:
        for file in files:
            if file.exists():
                raise FileExistsError(f"{file} exists; give another --output")
            check_writable(file.parent)
        if plot:
            from aiparsing_d2.analysis.cost_plot import check_plot_file, plot_costs

            check_plot_file(plot)
        settings = _read_settings(args)
        report = args.measure(args, settings)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    machine = describe_machine(settings["device"])
    for key in ("image_size", "channels_last", "compile", "cuda_graphs"):
        if getattr(args, key, None) is not None:
            machine[key] = getattr(args, key)
    machine["seconds"] = round(time.monotonic() - start, 1)
    text = report.markdown(machine)
    print(text, end="")
    if files:
        content = {
            "command": name,
            "machine": machine,
            "notes": report.notes,
            "rows": report.rows,
            "left_out": report.left_out,
        }
        for file, written in zip(files, (json.dumps(content, indent=1), text)):
            with whole_file(file, overwrite=False) as stream:
                stream.write(written)
    if plot:
        try:
            plot_costs(report.rows, plot)
        except (OSError, ValueError) as error:
            print(f"error: --plot {plot}: {error}", file=sys.stderr)
            return 1
    return 0


def _read_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Set PyTorch up for a measurement; return the values of ``Settings``.

    Raises:
        ValueError: the device is not there, or is not measured.
    """
    import torch

    if not hasattr(args, "device"):
        return {"device": torch.device("cpu")}
    try:
        device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ValueError(f"--device {args.device}: only cpu and cuda are measured") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {device}: only cpu and cuda are measured")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        if device.index >= torch.cuda.device_count():
            raise ValueError(f"--device {args.device}: PyTorch sees no such GPU")
        torch.cuda.set_device(device)
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    return {
        "device": device,
        "repeats": args.repeats,
        "warm_up": args.warm_up,
        "deadline": time.monotonic() + args.max_seconds,
    }


def _image_sizes(args: argparse.Namespace) -> list[tuple[int, int]]:
    return [(height, width) for height, width in args.image_sizes or [(800, 1216)]]


def _infer(args: argparse.Namespace, settings: dict[str, Any]) -> Report:
    from aiparsing_d2.analysis.inference_stages import compare_inference, measure_stages
    from aiparsing_d2.analysis.measuring import Settings

    what = (Settings(**settings), args.config, args.people, _image_sizes(args), args.precisions)
    if args.against is None:
        return measure_stages(*what, args.channels_last, args.compile, args.cuda_graphs)
    if args.compile or args.cuda_graphs or args.channels_last is not None:
        raise ValueError("versions are compared with --precisions only")
    return compare_inference(*what, args.against, args.tolerance)


def _model_settings(args: argparse.Namespace, settings: dict[str, Any]) -> ModelSettings:
    from aiparsing_d2.analysis.measured_models import ModelSettings

    return ModelSettings(
        **settings,
        models=args.models,
        precisions=args.precisions,
        image_size=tuple(args.image_size),
        channels_last=args.channels_last,
    )


def _models(args: argparse.Namespace, settings: dict[str, Any]) -> Report:
    from aiparsing_d2.analysis.inference_speed import measure_inference

    return measure_inference(_model_settings(args, settings), args.people)


def _train(args: argparse.Namespace, settings: dict[str, Any]) -> Report:
    from aiparsing_d2.analysis.training_speed import measure_training

    return measure_training(_model_settings(args, settings), args.batch_sizes, args.num_people)


def _processes(args: argparse.Namespace, settings: dict[str, Any]) -> Report:
    from aiparsing_d2.analysis.measuring import Settings
    from aiparsing_d2.analysis.process_scaling import measure_processes

    return measure_processes(
        Settings(**settings),
        args.config,
        args.processes,
        args.people,
        _image_sizes(args),
        args.precisions,
    )


def _paste(args: argparse.Namespace, settings: dict[str, Any]) -> Report:
    from aiparsing_d2.analysis.measuring import Settings
    from aiparsing_d2.analysis.pasting_speed import compare_pasting, measure_pasting

    what = (Settings(**settings), args.people, _image_sizes(args), args.classes)
    if args.against is None:
        return measure_pasting(*what)
    return compare_pasting(*what, args.against, args.tolerance)


def _compose(args: argparse.Namespace, settings: dict[str, Any]) -> Report:
    from aiparsing_d2.analysis.composing_speed import compare_composing, measure_composing
    from aiparsing_d2.analysis.measuring import Settings

    what = (Settings(**settings), args.people, _image_sizes(args))
    if args.against is None:
        return measure_composing(*what)
    return compare_composing(*what, args.against, args.tolerance)


def _memory(args: argparse.Namespace, settings: dict[str, Any]) -> Report:
    from aiparsing_d2.analysis.measuring import Settings
    from aiparsing_d2.analysis.memory_use import measure_memory

    return measure_memory(
        Settings(**settings),
        args.config,
        args.people,
        args.batch_sizes,
        _image_sizes(args),
        args.precisions,
    )


def _export(args: argparse.Namespace, settings: dict[str, Any]) -> Report:
    from aiparsing_d2.analysis.export_speed import measure_exports
    from aiparsing_d2.analysis.measuring import Settings

    return measure_exports(
        Settings(**settings), args.config, args.weights, args.formats, _image_sizes(args)
    )


def _peak(args: argparse.Namespace, settings: dict[str, Any]) -> Report:
    from aiparsing_d2.analysis.device_peak import measure_peak
    from aiparsing_d2.analysis.measuring import Settings

    return measure_peak(Settings(**settings), args.precisions)


def _data(args: argparse.Namespace, settings: dict[str, Any]) -> Report:
    from aiparsing_d2.analysis.data_speed import measure_data

    return measure_data(args.images, tuple(args.size), args.mapped_images, args.repeats)


def _evaluate(args: argparse.Namespace, settings: dict[str, Any]) -> Report:
    from aiparsing_d2.analysis.evaluator_speed import ImageKind, measure_scoring

    kind = ImageKind(args.height, args.width, args.classes, args.persons, args.predictions)
    return measure_scoring(kind, args.repeats, args.images)

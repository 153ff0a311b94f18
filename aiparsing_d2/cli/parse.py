"""``parse``: find people and their parts in pictures.

::

    python -m aiparsing_d2 parse photo.jpg holidays/ --output parsed/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from PIL import Image
from tqdm import tqdm

from aiparsing_d2.data.layouts import IMAGE_SUFFIXES
from aiparsing_d2.whole_files import whole_file

if TYPE_CHECKING:
    from aiparsing_d2.inference import ParsedImage, ParsingPredictor

__all__ = ["add_parser", "run"]

_EPILOG = """\
Results are named after the picture: holidays/beach/1.jpg becomes DIR/beach/1.overlay.jpg and so on.
What is there already is kept and not parsed again, so the same command goes on after an interrupt.
A picture that cannot be parsed is named, the others are parsed, and the exit status is 1.

example:
  aiparsing parse photo.jpg holidays/ --output parsed/ --save overlay,json,parts
"""


# Of pictures in folders; a file that is named itself may have any.
_SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".webp")


def _save_overlay(parsed: ParsedImage, file: IO) -> None:
    Image.fromarray(parsed.plot()).save(file, "JPEG", quality=90, subsampling=0)


def _save_parts(parsed: ParsedImage, file: IO) -> None:
    image = Image.fromarray(parsed.semantic_map()).convert("P")
    image.putpalette([channel for color in parsed.part_labels.colors for channel in color])
    image.save(file, "PNG")


# What --save can name -> the suffix of its file, and how it is written.
_KINDS: dict[str, tuple[str, Callable[[ParsedImage, IO], object]]] = {
    "overlay": (".overlay.jpg", _save_overlay),
    "parts": (".parts.png", _save_parts),
    "json": (".json", lambda parsed, file: file.write(parsed.to_json(indent=1).encode())),
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "parse",
        help="find people and their parts in pictures",
        description="Find people and their parts in pictures.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="a picture, or a folder, in which and below which all pictures are taken",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the results")
    config = parser.add_mutually_exclusive_group()
    config.add_argument("--model", metavar="NAME", help="config of the model zoo")
    config.add_argument("--config-file", metavar="FILE", help="LazyConfig or yacs config")
    parser.add_argument(
        "--weights", metavar="FILE", help="default: those that the package carries for the model"
    )
    parser.add_argument("--device", help="e.g. cpu; default: a GPU where there is one")
    parser.add_argument(
        "--threshold", type=float, metavar="T", help="lowest score of a person, in 0..1"
    )
    parser.add_argument(
        "--save",
        type=_kinds,
        default=["overlay", "json"],
        metavar="KIND,...",
        help=f"of {', '.join(_KINDS)}; parts is a PNG of labels; default: overlay,json",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.set_defaults(run=run)


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    for kind in kinds:
        if kind not in _KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r} is not one of {', '.join(_KINDS)}")
    return kinds


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    problems: list[str] = []
    pictures = _name_results(args, problems)
    tasks = {picture: files for picture, files in pictures.items() if files}
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        predictor = _make_predictor(args) if tasks else None
    except (OSError, ValueError) as error:
        print(f"aiparsing parse: {error}", file=sys.stderr)
        return 1
    num_people = num_parsed = 0
    for picture, files in tqdm(tasks.items(), "Parsing", unit="picture", disable=not tasks):
        try:
            parsed = predictor(picture)
            for kind, file_name in files.items():
                with whole_file(file_name, "wb") as file:
                    _KINDS[kind][1](parsed, file)
        except Exception as error:  # whatever is wrong with one must not cost the others
            reason = str(error) or type(error).__name__
            problems.append(reason if str(picture) in reason else f"{picture}: {reason}")
            continue
        num_people += len(parsed)
        num_parsed += 1
    for problem in problems:
        print(problem, file=sys.stderr)
    counts = [f"{num_people} people in {num_parsed} pictures"]
    if num_kept := len(pictures) - len(tasks):
        counts.append(f"{num_kept} were there already")
    if problems:
        counts.append(f"{len(problems)} failed")
    print(f"{args.output}: {', '.join(counts)}")
    return 1 if problems else 0


def _name_results(args: argparse.Namespace, problems: list[str]) -> dict[Path, dict[str, Path]]:
    """Find the pictures and, by kind, the files that are still to be written for each."""
    owners: dict[Path, Path] = {}
    results = {}
    for given in args.inputs:
        root = given if given.is_dir() else given.parent
        pictures = _list_pictures(given, args.output) if given.is_dir() else [given]
        if not pictures:
            problems.append(f"{given}: no pictures ({', '.join(_SUFFIXES)}) in this folder")
        for picture in pictures:
            target = args.output / picture.relative_to(root).with_name(picture.stem)
            owner = owners.setdefault(target, picture)
            if owner is not picture:
                if owner.resolve() != picture.resolve():
                    problems.append(f"{picture}: {owner} has the same name, so its results too")
                continue
            files = {kind: target.with_name(target.name + _KINDS[kind][0]) for kind in args.save}
            results[picture] = {
                kind: file for kind, file in files.items() if args.overwrite or not file.exists()
            }
    return results


def _list_pictures(folder: Path, output: Path) -> list[Path]:
    """List the pictures in and below a folder, those among the results left out."""
    output = output.resolve()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES and output not in path.resolve().parents
    )


def _make_predictor(args: argparse.Namespace) -> ParsingPredictor:
    from aiparsing_d2.inference import ParsingPredictor

    settings = {
        "config": args.model or args.config_file,
        "weights": args.weights,
        "device": args.device,
        "score_threshold": args.threshold,
    }
    # What is not given is the predictor's own default.
    return ParsingPredictor(**{key: value for key, value in settings.items() if value is not None})

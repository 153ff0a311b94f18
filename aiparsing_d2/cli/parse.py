"""``parse``: find people and their parts in pictures.

::

    python -m aiparsing_d2 parse photo.jpg holidays/ --output parsed/
    find /archive -newer last_time -name '*.jpg' | python -m aiparsing_d2 parse - --output parsed/
"""

from __future__ import annotations

import argparse
import glob
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from aiparsing_d2.data.layouts import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from aiparsing_d2.inference import ParsingPredictor

__all__ = ["add_parser", "run"]

_EPILOG = """\
Results are named after the picture: holidays/beach/1.jpg becomes DIR/beach/1.overlay.jpg and so on.
What is there already is kept and not parsed again, so the same command goes on after an interrupt;
also if it was made with another model or threshold: then give --overwrite. A picture that cannot be
parsed is named, the others are parsed, and the exit status is 1.

kinds of results, and what is added to the picture's name:
  overlay      .overlay.jpg   parts, people and scores drawn over the picture
  parts        .parts.png     label of every pixel, with the labels' colours
  instances    .instances.png 16 bits: n of people[n - 1] of the json, 0 for nobody
  json         .json          people with boxes, scores and parts as run lengths
  coco         .coco.json     people as results for COCO's tools; image_id as in beach/1
  npz          .npz           all of it, for ParsedImage.load
  cutouts      .cutouts/      1.png, 2.png, ...: each person cut out, the rest transparent
  person_maps  .person_maps/  1.png, 2.png, ...: label of every pixel of one person

examples:
  aiparsing parse photo.jpg holidays/ --output parsed/ --save overlay,json,cutouts
  aiparsing parse - --output parsed/ < list.txt
"""


_NAMES_SHOWN = 5

# Of pictures in folders; a file that is named itself may have any.
_SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".webp")


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
        help="a picture; a folder, in which and below which all pictures are taken; a pattern such "
        "as 'in/**/*.jpg'; - for names read from standard input, one a line",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the results")
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
    parser.add_argument("--device", help="e.g. cpu; default: a GPU where there is one")
    parser.add_argument(
        "--threshold",
        type=_threshold,
        metavar="T",
        help="lowest score of a person, in 0..1; default: 0.26; lower finds more people, and more "
        "that are none",
    )
    parser.add_argument(
        "--save",
        type=_kinds,
        default=["overlay", "json"],
        metavar="KIND,...",
        help="of the kinds below; default: overlay,json",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.set_defaults(run=run)


def _kinds(text: str) -> list[str]:
    from aiparsing_d2.inference.saving import result_files

    kinds = text.split(",")
    try:
        result_files("", "", kinds)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return kinds


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1")
    return value


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from aiparsing_d2.inference.saving import save

    problems: list[str] = []
    pictures = _name_results(args, problems)
    tasks = {picture: task for picture, task in pictures.items() if task[1]}
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        predictor = _make_predictor(args) if tasks else None
    except (OSError, ValueError) as error:
        print(f"aiparsing parse: {error}", file=sys.stderr)
        return 1
    num_people = num_parsed = 0
    without_people = []
    for picture, (name, kinds) in tqdm(tasks.items(), "Parsing", unit="picture", disable=not tasks):
        try:
            parsed = predictor(picture)
            save(parsed, args.output, name, kinds)
        except Exception as error:  # whatever is wrong with one must not cost the others
            reason = str(error) or type(error).__name__
            problems.append(reason if str(picture) in reason else f"{picture}: {reason}")
            continue
        num_people += len(parsed)
        if not len(parsed):
            without_people.append(str(picture))
        num_parsed += 1
    for problem in problems:
        print(problem, file=sys.stderr)
    if without_people:
        shown = ", ".join(without_people[:_NAMES_SHOWN])
        more = f" and {len(without_people) - _NAMES_SHOWN} more" * (
            len(without_people) > _NAMES_SHOWN
        )
        print(f"Nobody found in {shown}{more}; a lower --threshold finds more", file=sys.stderr)
    counts = [f"{num_people} people in {num_parsed} pictures"]
    if num_kept := len(pictures) - len(tasks):
        counts.append(f"{num_kept} kept as they were (--overwrite makes them anew)")
    if problems:
        counts.append(f"{len(problems)} failed")
    print(f"{args.output}: {', '.join(counts)}")
    return 1 if problems else 0


def _name_results(
    args: argparse.Namespace, problems: list[str]
) -> dict[Path, tuple[str, list[str]]]:
    """Find the pictures, what their results are called, and the kinds that are still to be made."""
    from aiparsing_d2.inference.saving import result_files

    owners: dict[str, Path] = {}
    results = {}
    for given in _expand(args.inputs, problems):
        if not given.exists():
            problems.append(f"{given}: there is no such file or folder")
            continue
        root = given if given.is_dir() else given.parent
        pictures = _list_pictures(given, args.output) if given.is_dir() else [given]
        if not pictures:
            problems.append(f"{given}: no pictures ({', '.join(_SUFFIXES)}) in this folder")
        for picture in pictures:
            name = picture.relative_to(root).with_name(picture.stem).as_posix()
            owner = owners.setdefault(name, picture)
            if owner is not picture:
                if owner.resolve() != picture.resolve():
                    problems.append(
                        f"{picture}: {owner} has the same name, so its results too: rename one, or "
                        "give the folder above both"
                    )
                continue
            files = result_files(args.output, name, args.save)
            missing = [k for k, file in files.items() if args.overwrite or not file.exists()]
            results[picture] = name, missing
    return results


def _expand(inputs: list[Path], problems: list[str]) -> Iterator[Path]:
    """Give the files and folders that the inputs stand for."""
    for given in inputs:
        if str(given) == "-":
            names = [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
            if not names:
                problems.append("-: no names on standard input")
            yield from map(Path, names)
        elif glob.has_magic(str(given)) and not given.exists():
            found = sorted(glob.glob(str(given), recursive=True))
            if not found:
                problems.append(f"{given}: nothing has such a name")
            yield from map(Path, found)
        else:
            yield given


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

"""``parse``: find people and their parts in pictures.

::

    python -m aiparsing_d2 parse photo.jpg holidays/ --output parsed/
    find /archive -newer last_time -name '*.jpg' | python -m aiparsing_d2 parse - --output parsed/
"""

from __future__ import annotations

import argparse
import glob
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from tqdm import tqdm

from aiparsing_d2.data.layouts import IMAGE_SUFFIXES
from aiparsing_d2.whole_files import whole_file, whole_folder

if TYPE_CHECKING:
    from aiparsing_d2.inference import ParsedImage, ParsingPredictor

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


def _save_overlay(parsed: ParsedImage, path: Path, name: str) -> None:
    with whole_file(path, "wb") as file:
        Image.fromarray(parsed.plot()).save(file, "JPEG", quality=90, subsampling=0)


def _save_labels(labels: np.ndarray, parsed: ParsedImage, path: Path) -> None:
    image = Image.fromarray(labels).convert("P")
    image.putpalette([channel for color in parsed.part_labels.colors for channel in color])
    with whole_file(path, "wb") as file:
        image.save(file, "PNG")


def _save_instances(parsed: ParsedImage, path: Path, name: str) -> None:
    with whole_file(path, "wb") as file:
        Image.fromarray(parsed.instance_map()).save(file, "PNG")


def _save_parts(parsed: ParsedImage, path: Path, name: str) -> None:
    _save_labels(parsed.semantic_map(), parsed, path)


def _save_json(parsed: ParsedImage, path: Path, name: str) -> None:
    with whole_file(path) as file:
        file.write(parsed.to_json(indent=1))


def _save_coco(parsed: ParsedImage, path: Path, name: str) -> None:
    with whole_file(path) as file:
        json.dump(parsed.to_coco(image_id=name), file, indent=1)


def _save_npz(parsed: ParsedImage, path: Path, name: str) -> None:
    parsed.save(path, overwrite=True)


def _save_cutouts(parsed: ParsedImage, path: Path, name: str) -> None:
    with whole_folder(path) as folder:
        for number, person in enumerate(parsed, start=1):
            cutout = person.crop()
            if cutout.size:
                Image.fromarray(cutout).save(folder / f"{number}.png")


def _save_person_maps(parsed: ParsedImage, path: Path, name: str) -> None:
    with whole_folder(path) as folder:
        for number, person in enumerate(parsed, start=1):
            _save_labels(person.part_map(), parsed, folder / f"{number}.png")


# What --save can name -> what is added to the picture's name, and how it is written: of the people,
# the file and the picture's name.
_KINDS: dict[str, tuple[str, Callable[[ParsedImage, Path, str], object]]] = {
    "overlay": (".overlay.jpg", _save_overlay),
    "parts": (".parts.png", _save_parts),
    "instances": (".instances.png", _save_instances),
    "json": (".json", _save_json),
    "coco": (".coco.json", _save_coco),
    "npz": (".npz", _save_npz),
    "cutouts": (".cutouts", _save_cutouts),
    "person_maps": (".person_maps", _save_person_maps),
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
        help=f"of {', '.join(_KINDS)}; default: overlay,json",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.set_defaults(run=run)


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    for kind in kinds:
        if kind not in _KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r} is not one of {', '.join(_KINDS)}")
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
    without_people = []
    for picture, files in tqdm(tasks.items(), "Parsing", unit="picture", disable=not tasks):
        try:
            parsed = predictor(picture)
            for kind, file_name in files.items():
                suffix, save = _KINDS[kind]
                name = file_name.relative_to(args.output).as_posix().removesuffix(suffix)
                save(parsed, file_name, name)
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


def _name_results(args: argparse.Namespace, problems: list[str]) -> dict[Path, dict[str, Path]]:
    """Find the pictures and, by kind, the files that are still to be written for each."""
    owners: dict[Path, Path] = {}
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
            target = args.output / picture.relative_to(root).with_name(picture.stem)
            owner = owners.setdefault(target, picture)
            if owner is not picture:
                if owner.resolve() != picture.resolve():
                    problems.append(
                        f"{picture}: {owner} has the same name, so its results too: rename one, or "
                        "give the folder above both"
                    )
                continue
            files = {kind: target.with_name(target.name + _KINDS[kind][0]) for kind in args.save}
            results[picture] = {
                kind: file for kind, file in files.items() if args.overwrite or not file.exists()
            }
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

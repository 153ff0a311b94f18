"""``parse``: find people and their parts in pictures and videos.

::

    python -m aiparsing_d2 parse photo.jpg holidays/ --output parsed/
    find /archive -newer last_time -name '*.jpg' | python -m aiparsing_d2 parse - --output parsed/
"""

from __future__ import annotations

import argparse
import functools
import glob
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from aiparsing_d2.counted import counted
from aiparsing_d2.whole_files import check_writable

from .model_arguments import add_model_arguments, predictor_arguments
from .parse_videos import ParsedVideo, VideoTask, find_videos, is_video, parse_video_task
from .progress_bar import progress_bar
from .stop_signals import StopSignals

if TYPE_CHECKING:
    from aiparsing_d2.inference import ParsedImage, ParsingPredictor
    from aiparsing_d2.inference.overlapped_parsing import Outcome

__all__ = ["add_parser", "run"]

_EPILOG = """\
Results are named after the picture: holidays/beach/1.jpg becomes DIR/beach/1.overlay.jpg and so on.
What is there already is kept and not parsed again, so the same command goes on after an interrupt;
also if it was made with another model, threshold or --every: then give --overwrite. A picture that
cannot be parsed is named, the others are parsed, and the exit status is 1.

kinds of results, and what is added to the picture's name:
  overlay      .overlay.jpg   parts, people and scores drawn over the picture
  people       .people.jpg    each person in a colour
  parts        .parts.png     label of every pixel, with the labels' colours
  instances    .instances.png 16 bits: n of people[n - 1] of the json, 0 for nobody
  json         .json          people with boxes, scores and parts as run lengths
  coco         .coco.json     people as results for COCO's tools; image_id as in beach/1
  npz          .npz           all of it, for ParsedImage.load
  cutouts      .cutouts/      1.png, 2.png, ...: each person cut out, the rest transparent
  person_maps  .person_maps/  1.png, 2.png, ...: label of every pixel of one person

and of a video:
  overlay      .overlay.mp4   H.264, without sound
  people       .people.mp4    each person in a colour, the same throughout the video
  json         .jsonl         a line for each frame: frame, time in seconds, and as above, with
                              "track_id", which says who is who
  vip          .vip/          result folder of the data set VIP
  all others   .frames.KIND/  00000000, ...: as above for each frame
A video bears .unfinished in the names of its results until its end; after an interrupt it can be
played that far, and the same command starts it anew. Videos need pip install 'aiparsing_d2[video]'.

examples:
  aiparsing parse photo.jpg holidays/ --output parsed/ --save overlay,json,cutouts
  aiparsing parse clip.mp4 --output parsed/ --every 5
  aiparsing parse camera:0 --output parsed/ --save people
  aiparsing parse - --output parsed/ < list.txt
"""


_NAMES_SHOWN = 5

# A kind of results that pictures do not have.
_VIDEOS_ONLY = "vip"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "parse",
        help="find people and their parts in pictures and videos",
        description="Find people and their parts in pictures and videos.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a picture; a video; a folder, in which and below which all pictures are taken, but "
        "no videos; a pattern such as 'in/**/*.jpg'; a list, whose name ends in .txt and which has "
        "one name a line; - for such a list from standard input; camera:0 for the first camera, "
        "until Ctrl-C",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the results")
    add_parsing_arguments(parser, more_kinds=(_VIDEOS_ONLY,))
    parser.add_argument(
        "--every",
        type=_every,
        default=1,
        metavar="N",
        help="of each N frames of a video parse the first; default: 1",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.set_defaults(run=run)


def add_parsing_arguments(
    parser: argparse.ArgumentParser,
    save_default: tuple[str, ...] = ("overlay", "json"),
    more_kinds: tuple[str, ...] = (),
) -> None:
    """Add the arguments that say what parses, and what is kept of it."""
    add_model_arguments(parser)
    parser.add_argument(
        "--save",
        type=functools.partial(_kinds, more=more_kinds, may_be_none=not save_default),
        default=save_default,
        metavar="KIND,...",
        help=f"kinds of results; default: {','.join(save_default) or 'none'}",
    )


def _kinds(text: str, more: tuple[str, ...], may_be_none: bool) -> list[str]:
    from aiparsing_d2.inference.saving import RESULT_KINDS

    known = (*RESULT_KINDS, *more)
    kinds = [kind for kind in text.split(",") if kind]
    for kind in kinds:
        if kind not in known:
            raise argparse.ArgumentTypeError(f"{kind!r} is not one of {', '.join(known)}")
    if not (kinds or may_be_none):
        raise argparse.ArgumentTypeError(f"names no kind of {', '.join(known)}")
    return kinds


def _every(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from aiparsing_d2.inference.overlapped_parsing import Outcome, parse_overlapped
    from aiparsing_d2.inference.picture_files import PictureFile, find_pictures, missing_kinds
    from aiparsing_d2.inference.saving import save

    try:
        rank, num_ranks = _rank(args.inputs)
    except ValueError as error:
        print(f"aiparsing parse: {error}", file=sys.stderr)
        return 1
    report = _Report()
    # All processes find the same pictures; one tells what is wrong with the inputs.
    note = report.note if rank == 0 else lambda problem: None
    inputs = list(expand_inputs(args.inputs, note))
    kinds_of_pictures = [kind for kind in args.save if kind != _VIDEOS_ONLY]
    pictures = find_pictures(
        [given for given in inputs if not is_video(given)], args.output, kinds_of_pictures, note
    )
    if pictures and not kinds_of_pictures:
        note(f"pictures cannot be saved as {_VIDEOS_ONLY}, which is for videos")
        pictures = []
    tasks: dict[PictureFile, list[str]] = {}
    for picture in pictures[rank::num_ranks]:
        kinds = (
            kinds_of_pictures
            if args.overwrite
            else missing_kinds(picture, args.output, kinds_of_pictures)
        )
        if kinds:
            tasks[picture] = kinds
        else:
            report.num_kept += 1
    videos = find_videos(filter(is_video, inputs), args.output, args.save, args.overwrite, note)
    videos = videos[rank::num_ranks]
    report.num_kept_videos = sum(not video.kinds for video in videos)
    videos = [video for video in videos if video.kinds]
    try:
        check_writable(args.output)
        predictor = _make_predictor(args) if tasks or videos else None
    except (OSError, ValueError) as error:
        print(f"aiparsing parse: {error}", file=sys.stderr)
        return 1

    def write(picture: PictureFile, parsed: ParsedImage) -> int:
        save(parsed, args.output, picture.name, tasks[picture])
        return len(parsed)

    with StopSignals() as stop:
        is_shown = bool(tasks) and rank == 0
        with progress_bar(len(tasks), "Parsing", "picture", is_shown=is_shown) as bar:
            outcomes = predictor and parse_overlapped(
                predictor,
                tasks,
                read=lambda picture: picture.path,
                write=write,
                is_ended=lambda: bool(stop or report.disk_error),
            )
            for outcome in outcomes or ():
                report.add(outcome)
                bar.advance(num_failed=int(outcome.error is not None))
        for video in videos:
            if stop or report.disk_error:
                break
            try:
                report.add_video(
                    video,
                    parse_video_task(
                        predictor, video, args.output, args.every, stop, is_shown=rank == 0
                    ),
                )
            except KeyboardInterrupt:
                if not stop:
                    raise
            except Exception as error:
                report.add(Outcome(video, None, error))
    report.print_summary(
        args.output,
        f"rank {rank} of {num_ranks}: " if num_ranks > 1 else "",
        only_videos=bool(inputs) and all(map(is_video, inputs)),
    )
    if stop or report.disk_error:
        reason = f"Ended, since {report.disk_error}" if report.disk_error else "Interrupted"
        anew = "with --overwrite starts anew" if args.overwrite else "goes on from here"
        done = [(report.num_parsed, len(tasks), "picture")] if tasks else []
        if videos:
            done.append((report.num_parsed_videos, len(videos), "video"))
        counts = " and ".join(f"{number} of {counted(total, what)}" for number, total, what in done)
        print(f"{reason}: {counts} done; the same command {anew}.", file=sys.stderr)
    if stop:
        return stop.exit_status
    if num_ranks > 1:
        _wait_for_other_ranks()
    return 1 if report.num_failed else 0


def _rank(inputs: list[str]) -> tuple[int, int]:
    """Give the number of this process among those that share the pictures, and theirs."""
    rank, num_ranks = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and num_ranks.isdecimal() and int(rank) < int(num_ranks)):
        raise ValueError(
            f"the environment has RANK={rank} and WORLD_SIZE={num_ranks}: the first counts from 0 "
            "and is less than the second; for one process unset both"
        )
    if "-" in inputs and num_ranks != "1":
        raise ValueError("several processes cannot share standard input: give a list as a .txt")
    return int(rank), int(num_ranks)


class _Report:
    """Counts what was done, and names what went wrong as soon as it does.

    Attributes:
        num_kept, num_parsed, num_failed: pictures; the last counts other problems too.
        num_kept_videos, num_parsed_videos: videos.
        disk_error: why nothing more can be written, or "".
    """

    def __init__(self) -> None:
        self.num_kept = self.num_parsed = self.num_failed = 0
        self.num_kept_videos = self.num_parsed_videos = 0
        self.disk_error = ""
        self._num_frames = self._num_people_in_videos = 0
        self._num_people = 0
        self._without_people: list[str] = []
        self._num_without_people = 0

    def note(self, problem: str) -> None:
        self.num_failed += 1
        tqdm.write(printable(problem), file=sys.stderr)

    def add(self, outcome: Outcome) -> None:
        path, error = outcome.task.path, outcome.error
        if error is not None:
            reason = str(error) or type(error).__name__
            self.note(reason if path in reason else f"{path}: {reason}")
            self.disk_error = self.disk_error or outcome.disk_error
            return
        self.num_parsed += 1
        self._num_people += outcome.result
        if not outcome.result:
            self._num_without_people += 1
            if self._num_without_people <= _NAMES_SHOWN:
                self._without_people.append(path)

    def add_video(self, task: VideoTask, parsed: ParsedVideo) -> None:
        self.num_parsed_videos += 1
        self._num_frames += parsed.num_frames
        self._num_people_in_videos += parsed.num_people
        if parsed.problem:
            self.note(f"{task.path}: {parsed.problem}")

    def print_summary(self, output: Path, prefix: str, *, only_videos: bool) -> None:
        if self._without_people:
            shown = printable(", ".join(self._without_people))
            num_more = self._num_without_people - len(self._without_people)
            more = f" and {num_more} more" if num_more else ""
            print(f"Nobody found in {shown}{more}; a lower --threshold finds more", file=sys.stderr)
        counts = []
        if self.num_parsed:
            people = counted(self._num_people, "person")
            counts.append(f"{people} in {counted(self.num_parsed, 'picture')}")
        if self.num_parsed_videos:
            people = counted(self._num_people_in_videos, "person")
            videos = counted(self.num_parsed_videos, "video")
            counts.append(f"{people} in {counted(self._num_frames, 'frame')} of {videos}")
        num_kept = self.num_kept + self.num_kept_videos
        if not counts and not num_kept:
            counts.append(f"0 people in 0 {'videos' if only_videos else 'pictures'}")
        if num_kept:
            counts.append(f"{num_kept} kept as they were (--overwrite makes them anew)")
        if self.num_failed:
            counts.append(f"{self.num_failed} failed")
        print(f"{printable(str(output))}: {prefix}{', '.join(counts)}")


def printable(text: str) -> str:
    """Give a text, such as the name of a file, with what cannot be printed escaped, as newlines."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def expand_inputs(inputs: list[str], note: Callable[[str], object]) -> Iterator[str]:
    """Give the files and folders that the inputs stand for."""
    for given in inputs:
        if given == "-":
            yield from _names_in(sys.stdin.buffer.read(), "-: no names on standard input", note)
        elif given.lower().endswith(".txt"):
            try:
                names = Path(given).read_bytes()
            except OSError as error:
                note(f"{given}: {error.strerror}")
            else:
                yield from _names_in(names, f"{given}: no names in this list", note)
        elif "://" not in given and glob.has_magic(given) and not os.path.lexists(given):
            found = sorted(glob.glob(given, recursive=True))
            if not found:
                note(f"{given}: nothing has such a name")
            yield from found
        else:
            yield given


def _names_in(content: bytes, message: str, note: Callable[[str], object]) -> list[str]:
    """Read names of which each ends with a line or, as those of find -print0, with a 0."""
    text = content.decode("utf-8-sig", "surrogateescape")
    lines = text.split("\0") if "\0" in text else text.replace("\r\n", "\n").split("\n")
    names = [line for line in lines if line.strip()]
    if not names:
        note(message)
    return names


def _wait_for_other_ranks() -> None:
    """Wait until all have done their work: torchrun ends them when one exits with an error."""
    import torch.distributed as dist

    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo", timeout=timedelta(days=30))
        dist.barrier()
        dist.destroy_process_group()


def _make_predictor(args: argparse.Namespace) -> ParsingPredictor:
    import torch

    from aiparsing_d2.inference import ParsingPredictor

    arguments = predictor_arguments(args)
    if "LOCAL_RANK" in os.environ and args.device is None and torch.cuda.is_available():
        local_rank = int(os.environ["LOCAL_RANK"])
        arguments["device"] = f"cuda:{local_rank % torch.cuda.device_count()}"
    return ParsingPredictor(**arguments)

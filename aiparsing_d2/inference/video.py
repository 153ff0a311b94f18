"""A video in; people, their parts and who is who out, frame by frame and in constant memory."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import queue
import shutil
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from aiparsing_d2.evaluation.parsing_evaluator import to_prediction
from aiparsing_d2.submissions.vip import VipSubmission

from .overlapped_parsing import parse_overlapped
from .parsed_image import ParsedImage
from .predictor import ParsingPredictor
from .saving import RESULT_KINDS, save
from .tracking import PersonTracker
from .video_files import VideoFrame, VideoWriter

__all__ = ["VIDEO_KINDS", "ParsedFrame", "parse_video", "save_frames", "video_result_files"]

# Results that wait to be written.
_FRAMES_AHEAD = 2

Item = TypeVar("Item")


class ParsedFrame(NamedTuple):
    """What was found in a frame.

    Attributes:
        number: its place among all frames of the video, from 0.
        time: seconds since the video's beginning.
        people: they have a ``track_id``, and the image is the frame.
    """

    number: int
    time: float
    people: ParsedImage


def parse_video(
    predictor: ParsingPredictor,
    frames: Iterable[VideoFrame],
    *,
    tracker: PersonTracker | None = None,
) -> Generator[ParsedFrame, None, None]:
    """Parse the frames, and tell who is who.

    While some frames are read, a few others are parsed side by side, as pictures are by
    :func:`~aiparsing_d2.inference.overlapped_parsing.parse_overlapped`.

    ::

        for frame in parse_video(predictor, VideoFile("clip.mp4")):
            print(frame.time, [(person.track_id, person.box) for person in frame.people])

    Args:
        predictor: of any model.
        frames: a ``VideoFile`` or ``Camera`` of :mod:`.video_files`, or frames from anywhere.
        tracker: what gives people their identities; by default a new one.

    Yields:
        The frames, in their order. None is kept.
    """
    tracker = tracker or PersonTracker()
    source = iter(frames)
    taken: dict[int, VideoFrame] = {}

    def read(number: int) -> np.ndarray:
        frame = next(source, None)
        if frame is None:
            raise _NoMoreFrames
        taken[number] = frame
        return frame.image

    outcomes = parse_overlapped(
        predictor,
        itertools.count(),
        read,
        write=lambda number, people: people,
        channel_order="RGB",
        num_readers=1,
        num_ahead=1,
    )
    try:
        with contextlib.closing(outcomes):
            for number, people, error in outcomes:
                if isinstance(error, _NoMoreFrames):
                    return
                if error is not None:
                    raise error
                frame = taken.pop(number)
                people.instances.track_ids = tracker.update(people, frame.time)
                yield ParsedFrame(frame.number, frame.time, people)
                frame = people = None  # nothing may hold a picture while others are waited for
    finally:
        if isinstance(source, Generator):
            source.close()


class _NoMoreFrames(Exception):
    """Ends a video of unknown length."""


def _in_background(items: Iterable[Item]) -> Generator[Item, None, None]:
    """Take items in a thread of its own, some ahead of who asks for them."""
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(_FRAMES_AHEAD)
    left = threading.Event()

    def put(is_item: bool, content: Any) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((is_item, content), timeout=0.1)
                return

    def work() -> None:
        error = None
        iterator = iter(items)
        try:
            for item in iterator:
                put(True, item)
                if left.is_set():
                    break
        except BaseException as raised:
            error = raised
        finally:
            if isinstance(iterator, Generator):
                iterator.close()
        put(False, error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while True:
            is_item, content = ready.get()
            if is_item:
                yield content
            elif content is not None:
                raise content
            else:
                return
    finally:
        left.set()
        worker.join()


def video_result_files(folder: str | Path, name: str, kinds: Iterable[str]) -> dict[str, Path]:
    """Name the files and folders of a video's results, by kind.

    Args:
        folder: where results go.
        name: the video's name below it, without its suffix.
        kinds: of :data:`VIDEO_KINDS`.
    """
    return {kind: Path(folder, name + VIDEO_KINDS[kind].suffix) for kind in kinds}


def save_frames(
    frames: Iterable[ParsedFrame],
    folder: str | Path,
    name: str,
    kinds: Iterable[str],
    frame_rate: float,
) -> int:
    """Write the results of a video as its frames come; parsing and writing overlap.

    Each result bears ``.unfinished`` in its name until all frames are written. After an error or a
    kill it stays under that name, and can be read, and played, up to the last frame but a few; the
    next call begins anew.

    Args:
        frames: of :func:`parse_video`.
        folder: where results go; it is made, and so are the folders in ``name``.
        name: the video's name below it, without its suffix.
        kinds: of :data:`VIDEO_KINDS`; earlier results are replaced.
        frame_rate: frames a second, about.

    Returns:
        How many frames there were.

    Raises:
        ValueError: there was none.
        OSError: a file cannot be written.
    """
    files = video_result_files(folder, name, kinds)
    unfinished = {
        file: file.with_name(f"{file.stem}.unfinished{file.suffix}") for file in files.values()
    }
    for part in unfinished.values():
        part.parent.mkdir(parents=True, exist_ok=True)
        _remove(part)
    count = 0
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(VIDEO_KINDS[kind].open(unfinished[file], frame_rate))
            for kind, file in files.items()
        ]
        for frame in stack.enter_context(contextlib.closing(_in_background(frames))):
            for write in writers:
                write(frame)
            count += 1
    if not count:
        for part in unfinished.values():
            _remove(part)
        raise ValueError("no frame of it can be read")
    for file, part in unfinished.items():
        _remove(file)
        part.rename(file)
    return count


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class VideoKind(NamedTuple):
    """A kind of result.

    Attributes:
        suffix: what is added to the video's name.
        open: called with the file (or folder) and the frame rate; gives, as a context, the function
            that writes a frame.
    """

    suffix: str
    open: Callable[
        [Path, float], contextlib.AbstractContextManager[Callable[[ParsedFrame], object]]
    ]


@contextlib.contextmanager
def _open_overlay(
    path: Path, frame_rate: float, **options: Any
) -> Iterator[Callable[[ParsedFrame], object]]:
    with VideoWriter(path, frame_rate) as writer:
        yield lambda frame: writer.write(frame.people.plot(**options), frame.time)


@contextlib.contextmanager
def _open_json(path: Path, frame_rate: float) -> Iterator[Callable[[ParsedFrame], object]]:
    with open(path, "w", encoding="utf-8", buffering=1) as file:  # each line at once

        def write(frame: ParsedFrame) -> None:
            content = {"frame": frame.number, "time": frame.time, **frame.people.to_dict()}
            file.write(json.dumps(content) + "\n")

        yield write


@contextlib.contextmanager
def _open_vip(path: Path, frame_rate: float) -> Iterator[Callable[[ParsedFrame], object]]:
    video = path.name.removesuffix(".unfinished.vip")

    def write(frame: ParsedFrame) -> None:
        people = frame.people
        submission = VipSubmission(path, people.part_labels.num_classes)
        prediction = to_prediction(people.instances, people.image_size)
        submission.write(f"{video}/{frame.number:08d}", prediction, people.image_size)

    yield write


@contextlib.contextmanager
def _open_folder(
    path: Path, frame_rate: float, *, kind: str
) -> Iterator[Callable[[ParsedFrame], object]]:
    yield lambda frame: save(frame.people, path, f"{frame.number:08d}", [kind])


VIDEO_KINDS = {
    **{
        kind: VideoKind(f".frames.{kind}", functools.partial(_open_folder, kind=kind))
        for kind in RESULT_KINDS
    },
    "overlay": VideoKind(".overlay.mp4", _open_overlay),
    "people": VideoKind(".people.mp4", functools.partial(_open_overlay, color_by="person")),
    "json": VideoKind(".jsonl", _open_json),
    "vip": VideoKind(".vip", _open_vip),
}
"""What a video's results can be saved as, by name: those of pictures, most of them as a folder with
the results of each frame, ``00000000`` and so on, and ``vip``, a result folder of that data set."""

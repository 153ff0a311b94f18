"""Videos and cameras of ``aiparsing parse``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiparsing_d2.counted import counted

from .progress_bar import progress_bar
from .stop_signals import StopSignals

if TYPE_CHECKING:
    from aiparsing_d2.inference import ParsingPredictor
    from aiparsing_d2.inference.video_files import VideoFrame

__all__ = ["ParsedVideo", "VideoTask", "find_videos", "is_video", "parse_video_task"]


class VideoTask(NamedTuple):
    """A video to parse.

    Attributes:
        path: of its file; of a camera "camera:" and its number or address.
        name: of its results, below their folder.
        kinds: of results that are to be made.
    """

    path: str
    name: str
    kinds: list[str]


class ParsedVideo(NamedTuple):
    """What was found in a video.

    Attributes:
        num_frames: how many were parsed.
        num_people: how many different people were seen.
        problem: what could not be read, or "".
    """

    num_frames: int
    num_people: int
    problem: str


def is_video(given: str) -> bool:
    """Tell whether an input is a video or a camera, by its name."""
    from aiparsing_d2.inference.video_files import CAMERA_PREFIX, VIDEO_SUFFIXES

    if given.startswith(CAMERA_PREFIX):
        return True
    return given.lower().endswith(VIDEO_SUFFIXES) and not os.path.isdir(given)


def find_videos(
    inputs: Iterable[str],
    output: Path,
    kinds: Iterable[str],
    overwrite: bool,
    note: Callable[[str], object],
) -> list[VideoTask]:
    """List the videos among the inputs, each once, with the kinds of results that are missing.

    Args:
        inputs: names that :func:`is_video` is true of.
        output: folder of the results.
        kinds: of results.
        overwrite: whether what is there counts as missing.
        note: called with what is wrong with an input, which is left out.
    """
    from aiparsing_d2.inference.video import video_result_files
    from aiparsing_d2.inference.video_files import CAMERA_PREFIX

    tasks: dict[str, VideoTask] = {}
    for source in inputs:
        if source.startswith(CAMERA_PREFIX):
            name = _camera_name(source.removeprefix(CAMERA_PREFIX))
        elif os.path.isfile(source):
            name = Path(source).stem
        else:
            note(f"{source}: no such file")
            continue
        files = video_result_files(output, name, kinds)
        missing = [kind for kind, file in files.items() if overwrite or not file.exists()]
        owner = tasks.setdefault(name, VideoTask(source, name, missing))
        if os.path.realpath(owner.path) != os.path.realpath(source):
            note(
                f"{source}: {owner.path} has the same name, so its results too: rename one, or "
                "give another --output"
            )
    return list(tasks.values())


def _camera_name(camera: str) -> str:
    """Name a recording by its beginning: what there is of others is no result of this one."""
    number = f"-{camera}" if camera.isdecimal() else ""  # an address may hold a password
    return f"camera{number}_{time.strftime('%Y%m%d-%H%M%S')}"


def parse_video_task(
    predictor: ParsingPredictor,
    task: VideoTask,
    output: Path,
    every: int,
    stop: StopSignals,
    *,
    is_shown: bool = True,
) -> ParsedVideo:
    """Parse a video; at Ctrl-C a camera ends, and a file is left unfinished.

    Raises:
        KeyboardInterrupt: a file was interrupted.
        OSError, ValueError: the video cannot be read, or its results cannot be written.
    """
    from aiparsing_d2.inference.tracking import PersonTracker
    from aiparsing_d2.inference.video import parse_video, save_frames
    from aiparsing_d2.inference.video_files import CAMERA_PREFIX, Camera, VideoFile

    is_camera = task.path.startswith(CAMERA_PREFIX)
    video: Camera | VideoFile
    if is_camera:
        video = Camera(task.path.removeprefix(CAMERA_PREFIX))
    else:
        video = VideoFile(Path(task.path), every=every)

    def until_stopped() -> Iterator[VideoFrame]:
        for frame in video:
            if stop and is_camera:
                return
            if stop:
                raise KeyboardInterrupt
            yield frame

    tracker = PersonTracker()
    with progress_bar(video.num_frames, task.name, "frame", is_shown=is_shown) as bar:

        def reported() -> Iterator:
            for frame in parse_video(predictor, until_stopped(), tracker=tracker):
                yield frame
                bar.update()

        count = save_frames(reported(), output, task.name, task.kinds, video.frame_rate)
    if is_camera and stop.number == signal.SIGINT:
        stop.number = None  # that was the camera's end
    problem = ""
    if video.num_broken:
        problem = f"{counted(video.num_broken, 'piece')} of it could not be decoded, and left out"
    elif video.missing:
        problem = f"{video.missing}: it may be cut off"
    return ParsedVideo(count, tracker.num_people, problem)

"""Frames of videos and cameras, one at a time, and videos made of pictures."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import cv2
import numpy as np

from aiparsing_d2.data.image_files import UnreadableImageError

__all__ = ["CAMERA_PREFIX", "VIDEO_SUFFIXES", "Camera", "VideoFile", "VideoFrame", "VideoWriter"]

VIDEO_SUFFIXES = (
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
"""Of files that are taken for videos."""

CAMERA_PREFIX = "camera:"
"""What the names of cameras begin with."""

# A file's count of frames, or length, that is short by no more is taken for whole.
_MISSING_SHARE, _MISSING_FRAMES = 0.02, 2

# Of the videos that are written, in ticks a second: divisible by all usual frame rates.
_CLOCK = 90_000


class VideoFrame(NamedTuple):
    """A frame.

    Attributes:
        number: its place among all frames of the video, from 0.
        time: seconds since the video's beginning.
        image: uint8 (H, W, 3), RGB, upright.
    """

    number: int
    time: float
    image: np.ndarray


class VideoFile:
    """The frames of a video file, as they are looked at: turned as a phone noted.

    Iterating reads it from its beginning and keeps no frame. Damaged places are left out, and
    counted.

    Attributes:
        frame_rate: frames given for each second, on average.
        num_frames: about how many frames there are; None where the file does not say. Matroska and
            WebM have no count, but the pictures' length, which says little where the rate varies.
        num_broken: how many pieces of the file could not be decoded, so far.
    """

    def __init__(self, path: str | os.PathLike, *, every: int = 1, count: bool = False):
        """
        Args:
            path: a file of any format that FFmpeg reads.
            every: give only the first of so many frames each.
            count: whether to read the file through, without decoding it, for the number of frames
                where it does not say.

        Raises:
            ImportError: PyAV is not installed.
            FileNotFoundError: there is no such file.
            UnreadableImageError: it is no video.
            OSError: it cannot be read.
        """
        self._path = Path(path)
        self._every = every
        self.num_broken = 0
        with self._open() as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            # Not the container's, which is that of the sound where it goes on after the pictures.
            self._length = _length(stream)
            by_length = round((self._length or 0) * rate)
            # A clip that was trimmed without being encoded anew counts what it does not show, too.
            is_trimmed = by_length and _falls_short(by_length, stream.frames)
            self._count = 0 if is_trimmed else stream.frames
            num_frames = self._count or (self._num_packets(container) if count else by_length)
        self.frame_rate = float(rate / every)
        self.num_frames = -(-num_frames // every) if num_frames else None
        self._step = float(1 / rate)
        self._num_given, self._end, self._longest = 0, 0.0, 0.0

    @property
    def missing(self) -> str:
        """Which frames the file announces besides those given so far, in words; empty if none."""
        if self._count:
            announced = -(-self._count // self._every)
            if _falls_short(self._num_given, announced):
                return f"only {self._num_given} of {announced} frames are there"
        elif self._length:
            # The last frame may be shown as long as another.
            end = self._end + _MISSING_FRAMES * max(self._longest, self._step)
            if end < (1 - _MISSING_SHARE) * self._length:
                return f"its pictures end after {self._end:.1f} of {self._length:.1f} seconds"
        return ""

    def __iter__(self) -> Iterator[VideoFrame]:
        self.num_broken = self._num_given = index = 0
        self._end = self._longest = 0.0
        last_time = -self._step
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            start = float((stream.start_time or 0) * stream.time_base)
            for frame in self._decode(container, stream):
                if frame is not None:
                    # Raw streams have no times.
                    seconds = last_time + self._step if frame.time is None else frame.time - start
                    if index:
                        self._longest = max(self._longest, seconds - last_time)
                    self._end = seconds + self._step
                    last_time = seconds
                    if index % self._every == 0:
                        image = frame.to_ndarray(format="rgb24")
                        image = np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
                        self._num_given += 1
                        yield VideoFrame(index, seconds, image)
                index += 1

    def _open(self) -> Any:
        av = _import_av()
        try:
            container = av.open(str(self._path), metadata_errors="replace")
        except FileNotFoundError:
            raise
        except (OSError, ValueError, av.error.FFmpegError) as error:
            # FFmpeg's own numbers of errors say nothing.
            reason = getattr(error, "strerror", None) or error
            raise UnreadableImageError(
                f"{self._path} is no video that can be read: {reason}"
            ) from error
        if not container.streams.video:
            container.close()
            raise UnreadableImageError(f"{self._path} has no pictures, only sound or text")
        return container

    def _num_packets(self, container: Any) -> int:
        """Count the pieces of the file that are to be shown: each is a frame."""
        count = 0
        with (
            _errors_in_words(self._path, "cannot be read to its end"),
            contextlib.suppress(_import_av().error.InvalidDataError),  # where it is cut off
        ):
            for packet in container.demux(container.streams.video[0]):
                count += packet.size > 0 and not packet.is_discard
        return count

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        """Give the frames, None for what cannot be decoded."""
        av = _import_av()
        packets = container.demux(stream)
        while True:
            with _errors_in_words(self._path, "cannot be read to its end"):
                try:
                    packet = next(packets, None)
                    if packet is None:
                        return
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    self.num_broken += 1
                    frames = [None]
            yield from frames


def _falls_short(number: int, announced: int) -> bool:
    """Tell whether there are clearly fewer frames than announced."""
    return number < (1 - _MISSING_SHARE) * announced - _MISSING_FRAMES


def _length(stream: Any) -> float | None:
    """Seconds that a stream lasts by what the file says of it; None where it says nothing."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # Matroska and WebM: hours, minutes and seconds, as text.
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return (int(hours) * 60 + int(minutes)) * 60 + float(seconds)
    except ValueError:
        return None


class Camera:
    """The newest frame of a camera, each time one is asked for; there may be others in between.

    It ends only when the camera does.

    Attributes:
        frame_rate: frames a second, as the camera says.
        num_frames: None: nobody knows.
        num_broken: 0: OpenCV does not tell.
        missing: "": nobody knows.
    """

    num_frames = None
    num_broken = 0
    missing = ""

    def __init__(self, name: str):
        """
        Args:
            name: "0" for the first camera of the machine, "1" for the next; or what else OpenCV's
                ``VideoCapture`` opens, such as the address of a network camera.

        Raises:
            UnreadableImageError: there is no such camera.
        """
        with _quiet_opencv():
            self._capture = cv2.VideoCapture(int(name) if name.isdecimal() else name)
        if not self._capture.isOpened():
            raise UnreadableImageError(
                f"{CAMERA_PREFIX}{name}: no such camera, or another program uses it"
            )
        self.frame_rate = self._capture.get(cv2.CAP_PROP_FPS) or 30.0

    def __iter__(self) -> Iterator[VideoFrame]:
        # Frames come when they come: those that nobody waits for are passed over.
        newest: queue.Queue[VideoFrame | None] = queue.Queue(maxsize=1)
        left = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(newest, left), daemon=True)
        watcher.start()
        try:
            while (frame := newest.get()) is not None:
                yield frame
        finally:
            left.set()
            watcher.join()
            self._capture.release()

    def _watch(self, newest: queue.Queue[VideoFrame | None], left: threading.Event) -> None:
        start = time.monotonic()
        for index in itertools.count():
            there, bgr = self._capture.read()
            if left.is_set():
                return
            if not there:
                break
            frame = VideoFrame(index, time.monotonic() - start, bgr[..., ::-1].copy())
            with contextlib.suppress(queue.Empty):
                newest.get_nowait()
            newest.put(frame)
        # The end takes no frame's place: the last one is seen too.
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                return newest.put(None, timeout=0.1)


class VideoWriter:
    """Makes a video of pictures: H.264 in an MP4 file, without sound.

    After a kill the file can be played up to the last picture but a few: each is written at once,
    with what is needed to find it. Closing makes it an ordinary MP4 file.
    """

    def __init__(self, path: Path, frame_rate: float):
        """
        Args:
            path: the file; an earlier one is replaced.
            frame_rate: pictures a second, about; each has a time of its own.

        Raises:
            ImportError: PyAV is not installed.
            OSError: the file cannot be written.
        """
        av = _import_av()
        self._path = path
        with _errors_in_words(path, "cannot be written"):
            self._container = av.open(
                str(path),
                "w",
                format="mp4",
                options={
                    "movflags": "hybrid_fragmented+frag_every_frame+default_base_moof",
                    "flush_packets": "1",
                },
            )
        rate = Fraction(frame_rate).limit_denominator(1001)
        # Without looking ahead, no picture waits in the encoder.
        options = {"preset": "veryfast", "tune": "zerolatency", "crf": "20"}
        self._stream = self._container.add_stream("libx264", rate, options=options)
        self._stream.pix_fmt = "yuv420p"  # all browsers and telephones show it
        self._stream.codec_context.time_base = Fraction(1, _CLOCK)
        self._size: tuple[int, int] | None = None
        self._last_tick = -1

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Add a picture.

        Args:
            image: uint8 (H, W, 3), RGB. All are shown at the size of the first, to which an odd
                side adds a line of pixels: H.264 has even sides only.
            seconds: when it is shown; later than the one before, or it is shown right after it.

        Raises:
            OSError: the file cannot be written.
        """
        av = _import_av()
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._size is None:
            self._size = image.shape[:2]
            self._stream.height, self._stream.width = self._size
        if image.shape[:2] != self._size:
            image = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_AREA)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        self._last_tick = max(round(seconds * _CLOCK), self._last_tick + 1)
        frame.pts, frame.time_base = self._last_tick, Fraction(1, _CLOCK)
        with _errors_in_words(self._path, "cannot be written"):
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: it cannot be written.
        """
        with _errors_in_words(self._path, "cannot be written"):
            if self._size is not None:
                self._container.mux(self._stream.encode())
            self._container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from telling on standard error what an error of ours tells."""
    log = getattr(cv2.utils, "logging", cv2)  # cv2.setLogLevel in OpenCV 4 only
    level = log.getLogLevel()
    log.setLogLevel(0)
    try:
        yield
    finally:
        log.setLogLevel(level)


@contextlib.contextmanager
def _errors_in_words(path: Path, what: str) -> Iterator[None]:
    """Name the file in FFmpeg's errors, and leave out its own numbers of them.

    Raises:
        OSError: of the system, with its number; or of FFmpeg, without one.
    """
    av = _import_av()
    try:
        yield
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise OSError(f"{path} {what}: {error.strerror}") from error


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError("videos need PyAV: pip install 'aiparsing_d2[video]'") from error
    return av

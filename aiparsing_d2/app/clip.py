"""A clip that somebody gave to the page, and what is made of it: a video to look at, and data."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, wait
from pathlib import Path

from aiparsing_d2.inference.tracking import PersonTracker
from aiparsing_d2.inference.video import (
    ParsedFrame,
    parse_video,
    save_frames,
    video_result_files,
)
from aiparsing_d2.inference.video_files import VIDEO_SUFFIXES, VideoFile, VideoFrame

from .upload import UploadParser, UploadRefusedError

__all__ = ["FEWEST_PER_SECOND", "Clip", "is_clip"]

FEWEST_PER_SECOND = 5
"""So many frames of a clip are parsed at least: with fewer, people who move are not followed."""

_KINDS = ("overlay", "json")
# In seconds.
_BETWEEN_REPORTS = 0.5
_LONGEST_WAIT = 5


def is_clip(path: str | os.PathLike) -> bool:
    """Tell whether a file is a video, by its name, as ``aiparsing parse`` does."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


class Clip:
    """A clip, which is parsed once, when those that came before it are done.

    Of a clip with more frames than are taken every second one is parsed, or every third, and so on,
    down to five a second. Whatever comes after the last is left out.

    Attributes:
        name: the file's name, without folders and suffix.
        every: of so many frames the first is parsed.
        num_frames: about how many frames will be parsed; None where the file does not say.
        num_done: how many are.
        seconds: when the last of them is seen, since the clip's beginning.
        is_cut: whether the clip is longer than what is parsed of it.
        is_stopped: whether somebody wants no more frames.
        is_discarded: whether nobody wants the results.
        part_labels: of the predictor.
        parts: names of the parts that were seen.
        files: at the end, the video and the data (a line of JSON for each frame).
    """

    def __init__(self, parser: UploadParser, path: str | os.PathLike, threshold: float):
        """
        Args:
            parser: whose predictor, and limits.
            path: the file.
            threshold: lowest score of a person, in 0..1.

        Raises:
            UploadRefusedError: it is no video, or videos cannot be read here.
        """
        self._path = Path(path)
        try:
            # An estimate that is too high would leave out frames for which there is room.
            self.every = _every(VideoFile(path, count=True), parser.max_frames)
            self._video = VideoFile(path, every=self.every, count=True)
        except (ImportError, OSError) as error:
            message = str(error).replace(str(path), self._path.name)
            raise UploadRefusedError(message) from error
        self.name = self._path.stem
        self.num_frames = self._video.num_frames and min(self._video.num_frames, parser.max_frames)
        self.num_done = 0
        self.seconds = 0.0
        self.is_cut = self.is_stopped = self.is_discarded = False
        self.files: list[Path] = []
        self.parts: set[str] = set()
        self._parser = parser
        self._predictor = parser.predictor(threshold)
        self.part_labels = self._predictor.part_labels
        self._tracker = PersonTracker()
        self._saving: Future[None] | None = None

    @property
    def num_people(self) -> int:
        """How many different people were seen."""
        return self._tracker.num_people

    @property
    def num_broken(self) -> int:
        """How many pieces of the file could not be decoded."""
        return self._video.num_broken

    @property
    def num_before(self) -> int:
        """How many clips come before this one; 0 once its turn has come."""
        clips = list(self._parser.clips)
        return clips.index(self) if self in clips else 0

    def stop(self) -> None:
        """Parse no more frames."""
        self.is_stopped = True

    def discard(self) -> None:
        """Parse no more frames, and leave no results; waits a while until none are left."""
        self.is_discarded = self.is_stopped = True
        if self._saving is not None and not self._saving.cancel():
            wait([self._saving], _LONGEST_WAIT)

    def parse(self, folder: Path) -> Iterator[None]:
        """Parse the frames and write the results; comes back now and then, for a report.

        Args:
            folder: for the results alone; it is made, and removed where there are none.

        Raises:
            UploadRefusedError: no frame can be read, one is larger than may be, or the results
                cannot be written.
        """
        self._saving = self._parser.in_line(self, self._save, folder)
        try:
            while not self._saving.done():
                wait([self._saving], _BETWEEN_REPORTS)
                if not self.is_discarded:
                    yield
        except GeneratorExit:  # the visitor left
            self.discard()
            raise
        if self.is_discarded:
            return
        try:
            self._saving.result()
        except UploadRefusedError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UploadRefusedError(f"{self._path.name}: {reason}") from error

    def _save(self, folder: Path) -> None:
        try:
            if self.is_discarded:
                return
            frames = self._parsed_frames()
            save_frames(frames, folder, self.name, _KINDS, self._video.frame_rate)
            if not self.is_discarded:
                self.files = list(video_result_files(folder, self.name, _KINDS).values())
        finally:
            if not self.files:
                shutil.rmtree(folder, ignore_errors=True)

    def _parsed_frames(self) -> Iterator[ParsedFrame]:
        frames = parse_video(self._predictor, self._frames(), tracker=self._tracker)
        with contextlib.closing(frames):
            for frame in frames:
                self.num_done += 1
                self.seconds = frame.time
                self.parts.update(part for person in frame.people for part in person.parts)
                yield frame
                if self.is_stopped:
                    return

    def _frames(self) -> Iterator[VideoFrame]:
        for index, frame in enumerate(self._video):
            if index == self._parser.max_frames:
                self.is_cut = True
                return
            self._parser.check_size(self._path.name, *frame.image.shape[:2])
            yield frame


def _every(video: VideoFile, max_frames: int) -> int:
    """Of how many frames to parse the first."""
    fewest = max(1, math.floor(video.frame_rate / FEWEST_PER_SECOND))
    return min(math.ceil((video.num_frames or 1) / max_frames), fewest)

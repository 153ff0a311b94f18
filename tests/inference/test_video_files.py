"""Videos written and read again, against what was drawn and against OpenCV's reader."""

from __future__ import annotations

import os
import re
import signal
import struct
import sys
import threading
import wave
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from video_streams import SCREEN_RECORDING, write_stream

from aiparsing_d2.data.image_files import UnreadableImageError
from aiparsing_d2.inference.video_files import Camera, VideoFile, VideoWriter

TIMES = [0.0, 0.04, 0.08, 0.25, 0.5, 0.52, 0.6]
STRIPES = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 150, 120)]


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Stripes in four colours, with a white block whose place tells the number."""
    image = np.array(STRIPES, dtype=np.uint8).repeat(width // 4, axis=0)[None].repeat(height, 0)
    image[-16:, 8 * number : 8 * number + 8] = 255
    return image


def write_video(path, times=TIMES, **size):
    with VideoWriter(path, 25) as writer:
        for number, seconds in enumerate(times):
            writer.write(picture(number, **size), seconds)
    return path


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "clip.mp4")


def number_of(image: np.ndarray) -> int:
    return int(np.argmax(image[-8:].astype(int).sum(axis=(0, 2)).reshape(-1, 8).sum(axis=1)))


def test_frames_come_back_with_their_times_and_colours(video):
    frames = list(VideoFile(video))
    assert [frame.number for frame in frames] == list(range(7))
    assert [frame.time for frame in frames] == pytest.approx(TIMES, abs=1e-4)
    for frame in frames:
        assert frame.image.dtype == np.uint8 and frame.image.shape == (48, 64, 3)
        assert number_of(frame.image) == frame.number
        for stripe, color in enumerate(STRIPES):
            middle = frame.image[10:20, 16 * stripe + 6 : 16 * stripe + 10]
            assert np.abs(middle.astype(int) - color).max() <= 8


def test_an_ordinary_mp4_that_opencv_reads_too(video):
    with av.open(str(video)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.frames == 7
    capture = cv2.VideoCapture(str(video))
    numbers = []
    while (read := capture.read())[0]:
        numbers.append(number_of(read[1]))
    assert numbers == list(range(7))


def test_every_nth_frame(video):
    reader = VideoFile(video, every=3)
    assert reader.num_frames == 3
    assert [(frame.number, number_of(frame.image)) for frame in reader] == [(0, 0), (3, 3), (6, 6)]
    assert reader.frame_rate == pytest.approx(VideoFile(video).frame_rate / 3)


def test_odd_sides_and_changing_sizes(tmp_path):
    with VideoWriter(tmp_path / "odd.mp4", 25) as writer:
        for number, size in enumerate([(47, 61), (47, 61), (94, 122)]):
            writer.write(np.full((*size, 3), 60 * number, dtype=np.uint8), number / 25)
    shapes = {frame.image.shape for frame in VideoFile(tmp_path / "odd.mp4")}
    assert shapes == {(48, 62, 3)}


def test_times_that_go_back_are_put_right(tmp_path):
    video = write_video(tmp_path / "back.mp4", [0, 0.5, 0.2, 0.2, 1])
    frames = list(VideoFile(video))
    assert [number_of(frame.image) for frame in frames] == list(range(5))
    assert np.diff([frame.time for frame in frames]).min() > 0


@pytest.mark.parametrize(
    "matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)], ids=["90", "180", "270"]
)
def test_turned_as_a_phone_noted(video, matrix):
    content = bytearray(video.read_bytes())
    start = content.rindex(b"tkhd") + 44  # of the 3 x 3 matrix, in 16.16 and 2.30 fixed point
    a, b, c, d = (side << 16 for side in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    video.write_bytes(content)
    capture = cv2.VideoCapture(str(video))
    for frame in VideoFile(video):
        np.testing.assert_array_equal(frame.image, capture.read()[1][..., ::-1])
    assert frame.image.shape == ((64, 48, 3) if matrix[0] == 0 else (48, 64, 3))


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_playable_after_a_kill(tmp_path):
    path = tmp_path / "killed.mp4"
    child = os.fork()
    if not child:
        try:
            writer = VideoWriter(path, 25)
            for number, seconds in enumerate(TIMES):
                writer.write(picture(number), seconds)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    frames = list(VideoFile(path))
    assert len(frames) >= 6  # how long the last one is shown would have been told by the next
    assert [number_of(frame.image) for frame in frames] == list(range(len(frames)))
    assert [frame.time for frame in frames] == pytest.approx(TIMES[: len(frames)], abs=1e-4)


def test_a_damaged_frame_is_left_out_and_counted(video):
    with av.open(str(video)) as container:
        places = [packet.pos for packet in container.demux() if packet.size]
    content = bytearray(video.read_bytes())
    content[places[3] : places[3] + 4] = b"\xff\xff\xff\xff"  # the length of what follows
    video.write_bytes(content)
    reader = VideoFile(video)
    assert [frame.number for frame in reader] == [0, 1, 2, 4, 5, 6]
    assert reader.num_broken == 1


def test_what_is_no_video(tmp_path):
    with pytest.raises(FileNotFoundError):
        VideoFile(tmp_path / "none.mp4")
    for content in (b"", b"a text", bytes(5000)):
        (tmp_path / "text.mp4").write_bytes(content)
        with pytest.raises(UnreadableImageError) as error:
            VideoFile(tmp_path / "text.mp4")
        assert "text.mp4 is no video that can be read" in str(error.value)
        assert "Errno" not in str(error.value)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", None))
        sound.writeframes(bytes(8000))
    with pytest.raises(UnreadableImageError, match="sound.wav has no pictures"):
        VideoFile(tmp_path / "sound.wav")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (av.error.PatchWelcomeError(1163346256, "Not yet implemented"), "read to its end: Not yet"),
        (av.error.OSError(5, "Input/output error"), r"\[Errno 5\] Input/output error: '.*clip"),
    ],
)
def test_errors_of_ffmpeg_name_the_file_and_no_numbers_of_its_own(
    video, tmp_path, monkeypatch, error, message
):
    class Failing(SimpleNamespace):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    def fail(*_):
        raise error

    reader = VideoFile(video)
    stream = SimpleNamespace(start_time=0, time_base=1)
    packets = iter([SimpleNamespace(decode=fail)])
    container = Failing(streams=SimpleNamespace(video=[stream]), demux=lambda _: packets)
    monkeypatch.setattr(reader, "_open", lambda: container)
    with pytest.raises(OSError, match=message) as raised:
        list(reader)
    assert video.name in str(raised.value) and "1163346256" not in str(raised.value)

    with VideoWriter(tmp_path / "made.mp4", 25) as writer:
        monkeypatch.setattr(writer, "_stream", SimpleNamespace(encode=fail))
        with pytest.raises(OSError, match="made.mp4") as raised:
            writer.write(np.zeros((8, 8, 3), np.uint8), 0)
        assert "1163346256" not in str(raised.value)
        writer._size = None  # nothing to finish


def test_without_pyav(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'aiparsing_d2\[video\]'"):
        VideoFile(video)


def test_a_camera_gives_its_newest_frame(video):
    """A file stands in for the camera: it is as fast as it is read."""
    frames = iter(Camera(str(video)))
    first = next(frames)
    assert first.image.shape == (48, 64, 3) and number_of(first.image) == first.number
    rest = list(frames)
    indices = [first.number, *(frame.number for frame in rest)]
    assert indices == sorted(set(indices)) and indices[-1] == 6
    for frame in rest:
        assert number_of(frame.image) == frame.number
    times = [first.time, *(frame.time for frame in rest)]
    assert times == sorted(times)


def test_the_last_frame_of_a_camera_is_seen_however_late(video, monkeypatch):
    class EagerThread(threading.Thread):
        def start(self):
            super().start()
            self.join(0.5)  # the whole file has been read by then

    monkeypatch.setattr(threading, "Thread", EagerThread)
    (frame,) = Camera(str(video))
    assert frame.number == number_of(frame.image) == 6


def test_a_camera_that_is_left(video):
    camera = Camera(str(video))
    for _ in camera:
        break
    assert not camera._capture.isOpened()


def test_no_such_camera(capfd):
    log = getattr(cv2.utils, "logging", cv2)
    before = log.getLogLevel()
    with pytest.raises(UnreadableImageError, match="camera:99: no such camera"):
        Camera("99")
    assert capfd.readouterr().err == ""  # OpenCV would tell of it in lines of its own
    assert log.getLogLevel() == before


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4"])
def test_sound_that_outlasts_the_pictures_announces_no_frames(tmp_path, suffix):
    codec = "libx264" if suffix == ".mp4" else "libvpx"
    seconds = 0 if suffix == ".webm" else 6  # WebM takes no AAC
    path = write_stream(tmp_path / f"clip{suffix}", range(0, 2000, 40), seconds, codec)
    video = VideoFile(path)
    assert 49 <= video.num_frames <= 51
    assert len(list(video)) == 50 and video.missing == ""


def test_a_screen_recording_is_whole(tmp_path):
    """It has fewer frames than its rate announces; reading it through counts them."""
    path = write_stream(tmp_path / "screen.mkv", SCREEN_RECORDING)
    video = VideoFile(path)
    assert video.num_frames > 300
    assert len(list(video)) == 89 and video.missing == ""
    assert VideoFile(path, count=True).num_frames == 89
    assert VideoFile(path, count=True, every=2).num_frames == 45


def test_one_frame_of_a_clip_is_all_that_was_asked_for(tmp_path):
    video = VideoFile(write_stream(tmp_path / "clip.mkv", range(0, 4000, 40)), every=1000)
    assert len(list(video)) == 1 and video.missing == ""


def test_a_clip_that_was_trimmed_is_whole(tmp_path):
    """An MP4 keeps the frames that an edit list does not show."""
    path = write_stream(tmp_path / "clip.mp4", range(0, 4000, 40), codec="libx264")
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 12  # of the duration
    (duration,) = struct.unpack_from(">I", content, place)
    struct.pack_into(">I", content, place, duration // 2)
    path.write_bytes(content)
    for count in (False, True):
        video = VideoFile(path, count=count)
        assert video.num_frames == len(list(video)) == 50
        assert video.missing == ""


def test_the_end_that_is_missing_is_told(tmp_path):
    path = write_stream(tmp_path / "clip.mkv", range(0, 8000, 40))
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 2])
    video = VideoFile(path)
    count = len(list(video))
    assert 60 < count < 140
    assert re.fullmatch(r"its pictures end after \d\.\d of [78]\.\d seconds", video.missing)

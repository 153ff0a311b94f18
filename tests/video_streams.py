"""Video files as other programs write them."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

__all__ = ["SCREEN_RECORDING", "write_stream"]

SCREEN_RECORDING = [17 * i for i in range(60)] + [1000 + 500 * i for i in range(1, 30)]
"""Milliseconds of its 89 frames: quick ones, then some of half a second."""


def write_stream(
    path: Path, times: Iterable[int], seconds_of_sound: int = 0, codec: str = "libvpx"
) -> Path:
    """Write a file with frames at the given milliseconds, and maybe silence.

    It announces 25 frames a second, whatever the times are.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", 48000) if seconds_of_sound else None
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            for start in range(0, 48000 * seconds_of_sound, 960):
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, 960), np.float32), format="fltp", layout="mono"
                )
                silence.sample_rate, silence.pts = 48000, start
                container.mux(sound.encode(silence))
            container.mux(sound.encode())
    return path

"""Drawn videos as a data set in VIP's layout on disk.

Every 25th frame (1, 26, 51, ...) is annotated, as CIHP's images are, and listed. As in VIP, the
number of a person may change from frame to frame.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aiparsing_d2.data import layouts

from .cihp_writer import count_annotated_people, write_annotations
from .data_set_writer import DataSetRequest, write_jpeg, write_lines
from .video import DrawnVideo


@dataclass(frozen=True)
class VIPRequest(DataSetRequest):
    """What a drawn data set in VIP's layout is to hold; see ``DataSetRequest``.

    Attributes:
        annotated_frames: frames with annotations per video, at least one; a video ends with one.
        all_frames: whether to write the pictures of the frames between them, too.
    """

    num_train: int = 12
    num_val: int = 4
    annotated_frames: int = 4
    all_frames: bool = False

    layout: ClassVar[str] = "vip"
    unit: ClassVar[str] = "videos"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.annotated_frames < 1:
            raise ValueError(
                f"A video needs at least one annotated frame, got {self.annotated_frames}."
            )

    @property
    def num_frames(self) -> int:
        """Length of a video."""
        return 1 + layouts.VIP_FRAME_STEP * (self.annotated_frames - 1)

    def prepare(self, root: Path) -> list[tuple[str, int, str, int]]:
        annotated = range(0, self.num_frames, layouts.VIP_FRAME_STEP)
        drawn = range(self.num_frames) if self.all_frames else annotated
        videos = {
            split: [f"videos{number}" for number in numbers]
            for split, numbers in self.numbers().items()
        }
        for split, names in videos.items():
            ids = [_frame_id(name, frame) for name in names for frame in annotated]
            write_lines(root / layouts.VIP[split].id_lists[0], ids)
        write_lines(root / layouts.VIP_VAL_VIDEOS, videos["val"])
        return [
            (split, index, name, frame)
            for split, names in videos.items()
            for index, name in enumerate(names)
            for frame in drawn
        ]

    def write_image(
        self, root: Path, split: str, index: int, video: str, frame: int
    ) -> tuple[str, int]:
        name = _frame_id(video, frame)
        layout = layouts.VIP[split]
        image_path = root / layout.images / f"{name}.jpg"
        is_annotated = frame % layouts.VIP_FRAME_STEP == 0
        if is_annotated:
            num_people = count_annotated_people(root, layout, name)
        else:
            num_people = 0 if image_path.exists() else None
        if num_people is not None:
            return split, num_people

        drawn_video, quality = _draw_up_video(self, split, index)
        scene = drawn_video.draw_frame(frame)
        write_jpeg(image_path, scene.image, quality)
        if not is_annotated:
            return split, 0
        write_annotations(root, layout, name, scene)
        return split, scene.num_people


def _frame_id(video: str, frame: int) -> str:
    """Id of a frame counted from 0; on disk frames count from 1."""
    return layouts.vip_frame_id(video, frame + 1)


@functools.lru_cache(maxsize=1)  # the frames of a video are drawn one after another
def _draw_up_video(request: VIPRequest, split: str, index: int) -> tuple[DrawnVideo, int]:
    """Return a video, and the quality of its JPEGs."""
    rng = request.rng(split, index)
    video = DrawnVideo(rng, *request.choose_size(rng), request.num_frames)
    return video, int(rng.integers(72, 96))

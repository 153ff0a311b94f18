"""The format ``vip``: the result folders of the LIP challenge on video multi-person parsing.

::

    <folder>/
      <video>/
        global_parsing/<frame>.png
        instance_parsing/<frame>.png + .txt
        instance_segmentation/<frame>.png + .txt

Image ids are ``<video>/<frame>``. What the files hold and how they are scored is said in
:mod:`.instance_folders`. Every person must have a box.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .files import SubmissionError
from .instance_folders import FOLDER_NAMES, InstanceFolders

__all__ = ["VipSubmission"]


class VipSubmission(InstanceFolders):
    """Results in the format ``vip``, see the module."""

    format_name = "vip"
    needs_boxes = True

    @staticmethod
    def recognizes(folder: Path) -> bool:
        return any((video / name).is_dir() for video in folder.iterdir() for name in FOLDER_NAMES)

    def file_name(self, image_id: str, folder_name: str, suffix: str) -> str:
        video, slash, frame = image_id.rpartition("/")
        if not slash:
            raise SubmissionError(
                f"{image_id!r} names no frame of a video: the format vip needs image ids "
                "'<video>/<frame>'"
            )
        return f"{video}/{folder_name}/{frame}{suffix}"

    def folders(self, folder_name: str) -> Iterator[tuple[str, Path]]:
        if self.files.root.is_dir():
            for video in sorted(self.files.root.iterdir()):
                if (video / folder_name).is_dir():
                    yield f"{video.name}/", video / folder_name

"""The format ``cihp``: the result folders of the LIP challenges on multi-person parsing.

::

    <folder>/
      global_parsing/<image_id>.png
      instance_parsing/<image_id>.png + .txt
      instance_segmentation/<image_id>.png + .txt

What the files hold and how they are scored is said in :mod:`.instance_folders`. The challenge asks
for the first two folders. The third is how its video track holds people; here it makes APp, PCP and
box AP defined, and boxes may be left out of it (lines of one score).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .instance_folders import FOLDER_NAMES, InstanceFolders

__all__ = ["CihpSubmission"]


class CihpSubmission(InstanceFolders):
    """Results in the format ``cihp``, see the module."""

    format_name = "cihp"
    needs_boxes = False

    @staticmethod
    def recognizes(folder: Path) -> bool:
        return any((folder / name).is_dir() for name in FOLDER_NAMES)

    def file_name(self, image_id: str, folder_name: str, suffix: str) -> str:
        return f"{folder_name}/{image_id}{suffix}"

    def folders(self, folder_name: str) -> Iterator[tuple[str, Path]]:
        folder = self.files.root / folder_name
        if folder.is_dir():
            yield "", folder

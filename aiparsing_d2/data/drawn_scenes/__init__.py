"""Drawn scenes: pictures of articulated people with exact part labels, made without any data.

``python -m aiparsing_d2.data.drawn_scenes --output DIR`` writes a data set in CIHP's layout;
``draw_scene`` gives a single scene. Needs numpy, OpenCV, Pillow and tqdm only.

The way of a scene: ``person`` draws up a person (``skeleton`` and ``poses`` for the body,
``wardrobe`` and ``fabric`` for the clothes), ``figure`` and ``head`` draw it on a ``canvas`` of its
own, ``scene`` lays such layers over a ``background``, ``cihp_writer`` writes the files.
"""

from .cihp_writer import DataSetRequest, FolderInUseError, write_data_set
from .parts import Part
from .scene import DrawnScene, draw_scene

__all__ = [
    "DataSetRequest",
    "DrawnScene",
    "FolderInUseError",
    "Part",
    "draw_scene",
    "write_data_set",
]

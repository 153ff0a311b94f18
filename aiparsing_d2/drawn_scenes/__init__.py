"""Drawn scenes: pictures of articulated people with exact part labels, made without any data.

``python -m aiparsing_d2.drawn_scenes --output DIR`` writes a data set in CIHP's layout, or in
that of LV-MHP-v2 or VIP (``--layout``); ``draw_scene`` gives one scene, ``DrawnVideo`` a video.
Needs numpy, OpenCV, Pillow and tqdm only.

The way of a scene: ``person`` draws up a person (``skeleton`` and ``poses`` for the body,
``wardrobe``, ``accessories`` and ``fabric`` for the clothes), ``figure`` and ``head`` draw it on a
``canvas`` of its own, ``scene`` lays such layers over a ``background``, ``video`` moves the people.
Each layout has a writer that knows its files; ``data_set_writer`` is what they share.
"""

from .cihp_writer import CIHPRequest
from .data_set_writer import DataSetRequest, FolderInUseError, write_data_set
from .lv_mhp_v2_writer import LVMHPv2Request
from .parts import Part
from .scene import DrawnScene, draw_scene
from .video import DrawnVideo
from .vip_writer import VIPRequest

__all__ = [
    "CIHPRequest",
    "DataSetRequest",
    "DrawnScene",
    "DrawnVideo",
    "FolderInUseError",
    "LVMHPv2Request",
    "Part",
    "VIPRequest",
    "draw_scene",
    "write_data_set",
]

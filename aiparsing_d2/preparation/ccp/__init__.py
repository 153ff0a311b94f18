"""Clothing Co-Parsing (CCP) as a data set in CIHP's layout, with CIHP's parts or its own tags.

Yang, Luo, Lin: "Clothing Co-Parsing by Joint Image Segmentation and Labeling", CVPR 2014. Needs
neither torch nor Detectron2, but SciPy, which reads the MATLAB files.
"""

from .body_parts import cihp_parts
from .conversion import CCPRequest, FolderInUseError, convert_ccp
from .landmarks import photograph_landmarks
from .tags import TAGS

__all__ = [
    "TAGS",
    "CCPRequest",
    "FolderInUseError",
    "cihp_parts",
    "convert_ccp",
    "photograph_landmarks",
]

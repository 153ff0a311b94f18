"""Data sets. Importing this package registers the built-in splits; no file is touched.

The built-in data sets are expected under :func:`datasets_root`. A data set of your own takes one
call: of :func:`register_cihp`, :func:`register_lv_mhp_v2` or :func:`register_vip` if its folders
look like theirs, of :func:`register_coco_parsing` if it has a JSON file in COCO's format, else of
:func:`register_parsing_dataset`.
"""

from .cihp import load_cihp, register_all_cihp, register_cihp
from .coco_parsing import load_coco_parsing, register_coco_parsing
from .lv_mhp_v2 import load_lv_mhp_v2, register_all_lv_mhp_v2, register_lv_mhp_v2
from .registration import datasets_root, register_parsing_dataset
from .vip import load_vip, register_all_vip, register_vip

__all__ = [
    "datasets_root",
    "load_cihp",
    "load_coco_parsing",
    "load_lv_mhp_v2",
    "load_vip",
    "register_all_cihp",
    "register_all_lv_mhp_v2",
    "register_all_vip",
    "register_cihp",
    "register_coco_parsing",
    "register_lv_mhp_v2",
    "register_parsing_dataset",
    "register_vip",
]

register_all_cihp(datasets_root())
register_all_lv_mhp_v2(datasets_root())
register_all_vip(datasets_root())

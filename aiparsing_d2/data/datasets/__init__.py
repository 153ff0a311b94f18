"""Data sets. Importing this package registers the built-in splits; no file is touched.

The built-in data sets are expected under :func:`datasets_root`. A data set of your own takes one
call, of :func:`register_cihp` if its folders look like CIHP's, else of
:func:`register_parsing_dataset`.
"""

from .cihp import load_cihp, register_all_cihp, register_cihp
from .registration import datasets_root, register_parsing_dataset

__all__ = [
    "datasets_root",
    "load_cihp",
    "register_all_cihp",
    "register_cihp",
    "register_parsing_dataset",
]

register_all_cihp(datasets_root())

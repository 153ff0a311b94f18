from .authors import AUTHORS_SETTINGS, convert_authors
from .checkpointer import ParsingCheckpointer
from .conversion import Conversion, ConversionError
from .settings import apply_settings
from .timm_weights import PackagePathHandler, convert_timm
from .torchvision import TORCHVISION_SETTINGS, convert_torchvision
from .weight_file import WeightFile, WeightFileError, read_weights, write_weights

__all__ = [
    "AUTHORS_SETTINGS",
    "TORCHVISION_SETTINGS",
    "Conversion",
    "ConversionError",
    "PackagePathHandler",
    "ParsingCheckpointer",
    "WeightFile",
    "WeightFileError",
    "apply_settings",
    "convert_authors",
    "convert_timm",
    "convert_torchvision",
    "read_weights",
    "write_weights",
]

from .authors import AUTHORS_SETTINGS, convert_authors
from .conversion import Conversion, ConversionError
from .settings import apply_settings
from .torchvision import TORCHVISION_SETTINGS, convert_torchvision
from .weight_file import WeightFile, WeightFileError, read_weights, write_weights

__all__ = [
    "AUTHORS_SETTINGS",
    "TORCHVISION_SETTINGS",
    "Conversion",
    "ConversionError",
    "WeightFile",
    "WeightFileError",
    "apply_settings",
    "convert_authors",
    "convert_torchvision",
    "read_weights",
    "write_weights",
]

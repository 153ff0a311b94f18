"""What a person's parts are made of: label sets, part maps, and the logits they come from.

:mod:`.part_labels`, :mod:`.cropped_maps` and :mod:`.painting` need only numpy, so torch is imported
only for those who ask for the rest.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cropped_maps import CroppedMaps
    from .part_logits import ROIPartLogits
    from .part_maps import PartMaps
    from .pasting import paste_part_maps
    from .person_masks import PersonMasks

_MODULES = {
    "CroppedMaps": ".cropped_maps",
    "PartMaps": ".part_maps",
    "PersonMasks": ".person_masks",
    "ROIPartLogits": ".part_logits",
    "paste_part_maps": ".pasting",
}

__all__ = ["CroppedMaps", "PartMaps", "PersonMasks", "ROIPartLogits", "paste_part_maps"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name], __name__), name)

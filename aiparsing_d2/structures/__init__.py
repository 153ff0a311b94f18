"""What a person's parts are made of: label sets, part maps, and the logits they come from.

:mod:`.part_labels` and :mod:`.cropped_maps` need only numpy, so torch is imported only for those
who ask for the rest.
"""

__all__ = ["CroppedMaps", "PartMaps", "ROIPartLogits"]


def __getattr__(name: str):
    if name == "CroppedMaps":
        from .cropped_maps import CroppedMaps

        return CroppedMaps
    if name == "PartMaps":
        from .part_maps import PartMaps

        return PartMaps
    if name == "ROIPartLogits":
        from .part_logits import ROIPartLogits

        return ROIPartLogits
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

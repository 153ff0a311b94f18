from .part_logits import ROIPartLogits
from .part_maps import PartMaps

__all__ = ["PartMaps", "ROIPartLogits"]

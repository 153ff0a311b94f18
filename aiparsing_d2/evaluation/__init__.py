"""Metrics of human parsing.

:class:`ParsingMetrics` scores any system's output from numpy arrays; it needs neither torch nor
Detectron2. :class:`ParsingEvaluator` is the Detectron2 evaluator around it.
"""

from typing import TYPE_CHECKING, Any

from aiparsing_d2.structures.cropped_maps import CroppedMaps

from .image_inputs import GroundTruth, PartRegions, Prediction
from .parsing_metrics import ParsingMetrics, ParsingScores

if TYPE_CHECKING:
    from .parsing_evaluator import ParsingEvaluator

__all__ = [
    "CroppedMaps",
    "GroundTruth",
    "ParsingEvaluator",
    "ParsingMetrics",
    "ParsingScores",
    "PartRegions",
    "Prediction",
]


def __getattr__(name: str) -> Any:
    # Detectron2 is imported only for those who ask for its evaluator.
    if name == "ParsingEvaluator":
        from .parsing_evaluator import ParsingEvaluator

        return ParsingEvaluator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

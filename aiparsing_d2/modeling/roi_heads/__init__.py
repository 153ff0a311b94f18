from .context import (
    ASPP,
    PARSING_CONTEXT_REGISTRY,
    PARSING_NON_LOCAL_REGISTRY,
    PGEC,
    PSP,
    GatherExcite,
    NonLocalBlock,
)
from .parsing_head import ROI_PARSING_HEAD_REGISTRY, EdgeGuidedParsingHead, build_parsing_head
from .parsing_roi_heads import OneStageParsingROIHeads, ParsingROIHeads
from .score_head import PARSING_SCORE_HEAD_REGISTRY, ParsingScoreHead

__all__ = [
    "ASPP",
    "PARSING_CONTEXT_REGISTRY",
    "PARSING_NON_LOCAL_REGISTRY",
    "PARSING_SCORE_HEAD_REGISTRY",
    "PGEC",
    "PSP",
    "ROI_PARSING_HEAD_REGISTRY",
    "EdgeGuidedParsingHead",
    "GatherExcite",
    "NonLocalBlock",
    "OneStageParsingROIHeads",
    "ParsingROIHeads",
    "ParsingScoreHead",
    "build_parsing_head",
]

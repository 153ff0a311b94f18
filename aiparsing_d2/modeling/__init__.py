from . import backbone, proposal_generator, roi_heads
from .backbone import (
    BilinearFPN,
    TimmBackbone,
    build_aiparsing_resnet_fpn_backbone,
    build_aiparsing_timm_fpn_backbone,
)
from .inference_optimization import PRECISIONS, best_precision, optimize_for_inference
from .meta_arch import AIParsing
from .postprocessing import parsing_postprocess
from .proposal_generator import FCOSHead, FCOSProposalGenerator
from .roi_heads import (
    PARSING_CONTEXT_REGISTRY,
    PARSING_NON_LOCAL_REGISTRY,
    PARSING_SCORE_HEAD_REGISTRY,
    ROI_PARSING_HEAD_REGISTRY,
    EdgeGuidedParsingHead,
    OneStageParsingROIHeads,
    ParsingROIHeads,
    ParsingScoreHead,
)
from .soft_nms import soft_nms
from .test_time_augmentation import AIParsingWithTTA

__all__ = [
    "PARSING_CONTEXT_REGISTRY",
    "PARSING_NON_LOCAL_REGISTRY",
    "PARSING_SCORE_HEAD_REGISTRY",
    "PRECISIONS",
    "ROI_PARSING_HEAD_REGISTRY",
    "AIParsing",
    "AIParsingWithTTA",
    "BilinearFPN",
    "EdgeGuidedParsingHead",
    "FCOSHead",
    "FCOSProposalGenerator",
    "OneStageParsingROIHeads",
    "ParsingROIHeads",
    "ParsingScoreHead",
    "TimmBackbone",
    "backbone",
    "best_precision",
    "build_aiparsing_resnet_fpn_backbone",
    "build_aiparsing_timm_fpn_backbone",
    "optimize_for_inference",
    "parsing_postprocess",
    "proposal_generator",
    "roi_heads",
    "soft_nms",
]

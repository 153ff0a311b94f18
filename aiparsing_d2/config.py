"""Keys that the yacs configs of this project add to Detectron2's."""

from __future__ import annotations

from detectron2.config import CfgNode as CN


def add_aiparsing_config(cfg: CN) -> None:
    """Add the keys of the FPN and of timm's bodies, of the FCOS proposals, the parsing branch and
    test-time augmentation.

    Keys that are there already keep their values, so calling it twice changes nothing.

    Args:
        cfg: a config from :func:`detectron2.config.get_cfg`, changed in place.
    """
    fpn = cfg.MODEL.FPN
    # Resize bilinearly to each lateral's exact size on the top-down path, without padding images.
    fpn.setdefault("BILINEAR_TOP_DOWN", False)

    # Of build_aiparsing_timm_fpn_backbone, which also reads BACKBONE.FREEZE_AT.
    timm = cfg.MODEL.setdefault("TIMM", CN())
    timm.setdefault("NAME", "tf_efficientnet_lite0")
    # Batch norms keep their statistics and affine parameters.
    timm.setdefault("FREEZE_NORMS", True)
    # Further arguments of timm.create_model.
    timm.setdefault("OPTIONS", CN(new_allowed=True))

    # Of AIParsing at test: sides of boxes from the detector's (0) to where the parts end (1).
    cfg.MODEL.setdefault("PART_BOX_WEIGHT", 0.0)

    fcos = cfg.MODEL.setdefault("FCOS_PROPOSALS", CN())
    fcos.setdefault("IN_FEATURES", ["p3", "p4", "p5", "p6", "p7"])
    # Convolutions in each of the two towers.
    fcos.setdefault("NUM_CONVS", 4)
    fcos.setdefault("NORM", "GN")
    # Foreground probability the classifier starts with.
    fcos.setdefault("PRIOR_PROB", 0.01)
    # Largest box distances in pixels at which one level hands over to the next.
    fcos.setdefault("SIZES_OF_INTEREST", [64, 128, 256, 512])
    # In strides.
    fcos.setdefault("CENTER_SAMPLING_RADIUS", 1.5)
    fcos.setdefault("FOCAL_LOSS_ALPHA", 0.25)
    fcos.setdefault("FOCAL_LOSS_GAMMA", 2.0)
    # "giou", or "iou" for the paper's UnitBox loss.
    fcos.setdefault("BOX_LOSS_TYPE", "giou")
    fcos.setdefault("LOSS_WEIGHT", 1.0)
    # Losses of the whole batch, however many processes share it; else of each process's images.
    fcos.setdefault("LOSSES_OVER_PROCESSES", True)
    # Classification probability a candidate must exceed, before centre-ness.
    fcos.setdefault("SCORE_THRESH", 0.03)
    # Per level and image.
    fcos.setdefault("PRE_NMS_TOPK", 1000)
    fcos.setdefault("NMS_THRESH", 0.6)
    # Per image.
    fcos.setdefault("POST_NMS_TOPK_TRAIN", 100)
    fcos.setdefault("POST_NMS_TOPK_TEST", 50)
    # Right and bottom sides of proposals are their last pixels' indices; the model's output has
    # Detectron2's convention.
    fcos.setdefault("INCLUSIVE_BOXES", False)

    head = cfg.MODEL.setdefault("ROI_PARSING_HEAD", CN())
    head.setdefault("NAME", "EdgeGuidedParsingHead")
    # Classes including background: 20 in CIHP and VIP, 59 in LV-MHP-v2.
    head.setdefault("NUM_CLASSES", 20)
    # Detail-preserving pooling reads the finest level only.
    head.setdefault("IN_FEATURES", ["p3"])
    head.setdefault("POOLER_RESOLUTION", 32)
    head.setdefault("POOLER_SAMPLING_RATIO", 2)
    head.setdefault("POOLER_TYPE", "ROIAlignV2")
    # Most positive RoIs per image to train on.
    head.setdefault("BATCH_SIZE_PER_IMAGE", 16)
    # Multi-scale context module, a name in PARSING_CONTEXT_REGISTRY ("PGEC", "ASPP", "PSP"); "" for
    # none.
    head.setdefault("CONTEXT", "PGEC")
    # Part relations, a name in PARSING_NON_LOCAL_REGISTRY; "" for none.
    head.setdefault("NON_LOCAL", "NonLocalBlock")
    # Shared 3x3 convolutions; CONV_DIM also is the context module's output.
    head.setdefault("NUM_CONV", 4)
    head.setdefault("CONV_DIM", 512)
    # After the last shared convolution; "" for none.
    head.setdefault("NORM", "GN")
    head.setdefault("EDGE_ON", True)
    # Predict edges at test too, to look at.
    head.setdefault("EDGES_AT_TEST", False)
    # Side of the maps on which edges are marked, 4 pixels wide, before they are reduced to the
    # losses' resolution; 256 for the paper's width relative to a RoI, 0 for that resolution.
    head.setdefault("EDGE_SIZE", 0)
    # From the predictors' 2 x POOLER_RESOLUTION to the losses' resolution.
    head.setdefault("UPSAMPLE_FACTOR", 4)
    # Predicts mIoUs, a name in PARSING_SCORE_HEAD_REGISTRY; "" for none.
    head.setdefault("SCORE_HEAD", "ParsingScoreHead")
    head.setdefault("SCORE_CONV_DIM", 128)
    head.setdefault("SCORE_FC_DIM", 256)
    # Clip predicted mIoUs to [0, 1] at test.
    head.setdefault("CLAMP_MIOUS", True)
    # Leave out parts that are nowhere in a person's box as likely as this at test; 0: none.
    head.setdefault("MIN_PART_PROBABILITY", 0.0)
    # alpha and beta of Eq. 3, theta and gamma of Eq. 5.
    head.setdefault("PARSING_LOSS_WEIGHT", 2.0)
    head.setdefault("EDGE_LOSS_WEIGHT", 2.0)
    head.setdefault("MIOU_LOSS_WEIGHT", 2.0)
    head.setdefault("SCORE_LOSS_WEIGHT", 1.0)
    # As that of FCOS_PROPOSALS.
    head.setdefault("LOSSES_OVER_PROCESSES", True)
    # Compute the encoding again in the backward pass instead of keeping it: less memory, more time.
    head.setdefault("CHECKPOINT_ACTIVATIONS", False)

    for old, new, values in (
        ("NON_LOCAL_ON", "NON_LOCAL", '"NonLocalBlock" or ""'),
        ("SCORE_ON", "SCORE_HEAD", '"ParsingScoreHead" or ""'),
    ):
        old, new = f"MODEL.ROI_PARSING_HEAD.{old}", f"MODEL.ROI_PARSING_HEAD.{new}"
        if not cfg.key_is_renamed(old):
            cfg.register_renamed_key(old, new, f"{values}, not a bool")

    augmentation = cfg.TEST.AUG
    # Box score a view's detection must exceed to be merged.
    augmentation.setdefault("SCORE_THRESH", 0.05)
    # IoU above which merging lowers a score (soft-NMS).
    augmentation.setdefault("NMS_THRESH", 0.5)

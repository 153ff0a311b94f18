"""How the code that the authors' published weights were trained with treats images and boxes.

For weights from ``python -m aiparsing_d2 convert-weights authors``; docs/WEIGHTS.md lists what
differs from Detectron2.
"""

from detectron2.config import LazyCall as L

from aiparsing_d2.data.transforms import FloatDatasetMapperTTA, FloatResizeShortestEdge
from aiparsing_d2.modeling import BilinearFPN


def use_authors_conventions(model, dataloader, test_time_augmentation=None):
    """Sets the conventions of any of the AIParsing models and of its test images.

    The body keeps its stride, which is in the 1x1 convolutions of the authors' ResNets.
    """
    model.pixel_mean = [102.9801, 115.9465, 122.7717]
    model.pixel_std = [1.0, 1.0, 1.0]
    # Test images are not padded, so the top-down path resizes to whatever size a lateral has.
    model.backbone._target_ = BilinearFPN
    # In decoding, suppression and pasting.
    model.proposal_generator.inclusive_boxes = True
    # Without the half-pixel shift of ROIAlignV2.
    model.roi_heads.parsing_pooler.pooler_type = "ROIAlign"
    # Part logits of 256x256.
    model.roi_heads.parsing_head.upsample_factor = 4
    model.roi_heads.parsing_head.clamp_mious = False

    mapper = dataloader.test.mapper
    resize = mapper.augmentations[0]
    mapper.augmentations = [
        L(FloatResizeShortestEdge)(
            short_edge_length=resize.short_edge_length, max_size=resize.max_size
        )
    ]
    if test_time_augmentation is not None:
        test_time_augmentation.wrapper.mapper._target_ = FloatDatasetMapperTTA

"""What one must know of an exported model to use it without this package."""

from __future__ import annotations

from typing import Any

from detectron2.data import transforms as T
from PIL import Image

import aiparsing_d2
from aiparsing_d2.inference import ParsingPredictor

from .image_parser import ImageParser

__all__ = ["describe"]

_OUTPUTS = {
    "boxes": "float32 (N, 4): x0, y0, x1, y1 in pixels of the resized picture, of the part logits",
    "part_ends": "float32 (N, 4): where the parts end, x0, y0, x1, y1 in 0..1 of the box",
    "scores": "float32 (N,): of the people, descending, none below the threshold",
    "detection_scores": "float32 (N,): of the boxes",
    "parsing_scores": "float32 (N,): predicted mean IoU of the parts",
    "part_logits": "float32 (N, classes, M, M): over the boxes, before the upsampling",
}


def describe(
    predictor: ParsingPredictor, parser: ImageParser, format_name: str, file_name: str
) -> dict[str, Any]:
    """Make the content of the JSON file beside an exported model.

    Raises:
        ValueError: the test set's pictures are changed otherwise than by one
            ``ResizeShortestEdge`` to one size.
    """
    model = predictor.model
    head = model.roi_heads.parsing_head
    labels = predictor.part_labels
    content = {
        "format": format_name,
        "file": file_name,
        "made_by": f"aiparsing_d2 {aiparsing_d2.__version__}",
        "inputs": {
            "image": "uint8 (H, W, 3): the picture in RGB, resized as below",
            "score_threshold": "float32, a number: lowest score of a person",
        },
        "resize": _resize(predictor),
        "score_threshold": predictor.score_threshold,
        "outputs": {name: _OUTPUTS[name] for name in parser.output_names},
        "most_people": model.proposal_generator.post_nms_topk[1],
        "upsample_factor": getattr(head, "upsample_factor", 1),
        "inclusive_boxes": model.proposal_generator.inclusive_boxes,
        "part_box_weight": getattr(model, "part_box_weight", 0.0),
        "part_names": list(labels.names),
        "part_colors": [list(color) for color in labels.colors],
        "part_flip_pairs": [list(pair) for pair in labels.flip_pairs],
        # For information: the graph does both.
        "normalized_in_the_graph": {
            "channel_order": predictor.image_format,
            "pixel_mean": model.pixel_mean.flatten().tolist(),
            "pixel_std": model.pixel_std.flatten().tolist(),
        },
    }
    if format_name == "torch-export":
        content["least_side"] = parser.least_side
    return content


def _resize(predictor: ParsingPredictor) -> dict[str, Any]:
    augmentations = predictor.augmentations
    if len(augmentations) == 1 and type(augmentations[0]) is T.ResizeShortestEdge:
        resize = augmentations[0]
        sides = set(resize.short_edge_length)
        if len(sides) == 1 and resize.interp == Image.Resampling.BILINEAR:
            return {
                "short_side": int(sides.pop()),
                "longest_side": int(resize.max_size),
                "interpolation": "bilinear",
            }
    raise ValueError(
        "the test set's mapper must have one augmentation, a bilinear ResizeShortestEdge to one "
        f"size, for others to do the same; got {augmentations}"
    )

"""From network output to predictions at the input image's size."""

from __future__ import annotations

from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances


def parsing_postprocess(
    results: Instances, output_height: int, output_width: int, inclusive_boxes: bool = False
) -> Instances:
    """Rescales boxes and pastes part maps; the parsing counterpart of ``detector_postprocess``.

    Also completes the output of a stock ``GeneralizedRCNN`` with a parsing branch, which leaves
    ``pred_part_logits`` relative to the boxes.

    Args:
        results: with ``pred_boxes`` and ``pred_part_logits`` in the frame of
            ``results.image_size``; left unchanged.
        output_height, output_width: of the original image, in pixels.
        inclusive_boxes: whether the right and bottom sides of ``results.pred_boxes`` are the last
            pixels' indices, see :class:`FCOSProposalGenerator`. Those of the returned boxes end
            where these pixels do, as everywhere in Detectron2.

    Returns:
        New instances in the output frame. ``pred_part_logits`` is replaced by ``pred_part_maps``
        (:class:`PartMaps`) and ``pred_part_scores`` (N, C), the mean probability of each class
        over the person's pixels of that class. ``pred_edge_logits``, if there, become
        ``pred_edges`` (:class:`PartMaps`, 1 = edge). People with an empty box are dropped;
        an inclusive box is never empty.
    """
    image_size = (output_height, output_width)
    # Boxes are scaled in place.
    results = Instances(results.image_size, **results.get_fields())
    results.pred_boxes = results.pred_boxes.clone()
    if inclusive_boxes:
        height, width = results.image_size
        results.pred_boxes.scale(output_width / width, output_height / height)
        results = Instances(image_size, **results.get_fields())
    else:
        results = detector_postprocess(results, output_height, output_width)
    boxes = results.pred_boxes.tensor
    part_maps, part_scores = results.pred_part_logits.to_part_maps(
        boxes, image_size, inclusive_boxes
    )
    results.remove("pred_part_logits")
    results.pred_part_maps = part_maps
    results.pred_part_scores = part_scores
    if results.has("pred_edge_logits"):
        results.pred_edges, _ = results.pred_edge_logits.to_part_maps(
            boxes, image_size, inclusive_boxes
        )
        results.remove("pred_edge_logits")
    if inclusive_boxes:
        results.pred_boxes = Boxes(boxes + boxes.new_tensor([0, 0, 1, 1]))
    return results

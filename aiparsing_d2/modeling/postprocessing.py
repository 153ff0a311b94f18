"""From network output to predictions at the input image's size."""

from __future__ import annotations

from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

from aiparsing_d2.structures import paste_part_maps


def parsing_postprocess(
    results: Instances,
    output_height: int,
    output_width: int,
    inclusive_boxes: bool = False,
    part_box_weight: float = 0.0,
) -> Instances:
    """Rescale boxes and paste part maps; the parsing counterpart of ``detector_postprocess``.

    For raw outputs only, in the frame of the network's input. The output of Detectron2's own
    ``GeneralizedRCNN`` is rescaled already and only needs
    :func:`~aiparsing_d2.structures.paste_part_maps`.

    Args:
        results: with ``pred_boxes`` and ``pred_part_logits`` in the frame of
            ``results.image_size``; left unchanged.
        output_height, output_width: of the original image, in pixels.
        inclusive_boxes: whether the right and bottom sides of ``results.pred_boxes`` are the last
            pixels' indices, see :class:`FCOSProposalGenerator`. Those of the returned boxes end
            where these pixels do, as everywhere in Detectron2.
        part_box_weight: see :class:`AIParsing`.

    Returns:
        New instances in the output frame, with the fields of
        :func:`~aiparsing_d2.structures.paste_part_maps`. People with an empty box are dropped; an
        inclusive box is never empty.

    Raises:
        ValueError: the instances are postprocessed already.
    """
    if results.has("pred_masks") and results.pred_masks.ndim == 3:  # a raw one has four
        raise ValueError(
            "parsing_postprocess takes a model's raw instances, but these have full-size masks: "
            "they are postprocessed already. paste_part_maps completes them."
        )
    # Boxes are scaled in place.
    results = Instances(results.image_size, **results.get_fields())
    results.pred_boxes = results.pred_boxes.clone()
    if not inclusive_boxes:
        results = detector_postprocess(results, output_height, output_width)
        ends = _boxes_toward_parts(results, results.pred_boxes, part_box_weight)
        results = paste_part_maps(results)
        results.pred_boxes = ends
        return results
    height, width = results.image_size
    scale_x, scale_y = output_width / width, output_height / height
    boxes = results.pred_boxes.clone()
    boxes.scale(scale_x, scale_y)
    ends = Boxes(boxes.tensor + boxes.tensor.new_tensor([0, 0, 1, 1]))
    # Masks and keypoints know the boxes that end where their pixels do; none of these is empty.
    results.pred_boxes = ends.clone()
    results.pred_boxes.scale(1 / scale_x, 1 / scale_y)
    results = detector_postprocess(results, output_height, output_width)
    ends = _boxes_toward_parts(results, ends, part_box_weight)
    results.pred_boxes = boxes
    results = paste_part_maps(results, inclusive_boxes=True)
    results.pred_boxes = ends
    return results


def _boxes_toward_parts(results: Instances, boxes: Boxes, weight: float) -> Boxes:
    if not weight or not results.has("pred_part_logits"):
        return boxes
    return Boxes(boxes.tensor.lerp(results.pred_part_logits.person_boxes(boxes.tensor), weight))

"""From box-relative part logits to part maps of the image."""

from __future__ import annotations

from detectron2.structures import Instances

from .person_masks import PersonMasks


def paste_part_maps(instances: Instances, inclusive_boxes: bool = False) -> Instances:
    """Paste part logits into the image, where the instances have not been pasted yet.

    This is all that the output of Detectron2's own ``GeneralizedRCNN`` with a parsing branch still
    needs: it has brought boxes, masks and keypoints to the size of the original image and left the
    part logits relative to the boxes. ``ParsingEvaluator`` and ``SubmissionWriter`` call this
    themselves, and the output of :class:`~aiparsing_d2.modeling.AIParsing` is pasted already.

    Args:
        instances: at the size of the original image; left unchanged.
        inclusive_boxes: whether the right and bottom sides of ``pred_boxes`` are the last pixels'
            indices; see :meth:`ROIPartLogits.to_part_maps`.

    Returns:
        The same instances if they have no ``pred_part_logits``. Else new ones, in which

        * ``pred_part_logits`` is replaced by ``pred_part_maps`` (:class:`PartMaps`) and
          ``pred_part_scores`` (N, C), the mean probability of each class over the person's pixels
          of that class;
        * ``pred_masks`` are the people as :class:`PersonMasks`, unless a mask head gave masks;
        * ``pred_edge_logits``, if there, become ``pred_edges`` (:class:`PartMaps`, 1 = edge).
    """
    if not instances.has("pred_part_logits"):
        return instances
    results = Instances(instances.image_size, **instances.get_fields())
    pasting = (results.pred_boxes.tensor, results.image_size, inclusive_boxes)
    results.pred_part_maps, results.pred_part_scores = results.pred_part_logits.to_part_maps(
        *pasting
    )
    results.remove("pred_part_logits")
    if not results.has("pred_masks"):
        results.pred_masks = PersonMasks(results.pred_part_maps)
    if results.has("pred_edge_logits"):
        results.pred_edges, _ = results.pred_edge_logits.to_part_maps(*pasting, with_scores=False)
        results.remove("pred_edge_logits")
    return results

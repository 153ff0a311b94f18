"""The AIParsing network (paper, Fig. 3)."""

from __future__ import annotations

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import Instances

from .postprocessing import parsing_postprocess


@META_ARCH_REGISTRY.register()
class AIParsing(GeneralizedRCNN):
    """Backbone, proposal generator and parsing RoI heads; outputs at the input images' sizes.

    Built and called like Detectron2's ``GeneralizedRCNN``. At test each image's ``instances`` have

    * ``pred_boxes``: ``Boxes`` (N, 4), XYXY in original image pixels; with ``inclusive_boxes`` the
      right and bottom sides are the last pixels' indices, of which ``ParsingEvaluator`` and
      ``SubmissionWriter`` are to be told by their arguments of that name;
    * ``scores``: (N,) person score sqrt(cls * centre-ness * mIoU), or the box score if the parsing
      head has no score head;
    * ``box_scores``: (N,) the detector's: cls * centre-ness, or the box head's score;
    * ``pred_classes``: (N,) zeros, the class person;
    * ``pred_mious``: (N,) with a score head only, in [0, 1] unless its head does not clamp them;
    * ``pred_part_maps``: ``PartMaps`` of the N people in original image pixels;
    * ``pred_part_scores``: (N, C) mean probability of each class over its pixels;
    * ``pred_edges``: ``PartMaps`` with 1 on part boundaries, if the head has ``edges_at_test``.
    """

    @configurable
    def __init__(self, *, inclusive_boxes: bool = False, **kwargs):
        """
        Args:
            inclusive_boxes: whether the boxes' right and bottom sides are their last pixels'
                indices, as the proposal generator decides; see :func:`parsing_postprocess`.
            **kwargs: see ``GeneralizedRCNN``.
        """
        super().__init__(**kwargs)
        self.inclusive_boxes = inclusive_boxes

    @classmethod
    def from_config(cls, cfg):
        inclusive_boxes = cfg.MODEL.FCOS_PROPOSALS.INCLUSIVE_BOXES
        return {**super().from_config(cfg), "inclusive_boxes": inclusive_boxes}

    def inference(
        self,
        batched_inputs: list[dict],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[dict] | list[Instances]:
        """See ``GeneralizedRCNN.inference``.

        Returns:
            With ``do_postprocess`` a list of ``{"instances": Instances}`` as above. Without it the
            raw instances in the frame of the network's input, with box-relative
            ``pred_part_logits`` (:class:`ROIPartLogits`) instead of part maps.
        """
        results = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        if not do_postprocess:
            return results
        return [
            {
                "instances": parsing_postprocess(
                    instances,
                    image_input.get("height", instances.image_size[0]),
                    image_input.get("width", instances.image_size[1]),
                    self.inclusive_boxes,
                )
            }
            for instances, image_input in zip(results, batched_inputs)
        ]

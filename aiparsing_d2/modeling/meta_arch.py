"""The AIParsing network (paper, Fig. 3)."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import Instances

from .postprocessing import parsing_postprocess


@META_ARCH_REGISTRY.register()
class AIParsing(GeneralizedRCNN):
    """Backbone, proposal generator and parsing RoI heads; outputs at the input images' sizes.

    Built and called like Detectron2's ``GeneralizedRCNN``. At test each image's ``instances`` have

    * ``pred_boxes``: ``Boxes`` (N, 4), XYXY in original image pixels, sides between pixels: the
      detector's, moved by ``part_box_weight`` toward where the parts end;
    * ``scores``: (N,) person score sqrt(cls * centre-ness * mIoU), or the box score if the parsing
      head has no score head;
    * ``box_scores``: (N,) the detector's: cls * centre-ness, or the box head's score;
    * ``pred_classes``: (N,) zeros, the class person;
    * ``pred_mious``: (N,) with a score head only, in [0, 1] unless its head does not clamp them;
    * ``pred_part_maps``: ``PartMaps`` of the N people in original image pixels;
    * ``pred_part_scores``: (N, C) mean probability of each class over its pixels;
    * ``pred_masks``: bool (N, H, W) of a mask head if there is one, else :class:`PersonMasks`, the
      people of ``pred_part_maps`` in the same form;
    * ``pred_edges``: ``PartMaps`` with 1 on part boundaries, if the head has ``edges_at_test``.
    """

    @configurable
    def __init__(self, *, part_box_weight: float = 0.0, **kwargs: Any):
        """
        Args:
            part_box_weight: how far the sides of boxes are moved at test, from the detector's (0,
                as in the paper) to where the parts end (1), see ``ROIPartLogits.person_boxes``.
                Part maps and scores stay as they are.
            kwargs: as for ``GeneralizedRCNN``.

        Raises:
            ValueError: the weight is not in 0..1.
        """
        super().__init__(**kwargs)
        if not 0 <= part_box_weight <= 1:
            raise ValueError(f"part_box_weight must be in 0..1, got {part_box_weight}")
        self.part_box_weight = part_box_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "part_box_weight": cfg.MODEL.PART_BOX_WEIGHT}

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
            ``pred_part_logits`` (:class:`ROIPartLogits`) instead of part maps, and boxes in the
            proposal generator's convention, which ``detected_instances`` are in too.
        """
        results = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        if not do_postprocess:
            return results
        inclusive_boxes = getattr(self.proposal_generator, "inclusive_boxes", False)
        return [
            {
                "instances": parsing_postprocess(
                    instances,
                    image_input.get("height", instances.image_size[0]),
                    image_input.get("width", instances.image_size[1]),
                    inclusive_boxes,
                    self.part_box_weight,
                )
            }
            for instances, image_input in zip(results, batched_inputs)
        ]

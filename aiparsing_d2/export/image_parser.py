"""A model as one function of tensors, which a graph can hold."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling import GeneralizedRCNN
from torch import Tensor, nn

from aiparsing_d2.modeling import FCOSProposalGenerator, OneStageParsingROIHeads
from aiparsing_d2.structures import ROIPartLogits

__all__ = ["ImageParser"]


class ImageParser(nn.Module):
    """Finds and parses the people of one picture: what ``ParsingPredictor`` does up to the pasting.

    Each step is an operation on tensors whose sizes may depend on the data, so that a graph of it
    serves any size of the picture and any number of people, nobody too.

    Attributes:
        model: in evaluation mode.
        output_names: of the tensors that :meth:`forward` gives.
        least_side: of pictures with more than one cell in each feature map's row and column, which
            torch.export takes for another case than a single cell.
    """

    model: Any

    def __init__(self, model: Any, image_format: str):
        """
        Args:
            model: an AIParsing: :class:`FCOSProposalGenerator`, :class:`OneStageParsingROIHeads`
                with one feature map, and a parsing head with a ``predict`` as
                :class:`EdgeGuidedParsingHead` has it.
            image_format: "BGR" or "RGB", the order of the channels that the model reads.

        Raises:
            ValueError: the model is another, or reads grey pictures.
        """
        super().__init__()
        _check_exportable(model, image_format)
        self.model = model
        self.is_bgr = image_format == "BGR"
        self.least_side = max(model.proposal_generator.strides) + 1
        self.output_names = ["boxes", "part_ends", "scores", "detection_scores", "part_logits"]
        if getattr(model.roi_heads.parsing_head, "score_head", None) is not None:
            self.output_names.insert(4, "parsing_scores")

    def forward(self, image: Tensor, score_threshold: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            image: uint8 (H, W, 3), RGB, resized as for the model.
            score_threshold: float32, a number: lowest score of a person.

        Returns:
            Of the N people, by descending score,

            * boxes (N, 4), XYXY in pixels of the resized picture, in the convention of the model's
              proposal generator, which the part logits are relative to;
            * part ends (N, 4), where the parts end in XYXY of the box, 0..1, to which boxes are
              moved by the model's ``part_box_weight``, see ``ROIPartLogits.person_boxes``;
            * scores (N,), detection scores (N,) and, with a score head, parsing scores (N,);
            * part logits (N, C, M, M) over the boxes, before their upsampling.
        """
        features = self._features(image)
        boxes, scores = self._detect(features, (image.shape[0], image.shape[1]), score_threshold)
        heads = self.model.roi_heads
        (name,), (pooler,) = heads.parsing_in_features, heads.parsing_pooler.level_poolers
        rois = F.pad(boxes, (1, 0))  # all of the image 0
        predictions = heads.parsing_head.predict(pooler(features[name], rois))

        logits = ROIPartLogits(
            predictions["pred_part_logits"], getattr(heads.parsing_head, "upsample_factor", 1)
        )
        unit_boxes = torch.zeros_like(boxes) + boxes.new_tensor([0, 0, 1, 1])
        outputs = {
            "boxes": boxes,
            "part_ends": logits.person_boxes(unit_boxes),
            "scores": scores.clamp(min=0),
            "detection_scores": scores,
            "part_logits": logits.tensor,
        }
        if "parsing_scores" in self.output_names:
            mious = outputs["parsing_scores"] = predictions["pred_mious"]
            outputs["scores"] = (outputs["scores"] * mious.clamp(min=0)).sqrt()
        kept = (outputs["scores"] >= score_threshold) & (scores >= 0)
        outputs = {name: values[kept] for name, values in outputs.items()}
        order = outputs["scores"].sort(descending=True, stable=True).indices
        return tuple(outputs[name][order] for name in self.output_names)

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        """Normalise, pad and encode as ``GeneralizedRCNN`` does one picture."""
        model = self.model
        height, width = image.shape[0], image.shape[1]
        pixels = image.permute(2, 0, 1).float()
        if self.is_bgr:
            pixels = pixels.flip(0)
        pixels = (pixels - model.pixel_mean) / model.pixel_std
        divisor = max(model.backbone.size_divisibility, 1)
        # Written as a multiple, so that torch.export can reckon with the sizes of all maps.
        right = (width + divisor - 1) // divisor * divisor - width
        below = (height + divisor - 1) // divisor * divisor - height
        return model.backbone(F.pad(pixels, (0, right, 0, below))[None])

    def _detect(
        self, features: dict[str, Tensor], image_size: tuple[int, int], score_threshold: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give boxes and scores of those who can reach the threshold.

        Nobody becomes one of score -1: not every runtime has each layer for an empty batch.
        """
        ((boxes, logits),) = self.model.proposal_generator.detect(features, [image_size])
        scores = logits.sigmoid()
        # A score is at most the root of the detection's, unless mIoUs may exceed 1.
        if getattr(self.model.roi_heads.parsing_head, "clamp_mious", False):
            kept = scores >= score_threshold**2
        else:
            kept = scores >= 0
        kept = torch.cat([kept, ~kept.any(dim=0, keepdim=True)])
        boxes = torch.cat([boxes, boxes.new_tensor([[0, 0, 1, 1]])])
        scores = torch.cat([scores, scores.new_tensor([-1])])
        return boxes[kept], scores[kept]


def _check_exportable(model: Any, image_format: str) -> None:
    if image_format not in ("BGR", "RGB"):
        raise ValueError(f"models that read {image_format} are not exported, only BGR and RGB")
    if not isinstance(model, GeneralizedRCNN):
        raise ValueError(f"only a GeneralizedRCNN is exported, not a {type(model).__name__}")
    for part, expected in (
        (model.proposal_generator, FCOSProposalGenerator),
        (model.roi_heads, OneStageParsingROIHeads),
    ):
        if not isinstance(part, expected):
            raise ValueError(
                f"only models with {expected.__name__} are exported, not with "
                f"{type(part).__name__}: AIParsing, not Parsing R-CNN"
            )
    if len(model.roi_heads.parsing_in_features) != 1:
        raise ValueError(
            "only models whose parsing head reads one feature map are exported, not "
            f"{', '.join(model.roi_heads.parsing_in_features)}"
        )
    if not hasattr(model.roi_heads.parsing_head, "predict"):
        raise ValueError(
            f"{type(model.roi_heads.parsing_head).__name__} cannot be exported: it has no predict, "
            "see EdgeGuidedParsingHead.predict"
        )

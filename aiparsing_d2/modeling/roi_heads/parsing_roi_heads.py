"""RoI heads with a human-parsing branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    StandardROIHeads,
    select_foreground_proposals,
)
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ..feature_maps import select_feature_maps
from .parsing_head import build_parsing_head

_FEATURE_KEYS = (
    "MODEL.ROI_PARSING_HEAD.IN_FEATURES (yacs) or model.roi_heads.parsing_in_features with the "
    "scales of parsing_pooler (LazyConfig)"
)


@ROI_HEADS_REGISTRY.register()
class ParsingROIHeads(StandardROIHeads):
    """Detectron2's box, mask and keypoint heads plus a parsing branch.

    For detectors whose proposals still need a box head, such as RPN. While training, ground truth
    of class -1 is of people without labels: proposals that overlap one of them most are neither
    positives nor negatives of any head, as Detectron2 has it. At test the instances gain
    ``pred_part_logits``, ``box_scores`` (the box head's score) and, with a score head,
    ``pred_mious``; ``scores`` becomes the person score sqrt(box_scores * pred_mious) (paper,
    Sec. III-B, "Refinement head").
    """

    @configurable
    def __init__(
        self,
        *,
        parsing_in_features: Sequence[str],
        parsing_pooler: ROIPooler,
        parsing_head: nn.Module,
        parsing_batch_size_per_image: int = 16,
        **kwargs: Any,
    ):
        """
        Args:
            parsing_in_features: feature maps the parsing branch pools from; the paper's
                detail-preserving pooling reads the finest only.
            parsing_pooler: RoI pooler for those features.
            parsing_head: e.g. :class:`EdgeGuidedParsingHead`.
            parsing_batch_size_per_image: most positive RoIs per image to train it on.
            **kwargs: see :class:`detectron2.modeling.StandardROIHeads`.
        """
        super().__init__(**kwargs)
        self.parsing_in_features = list(parsing_in_features)
        self.parsing_pooler = parsing_pooler
        self.parsing_head = parsing_head
        self.parsing_batch_size_per_image = parsing_batch_size_per_image

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        ret = super().from_config(cfg, input_shape)
        ret.update(cls._init_parsing_head(cfg, input_shape))
        return ret

    @classmethod
    def _init_parsing_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.ROI_PARSING_HEAD
        in_features = node.IN_FEATURES
        shapes = select_feature_maps(input_shape, in_features, cls.__name__, _FEATURE_KEYS)
        (channels,) = {shape.channels for shape in shapes}
        resolution = node.POOLER_RESOLUTION
        return {
            "parsing_in_features": in_features,
            "parsing_pooler": ROIPooler(
                output_size=resolution,
                scales=[1.0 / shape.stride for shape in shapes],
                sampling_ratio=node.POOLER_SAMPLING_RATIO,
                pooler_type=node.POOLER_TYPE,
            ),
            "parsing_head": build_parsing_head(
                cfg, ShapeSpec(channels=channels, height=resolution, width=resolution)
            ),
            "parsing_batch_size_per_image": node.BATCH_SIZE_PER_IMAGE,
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """See :meth:`detectron2.modeling.ROIHeads.forward`."""
        instances, losses = super().forward(images, features, proposals, targets)
        if self.training:
            losses.update(self._forward_parsing(features, instances))
        return instances, losses

    def detect(self, features: dict[str, Tensor], proposals: list[Instances]) -> list[Instances]:
        """Find people without parsing them, in evaluation mode.

        Args:
            features: by name.
            proposals: per image, as the proposal generator gives them.

        Returns:
            Per image, with ``pred_boxes``, ``scores`` and ``pred_classes``; what
            :meth:`forward_with_given_boxes` takes.
        """
        assert not self.training
        return self._forward_box(features, proposals)

    def forward_with_given_boxes(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Parse given boxes, e.g. those merged by test-time augmentation.

        Args:
            features: by name.
            instances: per image, with ``pred_boxes`` and ``pred_classes``, and ``scores`` if they
                are to become person scores. Instances that were parsed before keep their
                ``box_scores``, of which the new person scores are made.

        Returns:
            The same instances with the parsing branch's fields.
        """
        instances = super().forward_with_given_boxes(features, instances)
        return self.parse(features, instances)

    def parse(self, features: dict[str, Tensor], instances: list[Instances]) -> list[Instances]:
        """Parse given boxes in evaluation mode, without running other heads on them.

        Args:
            features: by name; those that the parsing branch pools from are enough.
            instances: see :meth:`forward_with_given_boxes`.

        Returns:
            The same instances with the parsing branch's fields.
        """
        assert not self.training
        return cast("list[Instances]", self._forward_parsing(features, instances))

    def _forward_parsing(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
            instances = [self._subsample(x) for x in instances]
            boxes = [x.proposal_boxes for x in instances]
        else:
            boxes = [x.pred_boxes for x in instances]
        levels = select_feature_maps(
            features, self.parsing_in_features, type(self).__name__, _FEATURE_KEYS
        )
        # In float32: boxes take the dtype of the maps, and torchvision pools half precision on
        # GPUs only.
        pooled = self.parsing_pooler([level.float() for level in levels], boxes)
        pooled = pooled.to(levels[0].dtype)
        if self.training:
            return self.parsing_head(pooled, instances)
        for x in self.parsing_head(pooled, instances):
            if x.has("scores"):
                if not x.has("box_scores"):  # else they were parsed before
                    x.box_scores = x.scores
                if x.has("pred_mious"):
                    # A head that does not clamp mIoUs may predict negative ones.
                    x.scores = (x.box_scores * x.pred_mious.clamp(min=0)).sqrt()
        return instances

    def _subsample(self, positives: Instances) -> Instances:
        if len(positives) <= self.parsing_batch_size_per_image:
            return positives
        device = positives.proposal_boxes.device
        chosen = torch.randperm(len(positives), device=device)[: self.parsing_batch_size_per_image]
        return positives[chosen]


@ROI_HEADS_REGISTRY.register()
class OneStageParsingROIHeads(ParsingROIHeads):
    """Parsing on the detections of a one-stage detector: there is no box head.

    The proposals are the detections: at test ``pred_boxes`` are the proposal boxes and
    ``box_scores`` the sigmoid of their ``objectness_logits``. While training, the branch sees the
    detector's current boxes and the ground truth's, those that overlap a person enough.
    """

    @configurable
    def __init__(self, **kwargs: Any):
        """
        Args:
            **kwargs: see :class:`ParsingROIHeads`, without the box head's.
        """
        super().__init__(
            box_in_features=[], box_pooler=None, box_head=None, box_predictor=None, **kwargs
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from yacs: positives only, ROI_PARSING_HEAD.BATCH_SIZE_PER_IMAGE of an image.

        ROI_HEADS.BATCH_SIZE_PER_IMAGE and POSITIVE_FRACTION, a box head's, are not read.
        """
        ret = super().from_config(cfg, input_shape)
        ret["batch_size_per_image"] = ret["parsing_batch_size_per_image"]
        ret["positive_fraction"] = 1.0
        return ret

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """See :meth:`detectron2.modeling.ROIHeads.label_and_sample_proposals`.

        There are no negatives, so targets of class -1 are dropped. They are not to take proposals
        from the labelled people they overlap.
        """
        device = proposals[0].proposal_boxes.device
        # Many small operations an image, several of which the host waits for: on the CPU they take
        # a fraction of the time.
        labelled = [x[x.gt_classes >= 0] for x in _on_cpu(targets)]
        sampled = super().label_and_sample_proposals(_on_cpu(proposals), labelled)
        return [x.to(device) for x in sampled]

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return {}

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        if self.training:
            return {}
        detections = []
        for x in proposals:
            detections.append(
                Instances(
                    x.image_size,
                    pred_boxes=Boxes(x.proposal_boxes.tensor),
                    scores=x.objectness_logits.sigmoid(),
                    pred_classes=torch.zeros_like(x.objectness_logits, dtype=torch.int64),
                )
            )
        return detections


def _on_cpu(instances: list[Instances]) -> list[Instances]:
    """Copy tensors and boxes to the CPU, those of all images at once."""
    counts = [len(x) for x in instances]
    copies = [Instances(x.image_size) for x in instances]
    for name in instances[0].get_fields():
        values = [x.get(name) for x in instances]
        if isinstance(values[0], Boxes):
            tensors = torch.cat([boxes.tensor for boxes in values]).cpu().split(counts)
            values = [Boxes(tensor) for tensor in tensors]
        elif isinstance(values[0], Tensor):
            values = torch.cat(values).cpu().split(counts)
        for on_cpu, value in zip(copies, values):
            on_cpu.set(name, value)
    return copies

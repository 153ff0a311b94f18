"""Test-time augmentation for human parsing (paper, Sec. IV-A).

Shape shorthand:
    N: people of an image. C: part classes incl. background. T: side of the part probabilities.
A view is one resized and perhaps mirrored copy of the image that the model sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.transforms import TransformList
from detectron2.modeling import DatasetMapperTTA, GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aiparsing_d2.data.transforms import is_mirrored
from aiparsing_d2.structures import ROIPartLogits
from aiparsing_d2.structures.part_labels import PartLabels, get_part_labels

from .postprocessing import parsing_postprocess
from .roi_heads import ParsingROIHeads
from .soft_nms import soft_nms

_MAP_FIELDS = ("pred_part_logits", "pred_edge_logits")


@dataclass
class _View:
    """What is kept of a view: enough to parse given boxes in it.

    Attributes:
        features: the maps the parsing branch pools from, (1, channels, h, w), by name.
        image_size: (H, W) that the model saw.
        transforms: from the output frame to the view.
        mirrored: whether left and right trade places.
        inclusive_boxes: see :class:`FCOSProposalGenerator`.
    """

    features: dict[str, Tensor]
    image_size: tuple[int, int]
    transforms: TransformList
    mirrored: bool
    inclusive_boxes: bool

    @property
    def _mirror_offset(self) -> int:
        """Mirroring moves a side between pixels from x to W - x, a pixel's index to W - 1 - x."""
        return int(self.mirrored and self.inclusive_boxes)

    def boxes_to_view(self, boxes: Tensor) -> Tensor:
        """Boxes (N, 4) of the output frame in the view, float64 on the CPU."""
        corners = self.transforms.apply_box(boxes.cpu().double().numpy())
        corners[:, 0::2] -= self._mirror_offset
        return torch.from_numpy(corners)

    def boxes_to_output(self, boxes: Tensor) -> Tensor:
        """Return the inverse of :meth:`boxes_to_view`."""
        corners = boxes.cpu().double().numpy()
        corners[:, 0::2] += self._mirror_offset
        return torch.from_numpy(self.transforms.inverse().apply_box(corners))


class AIParsingWithTTA(nn.Module):
    """Parses resized and mirrored views of each image and merges what they give.

    Called like the model it wraps, and gives the same fields (see :class:`AIParsing`). The parsing
    counterpart of Detectron2's ``GeneralizedRCNNWithTTA``:

    1. People are detected in every view. Their boxes, mapped back to the image, are merged by soft
       non-maximum suppression; ``box_scores`` are the scores it leaves.
    2. The merged boxes are parsed in every view. The part probabilities are averaged in the frame
       of the boxes, those of mirrored views mirrored back and with left and right parts exchanged.
       ``scores``, ``pred_mious`` and the edge probabilities are averaged too.

    The backbone sees each view once: the feature maps that the parsing branch reads are kept.
    Views are worked off one after the other in an order of their own, so the result depends neither
    on the mapper's order nor on the other images of the batch. Mask and keypoint heads are not run.

    With a proposal generator of ``inclusive_boxes``, the authors' convention, boxes are merged as
    in their code: overlaps are those of whole pixels of the first view that the mapper gives, and
    the boxes, which lie within their views, are not clipped to the image again.

    Memory, beyond what the model needs for one view, does not grow with the number of people but
    for the part maps of the output: the kept features, 16 bytes per pixel of every view (256
    channels at stride 8), and while averaging 3 * ``people_at_once`` * C * T^2 floats. With the
    paper's views of a 4:3 image of LV-MHP-v2, C = 59 and T = 256 that is 0.16 GB + 0.37 GB;
    measured on a CPU, 12 megapixels: 0.7 GB with 8 people, 0.6 GB with 50.
    """

    @configurable
    def __init__(
        self,
        model: nn.Module,
        *,
        mapper: Callable[[dict], list[dict]],
        part_labels: PartLabels,
        score_thresh: float = 0.05,
        nms_thresh: float = 0.5,
        max_people: int = 100,
        people_at_once: int = 8,
    ):
        """
        Args:
            model: a ``GeneralizedRCNN`` such as :class:`AIParsing` with :class:`ParsingROIHeads`
                for one class, or such a model in ``DistributedDataParallel``.
            mapper: makes the views. Takes a dict with ``image`` (uint8 (3, H, W), on the CPU),
                ``height`` and ``width``; returns one dict per view with ``image`` and
                ``transforms`` (from a height x width image to the view), which may scale and
                mirror horizontally, e.g. Detectron2's ``DatasetMapperTTA`` or
                :class:`~aiparsing_d2.data.transforms.FloatDatasetMapperTTA`. Boxes follow the
                transforms, so those decide how sizes that are rounded to pixels relate.
            part_labels: the label set, for the left/right pairs.
            score_thresh: box score that a detection must exceed to be merged.
            nms_thresh: IoU above which soft suppression lowers a score.
            max_people: most people per image.
            people_at_once: people parsed and averaged together; bounds the memory.

        Raises:
            TypeError: the model has no parsing branch.
            ValueError: its boxes are of more than one class.
        """
        super().__init__()
        if isinstance(model, DistributedDataParallel):
            model = model.module
        if not (
            isinstance(model, GeneralizedRCNN) and isinstance(model.roi_heads, ParsingROIHeads)
        ):
            raise TypeError(
                "AIParsingWithTTA wraps a GeneralizedRCNN, such as AIParsing, with "
                f"ParsingROIHeads; got {type(model).__name__}"
            )
        if model.roi_heads.num_classes != 1:
            raise ValueError(
                "AIParsingWithTTA merges boxes of people only, but the model's RoI heads know "
                f"{model.roi_heads.num_classes} classes"
            )
        self.model = model
        self.mapper = mapper
        self.part_labels = part_labels
        self.mirrored_classes = part_labels.flip_table()[: part_labels.num_classes].tolist()
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.max_people = max_people
        self.inclusive_boxes = getattr(model.proposal_generator, "inclusive_boxes", False)
        self.people_at_once = people_at_once
        # Whoever restores this module's mode, as inference_on_dataset does, restores the model's.
        self.train(model.training)

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        return {
            "model": model,
            "mapper": DatasetMapperTTA(cfg),
            "part_labels": get_part_labels(cfg.DATASETS.TEST),
            "score_thresh": cfg.TEST.AUG.SCORE_THRESH,
            "nms_thresh": cfg.TEST.AUG.NMS_THRESH,
            "max_people": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """
        Args:
            batched_inputs: per image a dict with ``image`` and, unless the output is to have its
                size, ``height`` and ``width``; as for the model. An image at its original size
                makes the sharpest views.

        Returns:
            Per image ``{"instances": Instances}`` with the fields of the model's output.

        Raises:
            RuntimeError: the model is in training mode.
            ValueError: its part classes are not those of ``part_labels``.
        """
        if self.model.training:
            raise RuntimeError("Test-time augmentation needs the model in evaluation mode: .eval()")
        return [{"instances": self._inference_one_image(x)} for x in batched_inputs]

    def _inference_one_image(self, image_input: dict) -> Instances:
        image = image_input["image"].cpu()
        image_size = (
            image_input.get("height", image.shape[1]),
            image_input.get("width", image.shape[2]),
        )
        augmented = self.mapper({"image": image, "height": image_size[0], "width": image_size[1]})
        first_size = tuple(augmented[0]["image"].shape[1:])
        # In one fixed order: floating-point sums depend on it.
        augmented = sorted(
            augmented,
            key=lambda x: (*x["image"].shape[1:], is_mirrored(x["transforms"], image_size)),
        )
        views, boxes, scores = [], [], []
        for augmented_input in augmented:
            view, detections = self._detect(augmented_input, image_size)
            views.append(view)
            boxes.append(view.boxes_to_output(detections.pred_boxes.tensor))
            scores.append(detections.scores.cpu())
        people = self._merge_boxes(torch.cat(boxes), torch.cat(scores), image_size, first_size)
        people = people.to(self.model.device)
        starts = range(0, max(len(people), 1), self.people_at_once)
        return Instances.cat(
            [self._parse(people[i : i + self.people_at_once], views) for i in starts]
        )

    def _detect(
        self, augmented_input: dict, image_size: tuple[int, int]
    ) -> tuple[_View, Instances]:
        """Find people in a view, without parsing them.

        Returns:
            The view, and its detections with ``pred_boxes`` in its frame and ``scores``.
        """
        transforms = augmented_input["transforms"]
        roi_heads = self.model.roi_heads
        images = self.model.preprocess_image([{"image": augmented_input["image"]}])
        features = self.model.backbone(images.tensor)
        proposals, _ = self.model.proposal_generator(images, features, None)
        (detections,) = roi_heads.detect(features, proposals)
        view = _View(
            features={name: features[name] for name in roi_heads.parsing_in_features},
            image_size=images.image_sizes[0],
            transforms=transforms,
            mirrored=is_mirrored(transforms, image_size),
            inclusive_boxes=self.inclusive_boxes,
        )
        return view, detections

    def _merge_boxes(
        self,
        boxes: Tensor,
        scores: Tensor,
        image_size: tuple[int, int],
        first_size: tuple[int, int],
    ) -> Instances:
        """Soft-suppresses the union of all views' boxes.

        Args:
            boxes: (M, 4) XYXY in the output frame.
            scores: (M,).
            image_size: (H, W) of the output.
            first_size: (H, W) of the first view, in whose pixels inclusive boxes overlap.

        Returns:
            The people, best first, with ``pred_boxes``, ``pred_classes`` and ``box_scores``.
        """
        boxes = Boxes(boxes)
        if self.inclusive_boxes:
            ratios = [view / output for view, output in zip(first_size[::-1], image_size[::-1])]
            # From a box's right and bottom sides to where its pixels end.
            areas = boxes.tensor.double() * torch.tensor(ratios * 2) + torch.tensor([0, 0, 1, 1])
        else:
            boxes.clip(image_size)
            areas = boxes.tensor
        candidates = Boxes(areas).nonempty() & (scores > self.score_thresh)
        boxes, scores, areas = boxes[candidates], scores[candidates], areas[candidates]
        # Equal scores rank by their place: it is not to depend on the order of the views.
        order = np.lexsort([*boxes.tensor.numpy().T, -scores.numpy()])
        boxes, scores, areas = boxes[order], scores[order], areas[order]
        keep, scores = soft_nms(areas, scores, self.nms_thresh, max_boxes=self.max_people)
        return Instances(
            image_size,
            pred_boxes=boxes[keep],
            pred_classes=torch.zeros_like(keep),
            box_scores=scores,
        )

    def _parse(self, people: Instances, views: Sequence[_View]) -> Instances:
        """Averages what the views give for a few people, and pastes it into the output frame."""
        means: dict[str, Tensor] = {}
        for view in views:
            outputs = self._parse_in_view(people, view)
            for name in outputs:
                if name in means:
                    means[name] += outputs[name]
                else:
                    means[name] = outputs[name]
            del outputs  # before the next view's need the memory
        for mean in means.values():
            mean.div_(len(views))
        people = Instances(people.image_size, **people.get_fields())
        for name, mean in means.items():
            # The softmax of the logarithms of probabilities are the probabilities.
            people.set(name, ROIPartLogits(mean.log_()) if name in _MAP_FIELDS else mean)
        height, width = people.image_size
        return parsing_postprocess(
            people, height, width, self.inclusive_boxes, getattr(self.model, "part_box_weight", 0.0)
        )

    def _parse_in_view(self, people: Instances, view: _View) -> dict[str, Tensor]:
        """Parse given people in one view.

        Args:
            people: with ``pred_boxes`` in the output frame, ``pred_classes`` and ``box_scores``.
            view: where to look at them.

        Returns:
            What is to be averaged, under the names of the model's raw output, in tensors that are
            nobody else's: person scores (N,), mIoU scores (N,), and probabilities (N, C, T, T)
            instead of logits, relative to the boxes as they lie in the output frame.
        """
        boxes = Boxes(view.boxes_to_view(people.pred_boxes.tensor))
        given = Instances(
            view.image_size,
            pred_boxes=boxes.to(self.model.device),
            pred_classes=people.pred_classes,
            scores=people.box_scores.clone(),
        )
        (parsed,) = self.model.roi_heads.parse(view.features, [given])

        part_logits = parsed.pred_part_logits.tensor
        if part_logits.shape[1] != len(self.mirrored_classes):
            raise ValueError(
                f"the model predicts {part_logits.shape[1]} part classes, but part_labels has "
                f"{len(self.mirrored_classes)}"
            )
        outputs = {"scores": parsed.scores}
        if parsed.has("pred_mious"):
            outputs["pred_mious"] = parsed.pred_mious
        for name in filter(parsed.has, _MAP_FIELDS):
            logits = parsed.get(name)
            if view.mirrored:
                tensor = logits.tensor.flip(3)
                if name == "pred_part_logits":
                    tensor = tensor[:, self.mirrored_classes]
                logits = ROIPartLogits(tensor, logits.upsample_factor)
            outputs[name] = logits.probabilities()
        return outputs

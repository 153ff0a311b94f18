"""Anchor-free person detector as a proposal generator (paper, Sec. III-A).

Shape shorthand:
    N: images. L: feature locations of one image over all levels. P: positive locations of the
    batch. Locations, distances and boxes are in pixels of the network's input image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import nms

from ..collectives import mean_over_processes
from ..feature_maps import select_feature_maps
from .fcos_head import FCOSHead
from .fcos_losses import BOX_LOSS_TYPES, box_loss, centerness_loss, classification_loss
from .fcos_targets import (
    NO_MATCH,
    boxes_from_distances,
    centerness_targets,
    distances_to_boxes,
    feature_locations,
    inside_any,
    match_locations,
)

_FEATURE_KEYS = (
    "MODEL.FCOS_PROPOSALS.IN_FEATURES with SIZES_OF_INTEREST (yacs) or "
    "model.proposal_generator.in_features with strides and size_ranges (LazyConfig)"
)

_LOSSES = frozenset({"loss_fcos_cls", "loss_fcos_box", "loss_fcos_centerness"})

# Logits of probabilities this close to 0 or 1 stay finite in float32.
_PROBABILITY_EPS = 1e-7


@PROPOSAL_GENERATOR_REGISTRY.register()
class FCOSProposalGenerator(nn.Module):
    """FCOS for one class, person, with Detectron2's proposal-generator interface.

    Returns proposals while training too (decoded without gradient from the current iteration's
    predictions), so that ROI heads train on what the detector really finds. Differs from
    Detectron2's own FCOS: targets in pixels rather than strides, a learnable scale per level, box
    loss weighted by centre-ness, and the score is the product cls * centre-ness, not its root.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        size_ranges: Sequence[tuple[float, float]] = (
            (-1.0, 64.0),
            (64.0, 128.0),
            (128.0, 256.0),
            (256.0, 512.0),
            (512.0, float("inf")),
        ),
        center_sampling_radius: float = 1.5,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        box_loss_type: str = "giou",
        loss_weight: float | dict[str, float] = 1.0,
        losses_over_processes: bool = True,
        score_thresh: float = 0.03,
        pre_nms_topk: int = 1000,
        nms_thresh: float = 0.6,
        post_nms_topk: tuple[int, int] = (100, 50),
        inclusive_boxes: bool = False,
    ):
        """
        Args:
            in_features: names of the backbone's feature maps, finest first.
            head: e.g. :class:`FCOSHead`; see its ``forward`` for the interface.
            strides: of the feature maps, in pixels.
            size_ranges: per level, the (lowest, highest) largest box distance it learns, pixels.
            center_sampling_radius: in strides, see :func:`match_locations`.
            focal_loss_alpha, focal_loss_gamma: of the classification loss.
            box_loss_type: "giou" or "iou".
            loss_weight: one factor for all losses, or one per loss name ("loss_fcos_cls",
                "loss_fcos_box", "loss_fcos_centerness"), 1 for those that it lacks.
            losses_over_processes: whether a run of several processes has the losses of its whole
                batch, those of one process that sees all images. Else each process has its own
                images' and the gradients are averaged, as in the authors' code: then the locations
                of an image with few other people beside it count more.
            score_thresh: classification probability, before centre-ness, a candidate must exceed.
            pre_nms_topk: candidates kept per level and image before NMS.
            nms_thresh: IoU above which NMS suppresses.
            post_nms_topk: proposals kept per image (while training, at test).
            inclusive_boxes: whether a box's right and bottom sides are its last pixels' indices, as
                in the code the published weights were trained with. Boxes are then clipped to
                [0, W - 1] x [0, H - 1] of the image, count x1 - x0 + 1 by y1 - y0 + 1 pixels in
                NMS, and are never empty. In Detectron2 sides lie between pixels; the model's
                postprocessing, which asks for this attribute, brings the boxes there.

        Raises:
            ValueError: the per-level settings differ in length, or the box loss or the name of a
                loss is unknown.
        """
        super().__init__()
        self.in_features = tuple(in_features)
        self.strides = tuple(strides)
        self.size_ranges = tuple(tuple(r) for r in size_ranges)
        if not len(self.in_features) == len(self.strides) == len(self.size_ranges):
            raise ValueError(
                "FCOSProposalGenerator needs one stride and one size range per feature map, got "
                f"in_features={self.in_features}, strides={self.strides}, "
                f"size_ranges={self.size_ranges}. In yacs, MODEL.FCOS_PROPOSALS.SIZES_OF_INTEREST "
                "has one entry less than IN_FEATURES."
            )
        if box_loss_type not in BOX_LOSS_TYPES:
            raise ValueError(f"unknown box loss {box_loss_type!r}; choose one of {BOX_LOSS_TYPES}")
        self.head = head
        self.center_sampling_radius = center_sampling_radius
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.box_loss_type = box_loss_type
        self.loss_weight = (
            dict(loss_weight) if not isinstance(loss_weight, (int, float)) else loss_weight
        )
        if isinstance(self.loss_weight, dict) and (unknown := self.loss_weight.keys() - _LOSSES):
            raise ValueError(
                f"loss_weight names {', '.join(sorted(unknown))}; the losses are "
                f"{', '.join(sorted(_LOSSES))}"
            )
        self.losses_over_processes = losses_over_processes
        self.score_thresh = score_thresh
        self.pre_nms_topk = pre_nms_topk
        self.nms_thresh = nms_thresh
        self.post_nms_topk = tuple(post_nms_topk)
        self.inclusive_boxes = inclusive_boxes

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.FCOS_PROPOSALS
        shapes = select_feature_maps(input_shape, node.IN_FEATURES, cls.__name__, _FEATURE_KEYS)
        lower = [-1.0, *node.SIZES_OF_INTEREST]
        upper = [*node.SIZES_OF_INTEREST, float("inf")]
        return {
            "in_features": node.IN_FEATURES,
            "head": FCOSHead(cfg, shapes),
            "strides": [shape.stride for shape in shapes],
            "size_ranges": list(zip(lower, upper)),
            "center_sampling_radius": node.CENTER_SAMPLING_RADIUS,
            "focal_loss_alpha": node.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": node.FOCAL_LOSS_GAMMA,
            "box_loss_type": node.BOX_LOSS_TYPE,
            "loss_weight": node.LOSS_WEIGHT,
            "losses_over_processes": node.LOSSES_OVER_PROCESSES,
            "score_thresh": node.SCORE_THRESH,
            "pre_nms_topk": node.PRE_NMS_TOPK,
            "nms_thresh": node.NMS_THRESH,
            "post_nms_topk": (node.POST_NMS_TOPK_TRAIN, node.POST_NMS_TOPK_TEST),
            "inclusive_boxes": node.INCLUSIVE_BOXES,
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """
        Args:
            images: the input images; only their sizes are used.
            features: (N, C, H_l, W_l) per name in ``in_features``.
            gt_instances: per image, with ``gt_boxes`` and ``gt_classes``. Needed for training
                only. Boxes of class -1 are of people who may be found or not.

        Returns:
            Per image an ``Instances`` with ``proposal_boxes`` and ``objectness_logits``
            (logit of cls * centre-ness, so its sigmoid is the box score), best first; and the
            losses, empty at test.
        """
        predictions = self._predict(features)
        losses = {}
        if self.training:
            if gt_instances is None:
                raise ValueError("FCOSProposalGenerator needs gt_instances while training")
            losses = self.losses(*predictions, gt_instances)
        found = self.predict_proposals(*predictions, images.image_sizes)
        proposals = [
            Instances(image_size, proposal_boxes=Boxes(boxes), objectness_logits=logits)
            for image_size, (boxes, logits) in zip(images.image_sizes, found)
        ]
        return proposals, losses

    def detect(
        self, features: dict[str, Tensor], image_sizes: list[tuple[int, int]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Give what :meth:`forward` does as tensors, for graphs: these count nobody.

        Args:
            features: (N, C, H_l, W_l) per name in ``in_features``.
            image_sizes: (H, W) of the N images.

        Returns:
            Per image (P, 4) boxes and (P,) logits of their scores, best first.
        """
        return self.predict_proposals(*self._predict(features), image_sizes)

    def _predict(
        self, features: dict[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Per level: locations (H * W, 2); logits, distances, centre-ness (N, H * W, 1 / 4 / 1)."""
        levels = select_feature_maps(features, self.in_features, type(self).__name__, _FEATURE_KEYS)
        locations = [
            feature_locations(level.shape[-2], level.shape[-1], stride, level.device)
            for level, stride in zip(levels, self.strides)
        ]
        logits, distances, centerness = (
            [level.flatten(2).transpose(1, 2) for level in predictions]
            for predictions in self.head(levels)
        )
        return locations, logits, distances, centerness

    def losses(
        self,
        locations: list[Tensor],
        logits: list[Tensor],
        distances: list[Tensor],
        centerness: list[Tensor],
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """Eq. 2 of the paper.

        Inside a box of class -1, locations that are no person's count in no loss.

        Args:
            locations: per level (H * W, 2).
            logits, distances, centerness: per level (N, H * W, 1 / 4 / 1).
            gt_instances: per image, with ``gt_boxes`` and ``gt_classes`` (0, or -1 for ignored).

        Returns:
            ``loss_fcos_cls``, ``loss_fcos_box``, ``loss_fcos_centerness``.
        """
        boxes = pad_sequence([x.gt_boxes.tensor for x in gt_instances], batch_first=True)
        # What fills up the rows is no person, and lies nowhere.
        classes = pad_sequence([x.gt_classes for x in gt_instances], batch_first=True)
        is_labelled = (classes >= 0)[:, :, None]
        matched = match_locations(
            locations,
            self.strides,
            self.size_ranges,
            boxes.where(is_labelled, 0),
            self.center_sampling_radius,
        )
        is_person = matched != NO_MATCH  # (N, L)
        all_locations = cat(locations)
        is_ignored = inside_any(all_locations, boxes.where(~is_labelled, 0))  # (N, L)
        image, location = is_person.nonzero(as_tuple=True)
        targets = distances_to_boxes(  # (P, 4)
            all_locations[location], boxes[image, matched[image, location]]
        )
        logits = cat(logits, dim=1).squeeze(2).float()
        distances = cat(distances, dim=1)[is_person].float()
        centerness = cat(centerness, dim=1).squeeze(2)[is_person].float()
        get_event_storage().put_scalar(
            "fcos/num_pos_locations", len(targets) / max(len(gt_instances), 1)
        )
        weights = centerness_targets(targets)
        num_positives = weights.new_tensor(len(targets))
        normalizers = torch.stack([num_positives + len(gt_instances), weights.sum(), num_positives])
        if self.losses_over_processes:
            normalizers = mean_over_processes(normalizers)
        # Those of positive locations divide 0 where there are none.
        of_all, of_boxes, of_centerness = normalizers.where(normalizers > 0, 1)
        losses = {
            "loss_fcos_cls": classification_loss(
                logits.flatten(),
                is_person.flatten(),
                is_ignored.flatten(),
                of_all,
                self.focal_loss_alpha,
                self.focal_loss_gamma,
            ),
            "loss_fcos_box": box_loss(distances, targets, weights, of_boxes, self.box_loss_type),
            "loss_fcos_centerness": centerness_loss(centerness, weights, of_centerness),
        }
        if isinstance(self.loss_weight, dict):
            return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}
        return {name: loss * self.loss_weight for name, loss in losses.items()}

    @torch.no_grad()
    def predict_proposals(
        self,
        locations: list[Tensor],
        logits: list[Tensor],
        distances: list[Tensor],
        centerness: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[tuple[Tensor, Tensor]]:
        """Decode, threshold and suppress; see :meth:`detect`."""
        topk = self.post_nms_topk[0 if self.training else 1]
        boxes, scores = [], []
        for level_locations, level_logits, level_distances, level_centerness in zip(
            locations, logits, distances, centerness
        ):
            probability = level_logits.squeeze(2).float().sigmoid()  # (N, H * W)
            score = probability * level_centerness.squeeze(2).float().sigmoid()
            # What is no candidate, NaN among it, comes last.
            score = score.where(probability > self.score_thresh, -1)
            score, order = score.sort(dim=1, descending=True, stable=True)
            num_chosen = self.pre_nms_topk
            if not torch.jit.is_tracing():  # which would take the smaller number for a constant
                num_chosen = torch.sym_min(num_chosen, score.shape[1])
            score, order = score[:, :num_chosen], order[:, :num_chosen]
            chosen = level_distances.gather(1, order[:, :, None].expand(-1, -1, 4))
            boxes.append(boxes_from_distances(level_locations[order], chosen))
            scores.append(score)
        return self._suppress(cat(boxes, dim=1), cat(scores, dim=1), image_sizes, topk)

    def _suppress(
        self, boxes: Tensor, scores: Tensor, image_sizes: list[tuple[int, int]], topk: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Clip boxes to their images, and suppress those that overlap better ones.

        Args:
            boxes: (N, K, 4).
            scores: (N, K); -1 for what is no candidate.
            image_sizes: of the N images.
            topk: most boxes to keep of an image.
        """
        is_candidate = scores != -1
        # In training too: what has diverged shows in the losses, in all processes alike.
        is_candidate &= ~(boxes.isnan().any(dim=2) | scores.isnan())
        # From a box's right and bottom sides to where its pixels end.
        beyond = int(self.inclusive_boxes)
        limits = _limits(image_sizes, boxes) - beyond
        boxes = torch.minimum(boxes.clamp(min=0), limits[:, None])
        areas = boxes + boxes.new_tensor([0, 0, beyond, beyond])
        is_candidate &= (areas[:, :, 2:] > areas[:, :, :2]).all(dim=2)
        return [self._best(*image, topk) for image in zip(boxes, areas, scores, is_candidate)]

    def _best(
        self, boxes: Tensor, areas: Tensor, scores: Tensor, is_candidate: Tensor, topk: int
    ) -> tuple[Tensor, Tensor]:
        chosen = is_candidate.nonzero().squeeze(1)
        keep = chosen[nms(areas[chosen], scores[chosen], self.nms_thresh)[:topk]]
        return boxes[keep], torch.logit(scores[keep], eps=_PROBABILITY_EPS)


def _limits(image_sizes: list[tuple[int, int]], boxes: Tensor) -> Tensor:
    """Give (N, 4) of the dtype of boxes, the largest coordinates: width, height, width, height."""
    limits = [(width, height) * 2 for height, width in image_sizes]
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        # A graph would have what new_tensor makes as constants.
        return torch.stack([torch.stack([boxes.new_full((), x) for x in row]) for row in limits])
    return boxes.new_tensor(limits)

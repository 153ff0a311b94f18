"""Edge-guided parsing head with refinement (paper, Sec. III-B, Fig. 3).

Shape shorthand:
    R: RoIs of the batch. S: side of the pooled RoI features (32). C: classes incl. background (20).
    T: side of the logits the losses see (256): the transposed convolution gives 2 S, bilinear
    upsampling the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import Registry
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from aiparsing_d2.structures import ROIPartLogits
from aiparsing_d2.structures.part_labels import IGNORE_LABEL

from ..collectives import mean_over_processes
from .context import PARSING_CONTEXT_REGISTRY, PARSING_NON_LOCAL_REGISTRY
from .parsing_losses import edge_loss, lovasz_softmax_loss, parsing_loss, score_loss
from .parsing_targets import edge_targets, mean_iou, part_map_targets
from .score_head import PARSING_SCORE_HEAD_REGISTRY

ROI_PARSING_HEAD_REGISTRY = Registry("ROI_PARSING_HEAD")
ROI_PARSING_HEAD_REGISTRY.__doc__ = """
Registry for parsing heads, which label the pixels of each RoI with human parts.

Called with `obj(cfg, input_shape: ShapeSpec)`. The module is called with the pooled features
(R, C, S, S) and the list of Instances they belong to. While training it returns a dict of losses;
at test it returns the Instances with the fields `pred_part_logits` (ROIPartLogits) and, where it
predicts them, `pred_mious` (R,) in [0, 1].
"""


_PEOPLE_AT_ONCE = 8


def build_parsing_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """Build the parsing head named by ``cfg.MODEL.ROI_PARSING_HEAD.NAME``."""
    return ROI_PARSING_HEAD_REGISTRY.get(cfg.MODEL.ROI_PARSING_HEAD.NAME)(cfg, input_shape)


@ROI_PARSING_HEAD_REGISTRY.register()
class EdgeGuidedParsingHead(nn.Module):
    """Context encoding, shared convolutions, parsing and edge predictors, score head.

    Every part but the parsing predictor can be left out, which gives the rows of the paper's
    Table VI. yacs takes context, non-local operation and score head from registries; a LazyConfig
    or plain Python takes any modules.
    """

    # They cost a hundredth, and close classes are told apart by differences of logits.
    layers_in_float32 = ("parsing_predictor", "edge_predictor")

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int = 20,
        context: nn.Module | None = None,
        non_local: nn.Module | None = None,
        conv_dims: Sequence[int] = (512, 512, 512, 512),
        norm: str = "GN",
        edge_on: bool = True,
        edges_at_test: bool = False,
        edge_size: int = 0,
        score_head: nn.Module | None = None,
        upsample_factor: int = 4,
        clamp_mious: bool = True,
        min_part_probability: float = 0.0,
        parsing_loss_weight: float = 2.0,
        edge_loss_weight: float = 2.0,
        miou_loss_weight: float = 2.0,
        score_loss_weight: float = 1.0,
        losses_over_processes: bool = True,
        checkpoint_activations: bool = False,
    ):
        """
        Args:
            in_channels: of the pooled features.
            num_classes: C.
            context: multi-scale context, e.g. :class:`PGEC`; has ``out_channels``.
            non_local: part relations, e.g. :class:`NonLocalBlock`; keeps the channels, which are
                compared with its ``channels`` if it has that.
            conv_dims: channels of the shared 3x3 convolutions.
            norm: normalisation after the last of them, a name for ``get_norm``; "" for none.
            edge_on: whether to learn part boundaries.
            edges_at_test: whether to predict them at test too, for people to look at; the parsing
                does not depend on them.
            edge_size: side of the part maps on which edges are marked, by a band 4 pixels wide,
                before they are reduced to T; T if that is larger. With 256, edges are as wide
                relative to a RoI as the paper's, whatever T; with 0 they are 4 pixels of T wide.
            score_head: predicts the mIoU of each parsing map, e.g. :class:`ParsingScoreHead`; its
                ``in_channels``, if it has that, are compared with those of the features it reads.
            upsample_factor: bilinear factor from the predictors' 2 S to T.
            clamp_mious: whether predicted mIoUs are clipped to [0, 1] at test, which the code of
                the published weights does not do.
            min_part_probability: parts that are nowhere in a person's box as likely as this are
                left out at test, see ``ROIPartLogits.without_unlikely_parts``; 0 for none, as in
                the paper.
            parsing_loss_weight, edge_loss_weight: alpha and beta of Eq. 3.
            miou_loss_weight, score_loss_weight: theta and gamma of Eq. 5; a mIoU loss weight of 0
                leaves that loss out.
            losses_over_processes: whether a run of several processes has the losses of all its
                RoIs, as one process that sees all images; see :class:`FCOSProposalGenerator`.
            checkpoint_activations: whether context, non-local operation and shared convolutions
                are computed a second time in the backward pass instead of kept from the forward
                pass: less memory, more time, the same gradients.

        Raises:
            ValueError: ``edges_at_test`` without ``edge_on``, ``checkpoint_activations`` with batch
                norms, a probability outside 0..1, or a part for other channels than the one before
                it gives.
        """
        super().__init__()
        if edges_at_test and not edge_on:
            raise ValueError("edges_at_test needs edge_on: without it there is no edge predictor")
        if not 0 <= min_part_probability <= 1:
            raise ValueError(f"min_part_probability must be in 0..1, got {min_part_probability}")
        self.num_classes = num_classes
        self.edges_at_test = edges_at_test
        self.edge_size = edge_size
        self.upsample_factor = upsample_factor
        self.clamp_mious = clamp_mious
        self.min_part_probability = min_part_probability
        self.context = context if context is not None else nn.Identity()
        channels, source = in_channels, "in_channels"
        if context is not None:
            channels, source = cast(int, context.out_channels), "context.out_channels"
        _check_channels("non_local", non_local, "channels", source, channels)
        self.non_local = non_local if non_local is not None else nn.Identity()

        convs = []
        for i, conv_dim in enumerate(conv_dims):
            is_last = i == len(conv_dims) - 1
            conv = Conv2d(
                channels,
                conv_dim,
                3,
                padding=1,
                norm=get_norm(norm, conv_dim) if is_last else None,
                activation=nn.ReLU(),
            )
            weight_init.c2_msra_fill(conv)
            convs.append(conv)
            channels, source = conv_dim, f"conv_dims[{i}]"
        self.convs = nn.Sequential(*convs)

        self.parsing_predictor = nn.ConvTranspose2d(channels, num_classes, 4, stride=2, padding=1)
        self.edge_predictor = nn.ConvTranspose2d(channels, 2, 2, stride=2) if edge_on else None
        for predictor in (self.parsing_predictor, self.edge_predictor):
            if predictor is not None:
                nn.init.normal_(predictor.weight, std=0.001)
                nn.init.zeros_(predictor.bias)
        _check_channels("score_head", score_head, "in_channels", source, channels)
        self.score_head = score_head

        self.parsing_loss_weight = parsing_loss_weight
        self.edge_loss_weight = edge_loss_weight
        self.miou_loss_weight = miou_loss_weight
        self.score_loss_weight = score_loss_weight
        self.losses_over_processes = losses_over_processes
        self.checkpoint_activations = checkpoint_activations
        if checkpoint_activations and any(isinstance(m, _BatchNorm) for m in self.modules()):
            raise ValueError(
                "checkpoint_activations is for heads without batch norms, which would count the "
                "statistics of each batch twice"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        node = cfg.MODEL.ROI_PARSING_HEAD
        context = None
        if node.CONTEXT:
            context = PARSING_CONTEXT_REGISTRY.get(node.CONTEXT)(cfg, input_shape)
        channels = input_shape.channels if context is None else context.out_channels
        side = input_shape.height
        non_local = score_head = None
        if node.NON_LOCAL:
            shape = ShapeSpec(channels=channels, height=side, width=side)
            non_local = PARSING_NON_LOCAL_REGISTRY.get(node.NON_LOCAL)(cfg, shape)
        if node.SCORE_HEAD:
            channels = node.CONV_DIM if node.NUM_CONV else channels
            shape = ShapeSpec(channels=channels, height=side, width=side)
            score_head = PARSING_SCORE_HEAD_REGISTRY.get(node.SCORE_HEAD)(cfg, shape)
        return {
            "in_channels": input_shape.channels,
            "num_classes": node.NUM_CLASSES,
            "context": context,
            "non_local": non_local,
            "conv_dims": [node.CONV_DIM] * node.NUM_CONV,
            "norm": node.NORM,
            "edge_on": node.EDGE_ON,
            "edges_at_test": node.EDGES_AT_TEST,
            "edge_size": node.EDGE_SIZE,
            "score_head": score_head,
            "upsample_factor": node.UPSAMPLE_FACTOR,
            "clamp_mious": node.CLAMP_MIOUS,
            "min_part_probability": node.MIN_PART_PROBABILITY,
            "parsing_loss_weight": node.PARSING_LOSS_WEIGHT,
            "edge_loss_weight": node.EDGE_LOSS_WEIGHT,
            "miou_loss_weight": node.MIOU_LOSS_WEIGHT,
            "score_loss_weight": node.SCORE_LOSS_WEIGHT,
            "losses_over_processes": node.LOSSES_OVER_PROCESSES,
            "checkpoint_activations": node.CHECKPOINT_ACTIVATIONS,
        }

    def encode(self, x: Tensor) -> Tensor:
        """Pooled features (R, in_channels, S, S) -> features of the predictors (R, D, S, S)."""
        return self.convs(self.non_local(self.context(x)))

    def forward(self, x: Tensor, instances: list[Instances]) -> dict[str, Tensor] | list[Instances]:
        """
        Args:
            x: (R, in_channels, S, S) pooled features of all RoIs, image after image.
            instances: per image. While training with ``proposal_boxes`` and ``gt_part_maps``.

        Returns:
            While training the weighted losses ``loss_parsing``, ``loss_edge``, ``loss_miou`` and
            ``loss_miou_score``. At test the same instances with ``pred_part_logits``, with a score
            head ``pred_mious``, and on request ``pred_edge_logits`` (:class:`ROIPartLogits` of two
            classes, 1 = edge).
        """
        if self.training:
            return self.losses(x, instances)
        if torch.jit.is_tracing():  # any number of steps cannot be traced
            predictions = self.predict(x)
        else:
            # All at once would take gigabytes in a crowd, and no less time.
            several = [self.predict(some) for some in x.split(_PEOPLE_AT_ONCE)]
            predictions = {name: torch.cat([some[name] for some in several]) for name in several[0]}
        # Not len(), which is a constant to a tracer.
        counts = [i.__len__() for i in instances]
        for name, values in predictions.items():
            for instances_per_image, value in zip(instances, values.split(counts)):
                if name != "pred_mious":
                    value = ROIPartLogits(value, self.upsample_factor)
                instances_per_image.set(name, value)
        return instances

    def predict(self, x: Tensor) -> dict[str, Tensor]:
        """Compute what :meth:`forward` gives at test, by its names, as tensors.

        Args:
            x: (R, in_channels, S, S) pooled features.

        Returns:
            ``pred_part_logits`` (R, C, 2 S, 2 S), ``pred_edge_logits`` (R, 2, 2 S, 2 S) on request
            and ``pred_mious`` (R,) with a score head.
        """
        features = self.encode(x)
        # In a model in half precision, the predictors may be in float32.
        exact = features.to(self.parsing_predictor.weight.dtype)
        predictions = {"pred_part_logits": self.parsing_predictor(exact)}
        if self.edges_at_test:
            predictions["pred_edge_logits"] = self.edge_predictor(exact)
        if self.score_head is not None:
            logits = self._upsample(predictions["pred_part_logits"])
            mious = self.score_head(features, logits).float()
            predictions["pred_mious"] = mious.clamp(0, 1) if self.clamp_mious else mious
        if self.min_part_probability:
            logits = ROIPartLogits(predictions["pred_part_logits"])
            likely = logits.without_unlikely_parts(self.min_part_probability)
            predictions["pred_part_logits"] = likely.tensor
        return predictions

    def losses(self, x: Tensor, instances: list[Instances]) -> dict[str, Tensor]:
        """Losses of the prediction head (Eq. 3) and the refinement head (Eq. 5); see forward.

        A batch without any RoI gives zeros that depend on the features and every parameter, so that
        distributed training finds all gradients.
        """
        nobody = len(x) == 0
        if nobody:
            x = x.sum() + x.new_zeros((1, *x.shape[1:]))
        if self.checkpoint_activations:
            features = checkpoint(self.encode, x, use_reentrant=False)
        else:
            features = self.encode(x)
        # With classes as planes, whatever the layout of the features: the losses go through them.
        part_logits = self._upsample(self.parsing_predictor(features).contiguous())
        size = part_logits.shape[-1]
        if nobody:
            target = torch.full((1, size, size), IGNORE_LABEL, device=part_logits.device)
        else:
            target = part_map_targets(instances, size)
        edges = target[:0]
        if self.edge_predictor is not None:
            fine = target
            if self.edge_size > size and not nobody:
                fine = part_map_targets(instances, self.edge_size)
            edges = edge_targets(fine, size)
        target_mious = part_logits.new_zeros(0)
        if self.score_head is not None:
            target_mious = mean_iou(part_logits.argmax(dim=1), target, self.num_classes)
            if not nobody:
                get_event_storage().put_scalar("parsing/mean_iou_of_rois", target_mious.mean())
        counts = torch.stack(
            [
                (target != IGNORE_LABEL).sum(),
                (edges == 1).sum(),
                (edges == 0).sum(),
                (target_mious > 0).sum(),
            ]
        )
        if self.losses_over_processes:
            counts = mean_over_processes(counts)
        num_pixels, num_edge, num_other, num_rois = counts

        losses = {"loss_parsing": parsing_loss(part_logits, target, num_pixels)}
        if self.edge_predictor is not None:
            edge_logits = self._upsample(self.edge_predictor(features))
            losses["loss_edge"] = edge_loss(edge_logits, edges, num_edge, num_other)
        if self.miou_loss_weight > 0:
            losses["loss_miou"] = lovasz_softmax_loss(
                part_logits, target, self.losses_over_processes
            )
        if self.score_head is not None:
            predicted = self.score_head(features, part_logits).float()
            losses["loss_miou_score"] = score_loss(predicted, target_mious, num_rois)
        weights = {
            "loss_parsing": self.parsing_loss_weight,
            "loss_edge": self.edge_loss_weight,
            "loss_miou": self.miou_loss_weight,
            "loss_miou_score": self.score_loss_weight,
        }
        return {name: weights[name] * loss for name, loss in losses.items()}

    def _upsample(self, logits: Tensor) -> Tensor:
        # In float32: the losses' sums over all pixels of a batch leave half precision's range.
        return F.interpolate(
            logits.float(), scale_factor=self.upsample_factor, mode="bilinear", align_corners=True
        )


def _check_channels(
    part: str, module: nn.Module | None, attribute: str, source: str, channels: int
) -> None:
    """Raise ValueError where a part says that it reads other channels than ``source`` has."""
    expected = getattr(module, attribute, channels)
    if expected != channels:
        raise ValueError(
            f"{part}.{attribute} is {expected}, but must equal {source}, which is {channels}"
        )

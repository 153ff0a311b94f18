"""Parameters, multiply-adds and activations of a model, beside the paper's Tables V and IX.

Needs no weights and no data. The layers run once, at test, on one black image and a given number of
people. Left out is what costs little or depends on the pixels: box selection, RoI pooling, pasting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.data.detection_utils import build_augmentation
from detectron2.data.transforms import apply_augmentations
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, Instances
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from fvcore.nn.jit_analysis import JitModelAnalysis
from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate
from torch import Tensor, nn

from aiparsing_d2.config import add_aiparsing_config
from aiparsing_d2.engine import apply_overrides, read_config_file
from aiparsing_d2.modeling.roi_heads import PGEC
from aiparsing_d2.structures import ROIPartLogits

__all__ = [
    "StageCost",
    "analyze",
    "build_untrained",
    "cost_table",
    "image_size_at_test",
    "paper_table",
    "read_config",
    "stages_of",
]

# Table V by RoI size: multiply-adds of PGEC, in units of 2 ** 30, and the channels they are for.
PAPER_PGEC_MULTIPLY_ADDS = {14: "1.2", 32: "6.4", 48: "14.5"}
PAPER_PGEC_CHANNELS = (256, 512)
# Table IX, in millions.
PAPER_PARAMETERS = "AIParsing 50.2, AIParsing-light 28.5, Parsing R-CNN 54.3"

# Height and width of a photo of the usual 3:2, in pixels.
PHOTO_SIZE = (800, 1200)


@dataclass(frozen=True)
class Stage:
    """A part of the network: some modules, without others inside them; paths below the model."""

    name: str
    modules: tuple[str, ...]
    without: tuple[str, ...] = ()

    def sum(self, counts: Mapping[str, float]) -> int:
        """Of counts by module path."""
        counted = sum(counts.get(path, 0) for path in self.modules)
        return int(counted - sum(counts.get(path, 0) for path in self.without))


@dataclass(frozen=True)
class StageCost:
    """What a stage holds, and does at test for one image and its people."""

    name: str
    parameters: int
    trainable: int
    multiply_adds: int
    activations: int  # outputs of convolutions and matrix products, in numbers


class TestedLayers(nn.Module):
    """The layers that run at test, for inputs of any content."""

    def __init__(self, model: GeneralizedRCNN):
        """
        Args:
            model: a ``GeneralizedRCNN`` with a parsing branch.
        """
        super().__init__()
        self.backbone = model.backbone
        self.proposal_generator = model.proposal_generator
        self.roi_heads = model.roi_heads

    def forward(
        self, image: Tensor, people: Tensor, proposals: Tensor | None
    ) -> tuple[Tensor, ...]:
        """
        Args:
            image: (1, 3, H, W), normalised and padded.
            people: (N, C, S, S), pooled for the parsing head.
            proposals: (P, C, s, s), pooled for the box head, or None if there is none.

        Returns:
            All outputs: tracing drops layers whose result is not among them.
        """
        generator = self.proposal_generator
        features = self.backbone(image)
        head = generator.rpn_head if hasattr(generator, "rpn_head") else generator.head
        outputs = [head([features[name] for name in generator.in_features])]
        if proposals is not None:
            outputs.append(self.roi_heads.box_predictor(self.roi_heads.box_head(proposals)))
        instances = Instances((1, 1), pred_boxes=Boxes(torch.zeros(len(people), 4)))
        outputs.append(self.roi_heads.parsing_head(people, [instances]))
        return tuple(tensors_in(outputs))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested sequences, instances and part logits."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, ROIPartLogits):
        yield value.tensor
    elif isinstance(value, Instances):
        yield from tensors_in(list(value.get_fields().values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def stages_of(model: GeneralizedRCNN) -> list[Stage]:
    """Return the model's stages from image to result; together they are the whole model."""
    head = "roi_heads.parsing_head"
    parts = {
        "non-local": "non_local",
        "shared convolutions": "convs",
        "parsing predictor": "parsing_predictor",
        "edge predictor": "edge_predictor",
        "score head": "score_head",
    }
    context = model.roi_heads.parsing_head.context
    parsing = [Stage(f"context: {type(context).__name__}", (f"{head}.context",))]
    parsing += [Stage(name, (f"{head}.{part}",)) for name, part in parts.items()]
    stages = [
        Stage("backbone body", ("backbone.bottom_up",)),
        Stage("FPN", ("backbone",), without=("backbone.bottom_up",)),
        Stage("detection head", ("proposal_generator",)),
        Stage("box head", ("roi_heads.box_head", "roi_heads.box_predictor")),
        *parsing,
        Stage("resizing of part logits", (head,), without=tuple(s.modules[0] for s in parsing)),
    ]
    there = {name for name, module in model.named_modules() if not isinstance(module, nn.Identity)}
    return [stage for stage in stages if there.issuperset(stage.modules)]


@torch.no_grad()
def analyze(
    model: GeneralizedRCNN, image_size: tuple[int, int], num_people: int, num_proposals: int = 1000
) -> list[StageCost]:
    """
    Args:
        model: a ``GeneralizedRCNN`` with a parsing branch, on the CPU; put into evaluation mode.
        image_size: (height, width) of the network's input before padding, in pixels.
        num_people: boxes that are parsed.
        num_proposals: boxes that reach the box head, if the model has one.

    Returns:
        Costs per stage, in the order of :func:`stages_of`.
    """
    model.eval()
    heads = model.roi_heads
    shapes = model.backbone.output_shape()

    def pooled(count: int, in_features: Sequence[str], pooler: ROIPooler) -> Tensor:
        return torch.zeros(count, shapes[in_features[0]].channels, *pooler.output_size)

    image = model.preprocess_image([{"image": torch.zeros(3, *image_size)}]).tensor
    proposals = None
    if getattr(heads, "box_head", None) is not None:
        proposals = pooled(num_proposals, heads.box_in_features, heads.box_pooler)
    inputs = (image, pooled(num_people, heads.parsing_in_features, heads.parsing_pooler), proposals)

    layers = TestedLayers(model).eval()
    modules = dict(layers.named_modules())
    parameters = {k: sum(p.numel() for p in m.parameters()) for k, m in modules.items()}
    trainable = {
        k: sum(p.numel() for p in m.parameters() if p.requires_grad) for k, m in modules.items()
    }
    multiply_adds = quiet(FlopCountAnalysis(layers, inputs)).by_module()
    activations = quiet(ActivationCountAnalysis(layers, inputs)).by_module()
    return [
        StageCost(s.name, *map(s.sum, (parameters, trainable, multiply_adds, activations)))
        for s in stages_of(model)
    ]


def quiet(analysis: JitModelAnalysis) -> JitModelAnalysis:
    """Without warnings of element-wise operations, which are not counted, and unused layers."""
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return analysis.tracer_warnings("none")


def pgec_multiply_adds(pgec: PGEC, in_channels: int, roi_size: int) -> int:
    """Of the dense convolutions of PGEC, for one RoI of ``roi_size`` x ``roi_size``.

    The depth-wise ones add 0.03 %.
    """
    roi = torch.zeros(1, in_channels, roi_size, roi_size)
    counts = quiet(FlopCountAnalysis(pgec, roi)).by_module()
    dense = [k for k, m in pgec.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    return int(sum(counts[name] for name in dense))


def read_config(config_file: str, overrides: Sequence[str]) -> DictConfig | CfgNode:
    """Read a LazyConfig file (.py, or .yaml as saved with a run) or a yacs YAML file.

    Args:
        config_file: its path.
        overrides: ``key=value ...`` for LazyConfig, ``KEY VALUE ...`` for yacs.

    Raises:
        ValueError: it defines no model.
    """
    cfg = read_config_file(config_file)
    if "model" in cfg:
        return apply_overrides(cfg, list(overrides))
    if "MODEL" in cfg or "_BASE_" in cfg:
        cfg = get_cfg()
        add_aiparsing_config(cfg)
        cfg.merge_from_file(config_file, allow_unsafe=False)
        cfg.merge_from_list(list(overrides))
        return cfg
    raise ValueError("it defines no model: give a file with `model` or `MODEL`")


def build_untrained(cfg: DictConfig | CfgNode) -> GeneralizedRCNN:
    """Return the config's model with random weights, on the CPU.

    Raises:
        ValueError: it has no backbone with an FPN, or no parsing branch.
    """
    if isinstance(cfg, CfgNode):
        cfg = cfg.clone()
        cfg.MODEL.DEVICE = "cpu"
        model = build_model(cfg)
    else:
        model = instantiate(cfg.model)
    if not hasattr(getattr(model, "roi_heads", None), "parsing_head") or not hasattr(
        model.backbone, "bottom_up"
    ):
        raise ValueError("its model has no FPN or no parsing branch to analyse")
    return model


def image_size_at_test(cfg: DictConfig | CfgNode) -> tuple[int, int]:
    """(height, width) that a photo of ``PHOTO_SIZE`` has after the config's test augmentations."""
    if isinstance(cfg, CfgNode):
        augmentations = build_augmentation(cfg, is_train=False)
    else:
        # A config of the model alone has none.
        path = "dataloader.test.mapper.augmentations"
        augmentations = instantiate(OmegaConf.select(cfg, path, default=[]))
    image, _ = apply_augmentations(augmentations, np.zeros((*PHOTO_SIZE, 3), np.uint8))
    return image.shape[:2]


def cost_table(costs: Sequence[StageCost]) -> str:
    """Markdown with a row for the whole model; M = 10^6, G = 10^9."""
    columns = list(zip(*map(astuple, costs)))
    rows = [*zip(*columns), ("total", *map(sum, columns[1:]))]
    return tabulate(
        [(name, p / 1e6, t / 1e6, m / 1e9, a / 1e6) for name, p, t, m, a in rows],
        headers=[
            "stage",
            "parameters (M)",
            "trainable (M)",
            "multiply-adds (G)",
            "activations (M)",
        ],
        floatfmt=("", ".3f", ".3f", ".2f", ".1f"),
        tablefmt="github",
    )


def is_of_table_ix(model: GeneralizedRCNN) -> bool:
    """Whether a model has the body, ResNet-50, and the 20 classes of the paper's models there."""
    stage = getattr(getattr(model.backbone, "bottom_up", None), "res4", None)
    is_resnet_50 = isinstance(stage, nn.Sequential) and len(stage) == 6
    return is_resnet_50 and model.roi_heads.parsing_head.num_classes == 20


def paper_table(model: GeneralizedRCNN, costs: Sequence[StageCost]) -> str:
    """Markdown: the figures that the paper states too."""
    trainable = sum(cost.trainable for cost in costs)
    stated = PAPER_PARAMETERS if is_of_table_ix(model) else "-"
    rows = [("IX", "trainable parameters (M)", f"{trainable / 1e6:.3f}", stated)]
    context = model.roi_heads.parsing_head.context
    if isinstance(context, PGEC):
        size = model.roi_heads.parsing_pooler.output_size[0]
        channels = (context.conv.in_channels, context.out_channels)
        multiply_adds = pgec_multiply_adds(context, context.conv.in_channels, size)
        stated = PAPER_PGEC_MULTIPLY_ADDS if channels == PAPER_PGEC_CHANNELS else {}
        rows.append(
            (
                "V",
                f"PGEC multiply-adds per person at RoI {size} (2^30)",
                f"{multiply_adds / 2**30:.3f}",
                stated.get(size, "-"),
            )
        )
    headers = ["table", "figure", "this model", "paper"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)

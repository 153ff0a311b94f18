"""Checkpoints under the names of the authors' code, and small models that they fit."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from omegaconf import DictConfig

CONFIGS = Path(__file__).parents[2] / "configs"
AUTHORS_CONFIG = CONFIGS / "cihp/aiparsing_R_50_FPN_cihp_authors.py"

RESNET_50 = {"blocks": (3, 4, 6, 3)}
RESNET_101 = {"blocks": (3, 4, 23, 3)}
RESNEXT_101 = {"blocks": (3, 4, 23, 3), "bottleneck": 256, "groups": 32}
LIGHT = {"fpn": 128, "towers": 2, "trunk": 256, "shared": 2, "score_conv": 64, "score_fc": 128}
# GroupNorm needs multiples of 32.
TINY = {
    "blocks": (2, 1, 2, 1),
    "stem": 8,
    "bottleneck": 4,
    "first_stage": 16,
    "fpn": 32,
    "towers": 2,
    "trunk": 64,
    "shared": 3,
    "score_conv": 8,
    "score_fc": 8,
    "classes": 5,
}
TINY_GROUPED = {**TINY, "bottleneck": 8, "groups": 4}


def authors_shapes(
    blocks=(3, 4, 6, 3),
    stem=64,
    bottleneck=64,
    first_stage=256,
    groups=1,
    fpn=256,
    towers=4,
    trunk=512,
    shared=4,
    score_conv=128,
    score_fc=256,
    classes=20,
) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name, out_channels, in_channels=None, size=None):
        """A norm without ``in_channels``, linear without ``size``, else a convolution."""
        shape = [out_channels, in_channels, size, size]
        shapes[f"{name}.weight"] = tuple(side for side in shape if side is not None)
        shapes[f"{name}.bias"] = (out_channels,)

    def body_layer(conv, norm, out_channels, in_channels, size):
        shapes[f"{conv}.weight"] = (out_channels, in_channels, size, size)
        for kind in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{kind}"] = (out_channels,)

    body = "backbone.body"
    body_layer(f"{body}.stem.conv1", f"{body}.stem.bn1", stem, 3, 7)
    before = stem
    for i, num_blocks in enumerate(blocks):
        out, inner = first_stage * 2**i, bottleneck * 2**i
        for block in range(num_blocks):
            name = f"{body}.layer{i + 1}.{block}"
            if block == 0:
                body_layer(f"{name}.downsample.0", f"{name}.downsample.1", out, before, 1)
            body_layer(f"{name}.conv1", f"{name}.bn1", inner, before, 1)
            body_layer(f"{name}.conv2", f"{name}.bn2", inner, inner // groups, 3)
            body_layer(f"{name}.conv3", f"{name}.bn3", out, inner, 1)
            before = out
    for i in (2, 3, 4):
        layer(f"backbone.fpn.fpn_inner{i}", fpn, first_stage * 2 ** (i - 1), 1)
        layer(f"backbone.fpn.fpn_layer{i}", fpn, fpn, 3)
    for name in ("p6", "p7"):
        layer(f"backbone.fpn.top_blocks.{name}", fpn, fpn, 3)

    for tower in ("cls_tower", "bbox_tower"):
        for i in range(towers):
            layer(f"rpn.head.{tower}.{3 * i}", fpn, fpn, 3)
            layer(f"rpn.head.{tower}.{3 * i + 1}", fpn)
    for name, channels in (("cls_logits", 1), ("bbox_pred", 4), ("centerness", 1)):
        layer(f"rpn.head.{name}", channels, fpn, 3)
    for i in range(5):
        shapes[f"rpn.head.scales.{i}.scale"] = (1,)

    head = "ParsingHead.Head"
    layer(f"{head}.PGEC.conv1.0", fpn, fpn, 3)
    for branch, gathers in ((2, 5), (3, 2), (4, 3), (5, 4)):
        for i in range(gathers):
            layer(f"{head}.PGEC.conv{branch}.0.gather.{2 * i}", fpn, 1, 3)
        layer(f"{head}.PGEC.conv{branch}.1", fpn, fpn, 1)
    layer(f"{head}.PGEC.bottleneck.0.0", trunk, 5 * fpn, 3)
    for name in ("theta", "phi", "g", "out"):
        layer(f"{head}.feat.0.{name}", trunk, trunk, 1)
    layer(f"{head}.feat.0.gn", trunk)
    for i in range(shared):
        layer(f"{head}.conv_after.{2 * i}", trunk, trunk, 3)
    layer(f"{head}.conv_after.{2 * shared - 1}", trunk)

    # Transposed convolutions: input channels first.
    for name, channels, size in (("parsing", classes, 4), ("edge", 2, 2)):
        shapes[f"ParsingHead.Output.{name}_score_lowres.weight"] = (trunk, channels, size, size)
        shapes[f"ParsingHead.Output.{name}_score_lowres.bias"] = (channels,)
    score = "ParsingHead.ParsingIoU"
    layer(f"{score}.Head.convx.0.0", score_conv, trunk + classes, 3)
    layer(f"{score}.Head.convx.1.0", score_conv, score_conv, 3)
    layer(f"{score}.Head.parsingiou_fc1", score_fc, score_conv)
    layer(f"{score}.Head.parsingiou_fc2", score_fc, score_fc)
    layer(f"{score}.Output.parsingiou", 1, score_fc)
    return shapes


def weightless(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Ones of any size that take no memory."""
    return {name: torch.ones(()).expand(shape) for name, shape in shapes.items()}


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights under which activations neither vanish nor explode, and people are found."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape, low, high):
        return low + (high - low) * torch.rand(shape, generator=generator)

    weights = {}
    for name, shape in shapes.items():
        if name.endswith("running_var"):
            # Over five orders of magnitude, below Detectron2's eps of 1e-5 too.
            weights[name] = 10 ** uniform(shape, -7.0, 0.5)
        elif name.endswith("running_mean"):
            weights[name] = 0.1 * torch.randn(shape, generator=generator)
        elif name.endswith(".scale"):
            weights[name] = uniform(shape, 0.8, 1.2)
        elif len(shape) > 1:
            fan_in = math.prod(shape[1:])
            weights[name] = torch.randn(shape, generator=generator) * math.sqrt(2 / fan_in)
        elif name.endswith("weight"):
            weights[name] = uniform(shape, 0.5, 1.5)
        else:
            weights[name] = 0.1 * torch.randn(shape, generator=generator)
    for name in shapes:
        norm, _, kind = name.rpartition(".")
        if kind == "running_var":
            deviation = weights[name].sqrt()
            weights[f"{norm}.weight"] *= deviation
            weights[f"{norm}.running_mean"] *= deviation
    # Images reach the stem with grey levels around 50.
    weights["backbone.body.stem.conv1.weight"] *= 0.02
    # Attention over more than the one closest position.
    for name in ("theta", "phi"):
        weights[f"ParsingHead.Head.feat.0.{name}.weight"] *= 0.3
    weights["rpn.head.cls_logits.bias"] -= 2.0
    weights["rpn.head.bbox_pred.weight"] *= 0.2
    weights["rpn.head.bbox_pred.bias"] += 3.0  # distances around exp(3) = 20 pixels
    weights["ParsingHead.ParsingIoU.Output.parsingiou.weight"] *= 0.2
    weights["ParsingHead.ParsingIoU.Output.parsingiou.bias"] += 0.5
    return weights


def tiny_authors_config(
    blocks,
    stem,
    bottleneck,
    first_stage,
    fpn,
    towers,
    trunk,
    shared,
    score_conv,
    score_fc,
    classes,
    groups=1,
) -> DictConfig:
    """The authors' config with the arguments of :func:`authors_shapes`."""
    config = LazyConfig.load(str(AUTHORS_CONFIG))
    model = config.model
    model.backbone.bottom_up.stem.out_channels = stem
    model.backbone.bottom_up.stages = [
        L(ResNet.make_stage)(
            block_class=BottleneckBlock,
            num_blocks=num_blocks,
            stride_per_block=[1 if i == 0 else 2] + [1] * (num_blocks - 1),
            in_channels=stem if i == 0 else first_stage * 2 ** (i - 1),
            bottleneck_channels=bottleneck * 2**i,
            out_channels=first_stage * 2**i,
            num_groups=groups,
            stride_in_1x1=groups == 1,
            norm="FrozenBN",
        )
        for i, num_blocks in enumerate(blocks)
    ]
    model.backbone.out_channels = fpn
    model.proposal_generator.head.num_convs = towers
    head = model.roi_heads.parsing_head
    head.num_classes = classes
    head.context.out_channels = trunk
    head.conv_dims = [trunk] * shared
    head.edges_at_test = True
    head.score_head.in_channels = trunk
    head.score_head.conv_dim = score_conv
    head.score_head.fc_dim = score_fc
    return config

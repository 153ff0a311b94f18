"""The network as a function of a checkpoint under the authors' names, layer by layer.

Written from the description of the published model, without this project's modules: frozen norms
without eps, stride in the first 1x1 convolution, bilinear top-down path, RoIs without the
half-pixel shift.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

STRIDES = (8, 16, 32, 64, 128)


class AuthorsNetwork:
    def __init__(self, weights: dict[str, torch.Tensor], stride_in_1x1: bool = True):
        self.weights = weights
        self.stride_in_1x1 = stride_in_1x1

    def conv(self, x, name, stride=1, padding=None, groups=1):
        weight = self.weights[f"{name}.weight"]
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight, self.weights.get(f"{name}.bias"), stride, padding, groups=groups)

    def frozen_norm(self, x, name):
        weight, bias, mean, variance = (
            self.weights[f"{name}.{kind}"][:, None, None]
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / variance.sqrt() * weight + bias

    def group_norm(self, x, name):
        return F.group_norm(x, 32, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def features(self, image):
        """(1, 3, H, W) image minus the mean -> P3 to P7."""
        body = "backbone.body"
        x = self.conv(image, f"{body}.stem.conv1", stride=2)
        x = F.max_pool2d(F.relu(self.frozen_norm(x, f"{body}.stem.bn1")), 3, 2, 1)
        stages = []
        for stage in (1, 2, 3, 4):
            block = 0
            while f"{body}.layer{stage}.{block}.conv1.weight" in self.weights:
                x = self.bottleneck(
                    x, f"{body}.layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                )
                block += 1
            stages.append(x)

        merged, outputs = None, []
        for i in (4, 3, 2):
            lateral = self.conv(stages[i - 1], f"backbone.fpn.fpn_inner{i}")
            if merged is not None:
                lateral = lateral + F.interpolate(
                    merged, size=lateral.shape[2:], mode="bilinear", align_corners=False
                )
            merged = lateral
            outputs.insert(0, self.conv(merged, f"backbone.fpn.fpn_layer{i}"))
        outputs.append(self.conv(outputs[-1], "backbone.fpn.top_blocks.p6", stride=2))
        outputs.append(self.conv(F.relu(outputs[-1]), "backbone.fpn.top_blocks.p7", stride=2))
        return outputs

    def bottleneck(self, x, name, stride):
        first, second = (stride, 1) if self.stride_in_1x1 else (1, stride)
        groups = (
            self.weights[f"{name}.conv1.weight"].shape[0]
            // self.weights[f"{name}.conv2.weight"].shape[1]
        )
        out = F.relu(self.frozen_norm(self.conv(x, f"{name}.conv1", first), f"{name}.bn1"))
        out = self.conv(out, f"{name}.conv2", second, groups=groups)
        out = F.relu(self.frozen_norm(out, f"{name}.bn2"))
        out = self.frozen_norm(self.conv(out, f"{name}.conv3"), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in self.weights:
            x = self.conv(x, f"{name}.downsample.0", stride)
            x = self.frozen_norm(x, f"{name}.downsample.1")
        return F.relu(out + x)

    def detector(self, features):
        """Per level: logits, distances in pixels and centre-ness, (1, 1 / 4 / 1, H, W)."""
        outputs = []
        for level, feature in enumerate(features):
            towers = []
            for tower in ("cls_tower", "bbox_tower"):
                x, i = feature, 0
                while f"rpn.head.{tower}.{i}.weight" in self.weights:
                    x = self.conv(x, f"rpn.head.{tower}.{i}")
                    x = F.relu(self.group_norm(x, f"rpn.head.{tower}.{i + 1}"))
                    i += 3
                towers.append(x)
            scale = self.weights[f"rpn.head.scales.{level}.scale"]
            outputs.append(
                (
                    self.conv(towers[0], "rpn.head.cls_logits"),
                    torch.exp(scale * self.conv(towers[1], "rpn.head.bbox_pred")),
                    self.conv(towers[1], "rpn.head.centerness"),
                )
            )
        return outputs

    def pool(self, p3, boxes):
        return roi_align(p3, [boxes], 32, spatial_scale=1 / 8, sampling_ratio=2, aligned=False)

    def parse(self, x):
        """(R, C, 32, 32) -> part logits and edge logits at 256x256, and predicted mIoUs."""
        head = "ParsingHead.Head"
        branches = [F.relu(self.conv(x, f"{head}.PGEC.conv1.0"))]
        for branch in (2, 3, 4, 5):
            name = f"{head}.PGEC.conv{branch}"
            gathered, i = x, 0
            while f"{name}.0.gather.{i}.weight" in self.weights:
                gathered = F.relu(gathered) if i else gathered
                gathered = self.conv(gathered, f"{name}.0.gather.{i}", stride=2, groups=x.shape[1])
                i += 2
            gathered = F.interpolate(gathered, size=(32, 32), mode="bilinear", align_corners=True)
            branches.append(F.relu(self.conv(x * gathered.sigmoid(), f"{name}.1")))
        x = F.relu(self.conv(torch.cat(branches, 1), f"{head}.PGEC.bottleneck.0.0"))

        halved = F.max_pool2d(x, 2)
        theta = self.conv(x, f"{head}.feat.0.theta").flatten(2)
        phi = self.conv(halved, f"{head}.feat.0.phi").flatten(2)
        g = self.conv(halved, f"{head}.feat.0.g").flatten(2)
        relation = torch.einsum("rcq,rck->rqk", theta, phi) / np.sqrt(x.shape[1])
        related = torch.einsum("rqk,rck->rcq", relation.softmax(2), g).reshape(x.shape)
        x = x + self.group_norm(self.conv(related, f"{head}.feat.0.out"), f"{head}.feat.0.gn")

        i = 0
        while f"{head}.conv_after.{i + 2}.weight" in self.weights:
            x = F.relu(self.conv(x, f"{head}.conv_after.{i}"))
            i += 2
        x = self.conv(x, f"{head}.conv_after.{i}")
        x = F.relu(self.group_norm(x, f"{head}.conv_after.{i + 1}"))

        logits = []
        for kind, padding in (("parsing", 1), ("edge", 0)):
            name = f"ParsingHead.Output.{kind}_score_lowres"
            low = F.conv_transpose2d(
                x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 2, padding
            )
            logits.append(F.interpolate(low, scale_factor=4, mode="bilinear", align_corners=True))

        score = "ParsingHead.ParsingIoU"
        x = torch.cat([x, F.max_pool2d(logits[0], 8)], 1)
        x = F.relu(self.conv(x, f"{score}.Head.convx.0.0"))
        x = F.relu(self.conv(x, f"{score}.Head.convx.1.0", stride=2)).mean((2, 3))
        x = F.relu(self.linear(x, f"{score}.Head.parsingiou_fc1"))
        x = F.relu(self.linear(x, f"{score}.Head.parsingiou_fc2"))
        return *logits, self.linear(x, f"{score}.Output.parsingiou")[:, 0]

"""Human-part context encoding (paper, Sec. III-B): multi-scale context, then part relations.

Shape shorthand:
    R: RoIs of the batch. S: side of the pooled RoI feature map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.utils.registry import Registry
from fvcore.nn import weight_init
from torch import Tensor, nn

PARSING_CONTEXT_REGISTRY = Registry("PARSING_CONTEXT")
PARSING_CONTEXT_REGISTRY.__doc__ = """
Registry for multi-scale context modules of parsing heads.

Called with `obj(cfg, input_shape: ShapeSpec)`. The module maps (R, C, S, S) RoI features to
(R, obj.out_channels, S, S). The ones here have the keywords in_channels, out_channels and roi_size
in common, so that replacing a LazyConfig node's `_target_` swaps them.
"""

PARSING_NON_LOCAL_REGISTRY = Registry("PARSING_NON_LOCAL")
PARSING_NON_LOCAL_REGISTRY.__doc__ = """
Registry for modules of parsing heads that relate the parts of a person, after the context.

Called with `obj(cfg, input_shape: ShapeSpec)`. The module maps (R, C, S, S) context features to
features of the same shape.
"""


class GatherExcite(nn.Module):
    """Gather-excite unit: gates its input by what surrounds each position.

    Gather: a chain of depth-wise 3x3 stride-2 convolutions, each halving the resolution, with ReLU
    between them. Excite: the result, resized to the input, goes through a sigmoid and multiplies
    the input.
    """

    def __init__(self, channels: int, num_gather_convs: int):
        """
        Args:
            channels: of input and output.
            num_gather_convs: halvings; the spatial extent is ``2 ** num_gather_convs``.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(num_gather_convs):
            conv = Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels)
            weight_init.c2_msra_fill(conv)
            layers += [conv, nn.ReLU()]
        self.gather = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, S, S) -> (R, C, S, S)."""
        gathered = self.gather(x)
        if gathered.shape[-2:] != (1, 1):  # a global gather broadcasts
            gathered = F.interpolate(
                gathered, size=x.shape[-2:], mode="bilinear", align_corners=True
            )
        return x * gathered.sigmoid()


class _MultiScaleContext(nn.Module):
    """The keywords that the modules of the registry have in common, from yacs."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return {
            "in_channels": input_shape.channels,
            "out_channels": cfg.MODEL.ROI_PARSING_HEAD.CONV_DIM,
            "roi_size": input_shape.height,
        }


@PARSING_CONTEXT_REGISTRY.register()
class PGEC(_MultiScaleContext):
    """Pyramidal gather-excite context (paper, Sec. III-B, [46]).

    A 3x3 convolution and four gather-excite units of extents H (the whole RoI), 4, 8 and 16, each
    followed by a 1x1 convolution; a 3x3 convolution merges the five. No normalisation. At RoI size
    32 the global unit has the paper's five depth-wise convolutions; at other sizes, as many as
    bring the RoI to 1x1.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int = 512,
        roi_size: int = 32,
        extents: Sequence[int] = (4, 8, 16),
    ):
        """
        Args:
            in_channels: of the RoI features; also of each branch.
            out_channels: of the merged result.
            roi_size: S.
            extents: of the local gather-excite units, powers of two.

        Raises:
            ValueError: an extent is not a power of two greater than 1.
        """
        super().__init__()
        for extent in extents:
            if extent < 2 or extent & (extent - 1):
                raise ValueError(f"PGEC extents must be powers of two, got {tuple(extents)}")
        num_gather_convs = [math.ceil(math.log2(roi_size))]
        num_gather_convs += [int(math.log2(extent)) for extent in extents]
        self.conv = Conv2d(in_channels, in_channels, 3, padding=1, activation=nn.ReLU())
        self.pyramid = nn.ModuleList(
            nn.Sequential(
                GatherExcite(in_channels, n),
                Conv2d(in_channels, in_channels, 1, activation=nn.ReLU()),
            )
            for n in num_gather_convs
        )
        self.merge = Conv2d(
            in_channels * (1 + len(self.pyramid)), out_channels, 3, padding=1, activation=nn.ReLU()
        )
        self.out_channels = out_channels
        for conv in (
            self.conv,
            self.merge,
            *(branch.get_submodule("1") for branch in self.pyramid),
        ):
            weight_init.c2_msra_fill(conv)

    def forward(self, x: Tensor) -> Tensor:
        """(R, in_channels, S, S) -> (R, out_channels, S, S)."""
        branches = [self.conv(x), *(branch(x) for branch in self.pyramid)]
        return self.merge(torch.cat(branches, dim=1))


@PARSING_CONTEXT_REGISTRY.register()
class ASPP(_MultiScaleContext):
    """Atrous spatial pyramid pooling (paper, Table VIII, [55]), also Parsing R-CNN's context.

    Five branches of ``in_channels`` each: a 1x1 convolution, three dilated 3x3 convolutions, and
    the mean over the RoI followed by a 1x1 convolution. A 1x1 convolution merges them. Biases and
    ReLU everywhere, no normalisation.

    The paper does not give the layout; this one is DeepLab's, whose rates 6, 12 and 18 were made
    for maps of 33x33 and so suit RoIs of 32x32. Its width follows from Table IX: with 256 channels
    a branch merged into the 512 of the non-local operation, Parsing R-CNN has the stated 54.3 M
    parameters; 512 channels a branch would make it 56.8 M, a result of 256 channels 52.0 M.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int = 512,
        roi_size: int = 32,
        rates: Sequence[int] = (6, 12, 18),
    ):
        """
        Args:
            in_channels: of the RoI features; also of each branch.
            out_channels: of the merged result.
            roi_size: S.
            rates: dilations at RoI size 32; they grow and shrink with ``roi_size``.
        """
        super().__init__()
        dilations = [max(1, round(rate * roi_size / 32)) for rate in rates]
        self.conv = Conv2d(in_channels, in_channels, 1, activation=nn.ReLU())
        self.pyramid = nn.ModuleList(
            Conv2d(
                in_channels,
                in_channels,
                3,
                padding=dilation,
                dilation=dilation,
                activation=nn.ReLU(),
            )
            for dilation in dilations
        )
        self.global_conv = Conv2d(in_channels, in_channels, 1, activation=nn.ReLU())
        self.merge = Conv2d(
            in_channels * (2 + len(self.pyramid)), out_channels, 1, activation=nn.ReLU()
        )
        self.out_channels = out_channels
        for conv in (self.conv, *self.pyramid, self.global_conv, self.merge):
            weight_init.c2_msra_fill(conv)

    def forward(self, x: Tensor) -> Tensor:
        """(R, in_channels, S, S) -> (R, out_channels, S, S)."""
        whole = self.global_conv(x.mean(dim=(2, 3), keepdim=True)).expand_as(x)
        branches = [self.conv(x), *(conv(x) for conv in self.pyramid), whole]
        return self.merge(torch.cat(branches, dim=1))


@PARSING_CONTEXT_REGISTRY.register()
class PSP(_MultiScaleContext):
    """Pyramid pooling (paper, Table VIII, [72]).

    The RoI is averaged over grids of 1x1, 2x2, 3x3 and 6x6 bins. A 1x1 convolution brings each to
    a quarter of the channels, bilinear interpolation back to the RoI's size; a 3x3 convolution
    merges them with the input. Biases and ReLU everywhere, no normalisation.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int = 512,
        roi_size: int = 32,
        bins: Sequence[int] = (1, 2, 3, 6),
    ):
        """
        Args:
            in_channels: of the RoI features; the grids share as many evenly.
            out_channels: of the merged result.
            roi_size: S.
            bins: per side of each grid.

        Raises:
            ValueError: a grid has more bins than the RoI has cells.
        """
        super().__init__()
        if max(bins) > roi_size:
            raise ValueError(f"PSP bins must fit into the RoI size {roi_size}, got {tuple(bins)}")
        channels = in_channels // len(bins)
        self.pyramid = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(num_bins),
                Conv2d(in_channels, channels, 1, activation=nn.ReLU()),
            )
            for num_bins in bins
        )
        self.merge = Conv2d(
            in_channels + channels * len(self.pyramid),
            out_channels,
            3,
            padding=1,
            activation=nn.ReLU(),
        )
        self.out_channels = out_channels
        for conv in (*(branch.get_submodule("1") for branch in self.pyramid), self.merge):
            weight_init.c2_msra_fill(conv)

    def forward(self, x: Tensor) -> Tensor:
        """(R, in_channels, S, S) -> (R, out_channels, S, S)."""
        branches = [
            F.interpolate(branch(x), size=x.shape[-2:], mode="bilinear", align_corners=True)
            for branch in self.pyramid
        ]
        return self.merge(torch.cat([x, *branches], dim=1))


@PARSING_NON_LOCAL_REGISTRY.register()
class NonLocalBlock(nn.Module):
    """Embedded-Gaussian non-local operation with a residual connection (paper, Sec. III-B, [60]).

    Keys and values are read from the 2x2 max-pooled input; logits are scaled by
    ``channels ** -0.5``; group normalisation comes last.
    """

    @configurable
    def __init__(self, channels: int, num_groups: int = 32):
        """
        Args:
            channels: of input, embeddings and output.
            num_groups: of the group normalisation.
        """
        super().__init__()
        self.channels = channels
        self.theta = Conv2d(channels, channels, 1)
        self.phi = Conv2d(channels, channels, 1)
        self.g = Conv2d(channels, channels, 1)
        self.out = Conv2d(channels, channels, 1)
        self.norm = nn.GroupNorm(num_groups, channels)
        self.pool = nn.MaxPool2d(2)
        for conv in (self.theta, self.phi, self.g, self.out):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return {"channels": input_shape.channels}

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, S, S) -> (R, C, S, S)."""
        pooled = self.pool(x)
        queries = self.theta(x).flatten(2).transpose(1, 2)  # (R, S * S, C)
        keys = self.phi(pooled).flatten(2)  # (R, C, K)
        values = self.g(pooled).flatten(2).transpose(1, 2)  # (R, K, C)
        # Scaled before the product, whose sum over C could leave half precision's range.
        attention = (queries * x.shape[1] ** -0.5 @ keys).softmax(dim=2)
        related = (attention @ values).transpose(1, 2).reshape(x.shape)
        # In the channels-last layout, which `related` has, torch's group normalisation on the CPU
        # takes the variance as a difference of large numbers: where attention is spread evenly and
        # a channel is almost constant, nothing would be left of it.
        return x + self.norm(self.out(related).contiguous())

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from naive_layers import conv2d, relu, to_array
from torch import nn

from aiparsing_d2.modeling import BilinearFPN


class Pyramid(Backbone):
    """Average pooling by 8, 16 and 32 (rounding up, as strided convolutions do)."""

    def forward(self, x):
        pool = nn.functional.avg_pool2d
        return {f"res{i}": pool(x, 2**i, ceil_mode=True) for i in (3, 4, 5)}

    def output_shape(self):
        return {f"res{i}": ShapeSpec(channels=3, stride=2**i) for i in (3, 4, 5)}


def make_fpn(fpn_class, in_features=("res3", "res4", "res5"), **kwargs):
    torch.manual_seed(0)
    return fpn_class(
        bottom_up=Pyramid(),
        in_features=list(in_features),
        out_channels=4,
        top_block=LastLevelP6P7(4, 4, in_feature="p5"),
        **kwargs,
    )


def resize_half_pixel(x, size):
    """(C, H, W) to size, bilinear between the cells' centres, clamped at the borders."""

    def weights(source, target):
        matrix = np.zeros((target, source))
        for t in range(target):
            position = min(max((t + 0.5) * source / target - 0.5, 0), source - 1)
            low = int(position)
            matrix[t, low] += 1 - (position - low)
            matrix[t, min(low + 1, source - 1)] += position - low
        return matrix

    return np.einsum(
        "ti,cij,uj->ctu", weights(x.shape[1], size[0]), x, weights(x.shape[2], size[1])
    )


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
def test_bilinear_fpn_at_a_size_no_stride_divides(fuse_type):
    fpn = make_fpn(BilinearFPN, fuse_type=fuse_type)
    assert fpn.size_divisibility == 0
    x = torch.randn(2, 3, 83, 101)
    outputs = fpn(x)
    assert list(outputs) == ["p3", "p4", "p5", "p6", "p7"]
    sizes = [tuple(f.shape[-2:]) for f in outputs.values()]
    assert sizes == [(11, 13), (6, 7), (3, 4), (2, 2), (1, 1)]

    expected = {}
    merged = None
    for i in (5, 4, 3):
        lateral = conv2d(to_array(fpn.bottom_up(x)[f"res{i}"])[1], getattr(fpn, f"fpn_lateral{i}"))
        if merged is not None:
            lateral = lateral + resize_half_pixel(merged, lateral.shape[1:])
            if fuse_type == "avg":
                lateral = lateral / 2
        merged = lateral
        expected[f"p{i}"] = conv2d(merged, getattr(fpn, f"fpn_output{i}"), padding=1)
    expected["p6"] = conv2d(expected["p5"], fpn.top_block.p6, stride=2, padding=1)
    expected["p7"] = conv2d(relu(expected["p6"]), fpn.top_block.p7, stride=2, padding=1)
    for name, feature in outputs.items():
        np.testing.assert_allclose(to_array(feature)[1], expected[name], rtol=1e-4, atol=1e-5)


def test_without_a_top_down_path_it_equals_the_stock_fpn():
    stock = make_fpn(FPN, in_features=["res5"])
    bilinear = make_fpn(BilinearFPN, in_features=["res5"])
    bilinear.load_state_dict(stock.state_dict())
    x = torch.randn(1, 3, 64, 96)
    expected = stock(x)
    assert list(expected) == ["p5", "p6", "p7"]
    torch.testing.assert_close(bilinear(x), expected)


def test_it_loads_and_names_what_the_stock_fpn_does():
    stock, bilinear = make_fpn(FPN), make_fpn(BilinearFPN)
    assert {k: v.shape for k, v in bilinear.state_dict().items()} == {
        k: v.shape for k, v in stock.state_dict().items()
    }
    assert bilinear.output_shape() == stock.output_shape()
    bilinear.load_state_dict(stock.state_dict())
    # A constant image is the same under either kind of resizing, away from the padded borders.
    x = torch.full((1, 3, 320, 320), 7.0)
    with torch.no_grad():
        ours, theirs = bilinear(x), stock(x)
    for name in ("p3", "p4", "p5"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)

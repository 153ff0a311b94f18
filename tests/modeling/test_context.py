import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.layers import ShapeSpec
from naive_layers import conv2d, group_norm, relu, resize_aligned, sigmoid, softmax, to_array
from omegaconf import OmegaConf
from tiny_models import make_input, tiny_lazy_model
from torch import nn

from aiparsing_d2.config import add_aiparsing_config
from aiparsing_d2.modeling.roi_heads import (
    ASPP,
    PARSING_CONTEXT_REGISTRY,
    PGEC,
    PSP,
    GatherExcite,
    NonLocalBlock,
)


def randomize(module):
    """Weights, biases and norms large enough for every term to count."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def naive_gather_excite(x, unit):
    convs = list(unit.gather)[::2]
    gathered = x
    for i, conv in enumerate(convs):
        gathered = conv2d(gathered, conv, stride=2, padding=1, groups=len(x))
        if i < len(convs) - 1:
            gathered = relu(gathered)
    if gathered.shape[1:] == (1, 1):
        gathered = np.broadcast_to(gathered, x.shape)
    return x * sigmoid(resize_aligned(gathered, x.shape[1:]))


@pytest.mark.parametrize("size, num_gather_convs", [(8, 1), (8, 2), (8, 3), (7, 2), (6, 3)])
def test_gather_excite(size, num_gather_convs):
    unit = randomize(GatherExcite(3, num_gather_convs))
    x = torch.randn(2, 3, size, size)
    expected = [naive_gather_excite(sample, unit) for sample in to_array(x)]
    np.testing.assert_allclose(to_array(unit(x)), expected, rtol=1e-4, atol=1e-5)


def test_pgec():
    pgec = randomize(PGEC(in_channels=2, out_channels=3, roi_size=8, extents=(2, 4)))
    x = torch.randn(1, 2, 8, 8)
    sample = to_array(x)[0]
    branches = [relu(conv2d(sample, pgec.conv, padding=1))]
    for gather_excite, conv in pgec.pyramid:  # the whole RoI first, then the local extents
        branches.append(relu(conv2d(naive_gather_excite(sample, gather_excite), conv)))
    expected = relu(conv2d(np.concatenate(branches), pgec.merge, padding=1))
    np.testing.assert_allclose(to_array(pgec(x))[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("roi_size, num_global_convs", [(14, 4), (32, 5), (48, 6)])
def test_the_global_unit_gathers_the_whole_roi(roi_size, num_global_convs):
    pgec = PGEC(in_channels=2, out_channels=4, roi_size=roi_size)
    x = torch.randn(1, 2, roi_size, roi_size)
    counts = [len(gather_excite.gather[::2]) for gather_excite, _ in pgec.pyramid]
    assert counts == [num_global_convs, 2, 3, 4]
    assert pgec.pyramid[0][0].gather(x).shape == (1, 2, 1, 1)
    assert pgec(x).shape == (1, 4, roi_size, roi_size)


@pytest.mark.parametrize("extents", [(4, 6), (1,), (0,)])
def test_pgec_refuses_extents_that_are_no_powers_of_two(extents):
    with pytest.raises(ValueError, match="powers of two"):
        PGEC(in_channels=2, extents=extents)


def spread(conv):
    """A dilated convolution as an ordinary one, with zeros between the taps."""
    (dilation, _), (size, _) = conv.dilation, conv.kernel_size
    size = dilation * (size - 1) + 1
    weight = torch.zeros(*conv.weight.shape[:2], size, size)
    weight[:, :, ::dilation, ::dilation] = conv.weight
    return SimpleNamespace(weight=weight, bias=conv.bias)


def test_aspp():
    # A quarter of the rates' RoI size of 32: dilations 1, 3 and 5.
    aspp = randomize(ASPP(in_channels=2, out_channels=3, roi_size=8, rates=(4, 12, 20)))
    x = torch.randn(1, 2, 8, 8)
    sample = to_array(x)[0]
    branches = [relu(conv2d(sample, aspp.conv))]
    for conv, dilation in zip(aspp.pyramid, (1, 3, 5)):
        branches.append(relu(conv2d(sample, spread(conv), padding=dilation)))
    mean = relu(conv2d(sample.mean(axis=(1, 2), keepdims=True), aspp.global_conv))
    branches.append(np.broadcast_to(mean, sample.shape))
    expected = relu(conv2d(np.concatenate(branches), aspp.merge))
    np.testing.assert_allclose(to_array(aspp(x))[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "roi_size, dilations", [(14, [3, 5, 8]), (32, [6, 12, 18]), (48, [9, 18, 27]), (2, [1, 1, 1])]
)
def test_aspp_rates_follow_the_roi_size(roi_size, dilations):
    aspp = ASPP(in_channels=2, out_channels=4, roi_size=roi_size)
    assert [conv.dilation for conv in aspp.pyramid] == [(d, d) for d in dilations]
    x = torch.randn(1, 2, roi_size, roi_size)
    assert aspp(x).shape == (1, 4, roi_size, roi_size)


def average_over_grid(x, num_bins):
    """Means of evenly spaced windows, rounded outwards to whole cells."""
    size = x.shape[1]
    windows = [slice(i * size // num_bins, -(-(i + 1) * size // num_bins)) for i in range(num_bins)]
    return np.stack(
        [
            np.stack([x[:, rows, columns].mean(axis=(1, 2)) for columns in windows], axis=1)
            for rows in windows
        ],
        axis=1,
    )


@pytest.mark.parametrize("size, bins", [(8, (1, 2, 3, 6)), (7, (1, 2, 3, 6)), (6, (1, 4))])
def test_psp(size, bins):
    psp = randomize(PSP(in_channels=4, out_channels=3, roi_size=size, bins=bins))
    x = torch.randn(1, 4, size, size)
    sample = to_array(x)[0]
    branches = [sample]
    for (_, conv), num_bins in zip(psp.pyramid, bins):
        pooled = relu(conv2d(average_over_grid(sample, num_bins), conv))
        branches.append(resize_aligned(pooled, (size, size)))
        assert len(pooled) == 4 // len(bins)
    expected = relu(conv2d(np.concatenate(branches), psp.merge, padding=1))
    np.testing.assert_allclose(to_array(psp(x))[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("roi_size", [14, 32, 48])
def test_psp_at_the_papers_roi_sizes(roi_size):
    psp = PSP(in_channels=4, out_channels=8, roi_size=roi_size)
    assert psp(torch.randn(1, 4, roi_size, roi_size)).shape == (1, 8, roi_size, roi_size)


def test_psp_refuses_more_bins_than_cells():
    with pytest.raises(ValueError, match="RoI size 5"):
        PSP(in_channels=4, roi_size=5)


@pytest.mark.parametrize(
    "cls, by_hand",
    [
        # 1x1, three 3x3, 1x1 on the mean, and 1x1 from 5 * 256 to 512; each with biases.
        (ASPP, 2 * (256**2 + 256) + 3 * (9 * 256**2 + 256) + (5 * 256 * 512 + 512)),
        # Four 1x1 from 256 to 64, and 3x3 from 256 + 4 * 64 to 512.
        (PSP, 4 * (256 * 64 + 64) + (9 * 512**2 + 512)),
    ],
)
def test_parameters_by_hand(cls, by_hand):
    with torch.device("meta"):
        module = cls(in_channels=256)
    assert sum(p.numel() for p in module.parameters()) == by_hand
    assert module.out_channels == 512


@pytest.mark.parametrize("name, cls", [("ASPP", ASPP), ("PSP", PSP)])
def test_three_ways_to_build(name, cls):
    cfg = get_cfg()
    add_aiparsing_config(cfg)
    cfg.MODEL.ROI_PARSING_HEAD.CONTEXT = name
    cfg.MODEL.ROI_PARSING_HEAD.CONV_DIM = 24
    build = PARSING_CONTEXT_REGISTRY.get(cfg.MODEL.ROI_PARSING_HEAD.CONTEXT)
    arguments = {"in_channels": 16, "out_channels": 24, "roi_size": 14}
    modules = [
        build(cfg, ShapeSpec(channels=16, height=14, width=14)),
        cls(**arguments),
        instantiate(L(cls)(**arguments)),
    ]
    x = torch.randn(2, 16, 14, 14)
    outputs = []
    for module in modules:
        assert type(module) is cls
        module.load_state_dict(modules[0].state_dict())
        outputs.append(module(x))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("name", ["ASPP", "PSP"])
def test_one_override_swaps_the_context(name):
    config = OmegaConf.create({"model": tiny_lazy_model()}, flags={"allow_objects": True})
    target = f"aiparsing_d2.modeling.roi_heads.{name}"
    override = f"model.roi_heads.parsing_head.context._target_={target}"
    model = instantiate(LazyConfig.apply_overrides(config, [override]).model).eval()
    assert type(model.roi_heads.parsing_head.context).__name__ == name
    model.proposal_generator.score_thresh = 0.0
    with torch.no_grad():
        (output,) = model([make_input(64, 96)])
    assert len(output["instances"]) > 0
    assert output["instances"].pred_part_scores.isfinite().all()


@pytest.mark.parametrize("cls", [PGEC, ASPP, PSP])
def test_nobody(cls):
    context = cls(in_channels=4, out_channels=8, roi_size=8)
    assert context(torch.zeros(0, 4, 8, 8)).shape == (0, 8, 8, 8)


def naive_non_local(x, block):
    """Position by position; keys and values from the largest of each 2 x 2."""
    channels, height, width = x.shape
    pooled = np.stack(
        [
            x[:, i : i + 2, j : j + 2].max(axis=(1, 2))
            for i in range(0, height - 1, 2)
            for j in range(0, width - 1, 2)
        ],
        axis=1,
    )[:, :, None]
    keys, values = conv2d(pooled, block.phi)[..., 0], conv2d(pooled, block.g)[..., 0]
    queries = conv2d(x, block.theta)
    related = np.empty_like(x)
    for i in range(height):
        for j in range(width):
            attention = softmax(queries[:, i, j] @ keys / np.sqrt(channels), axis=0)
            related[:, i, j] = values @ attention
    return x + group_norm(conv2d(related, block.out), block.norm)


@pytest.mark.parametrize("size", [4, 5])
def test_non_local(size):
    block = randomize(NonLocalBlock(4, num_groups=2))
    x = torch.randn(2, 4, size, size)
    expected = [naive_non_local(sample, block) for sample in to_array(x)]
    np.testing.assert_allclose(to_array(block(x)), expected, rtol=1e-4, atol=1e-4)


def test_non_local_in_half_precision_does_not_overflow():
    block = NonLocalBlock(64).half()
    for conv in (block.theta, block.phi):
        nn.init.eye_(conv.weight.view(64, 64))
    # Queries times keys sum to 64 * 40 ** 2 = 102,400, beyond half precision's 65,504.
    assert block(torch.full((1, 64, 4, 4), 40.0).half()).isfinite().all()


def test_non_local_is_exact_where_attention_is_even():
    """Every position then receives almost the same, whose small differences are normalised."""
    torch.manual_seed(0)
    block = NonLocalBlock(32)  # one channel a group
    x = 5 + torch.randn(2, 32, 16, 16)
    with torch.no_grad():
        nn.init.normal_(block.g.weight)
        nn.init.normal_(block.out.weight)
        output, expected = block(x), copy.deepcopy(block).double()(x.double())
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=0.05)

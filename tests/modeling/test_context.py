import numpy as np
import pytest
import torch
from naive_layers import conv2d, group_norm, relu, resize_aligned, sigmoid, softmax, to_array
from torch import nn

from aiparsing_d2.modeling.roi_heads import PGEC, GatherExcite, NonLocalBlock


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

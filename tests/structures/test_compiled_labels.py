import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aiparsing_d2 import structures
from aiparsing_d2.structures import ROIPartLogits, part_logits, window_labels

pytest.importorskip("numba", reason="needs the extra 'fast', which the extra 'test' brings")
from aiparsing_d2.structures import compiled_labels  # noqa: E402

SIZE = (70, 90)
KINDS = ["noise", "regions", "ties", "flat", "far apart", "shifted", "bfloat16"]
# Of the memory that logits are in.
LAYOUTS = ["channels last", "every second class", "fewer classes, channels last", "expanded"]


def random_boxes(generator, count):
    """Within the picture, across its sides, beyond it, and of less than a pixel."""
    height, width = SIZE
    extents = torch.tensor([[width, height]]) * 2 ** (5 * torch.rand(count, 2, generator=generator))
    extents = extents / 16
    extents[0] = torch.tensor([0.4, 0.3])
    centers = (torch.rand(count, 2, generator=generator) * 1.2 - 0.1) * torch.tensor(
        [width, height]
    )
    return torch.cat([centers - extents / 2, centers + extents / 2], dim=1)


def random_logits(generator, kind, count, num_classes, side):
    noise = 2 * torch.randn(count, num_classes, side, side, generator=generator)
    coarse = torch.randn(count, num_classes, 3, 3, generator=generator)
    regions = F.interpolate(coarse, (side, side), mode="nearest")
    regions = 0.3 * noise + 8 * (regions == regions.amax(dim=1, keepdim=True))
    return {
        "noise": noise,
        "regions": regions,
        "ties": noise.round(),
        "flat": torch.full_like(noise, 0.3),
        "far apart": 7 * noise.clamp(-5.5, 5.5),
        "shifted": regions - 300,
        "bfloat16": noise.bfloat16(),
    }[kind]


@pytest.fixture
def paste_by_operators(monkeypatch):
    def paste(structure, *args):
        with monkeypatch.context() as patch:
            patch.setattr(part_logits, "label_window", lambda *_: None)
            return structure.to_part_maps(*args)

    return paste


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(8))
def test_labels_are_those_of_the_operators_to_the_bit(paste_by_operators, kind, seed, monkeypatch):
    generator = torch.Generator().manual_seed(1000 * seed + KINDS.index(kind))
    side = [2, 5, 9, 16, 17, 28, 33, 65][seed]
    num_classes = [2, 3, 7, 20, 21, 59, 60, 254][(seed + KINDS.index(kind)) % 8]
    factor = [1, 4, 2, 4, 3, 4, 2, 1][seed]
    logits = random_logits(generator, kind, 6, num_classes, side)
    boxes = random_boxes(generator, 6)
    structure = ROIPartLogits(logits, factor)
    assert compiled_labels.fits(side, factor * side)
    monkeypatch.setattr(window_labels, "_label_by_arrays", None)  # nobody needs it
    for inclusive in (False, True):
        expected, expected_scores = paste_by_operators(structure, boxes, SIZE, inclusive)
        monkeypatch.setattr(part_logits, "_paste", None)  # nor this
        maps, scores = structure.to_part_maps(boxes, SIZE, inclusive)
        monkeypatch.undo()
        monkeypatch.setattr(window_labels, "_label_by_arrays", None)
        for labels, other in zip(maps.maps, expected.maps):
            assert torch.equal(labels, other)
        torch.testing.assert_close(scores, expected_scores, atol=1e-5, rtol=0)


def test_pixels_that_rounding_decides_go_to_the_operators(paste_by_operators, monkeypatch):
    # Two classes exchange their logits from left to right: they tie in the middle column.
    nodes = torch.tensor([[3.0, -1.0, -3.0], [-3.0, -1.0, 3.0], [-9.0, -9.0, -9.0]])
    structure = ROIPartLogits(nodes[None, :, None].expand(1, 3, 3, 3).contiguous(), 3)
    box = torch.tensor([[0.0, 0, 45, 45]])
    tied = []
    label_tied = window_labels._label_tied
    monkeypatch.setattr(
        window_labels, "_label_tied", lambda *a: (tied.extend(a[1].tolist()), label_tied(*a))
    )
    maps, scores = structure.to_part_maps(box, (45, 45))
    assert sorted(tied) == [45 * y + 22 for y in range(45)]
    expected, expected_scores = paste_by_operators(structure, box, (45, 45))
    assert torch.equal(maps.to_full(), expected.to_full())
    torch.testing.assert_close(scores, expected_scores, atol=1e-6, rtol=0)


def test_powers_of_two():
    x = np.linspace(-126, 126, 100_001, dtype=np.float32)
    powers = np.array([compiled_labels._power(value) for value in x[::50]])
    np.testing.assert_allclose(powers, 2.0 ** x[::50].astype(np.float64), rtol=2e-7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_of_any_layout(paste_by_operators, layout):
    generator = torch.Generator().manual_seed(5)
    logits = random_logits(generator, "regions", 4, 12, 16)
    by_node = logits.to(memory_format=torch.channels_last)
    logits = {
        "channels last": by_node,
        "every second class": logits[:, ::2],
        "fewer classes, channels last": by_node[:, :7],
        "expanded": logits[:, :1].expand(-1, 5, -1, -1),
    }[layout]
    structure, boxes = ROIPartLogits(logits, 2), random_boxes(generator, 4)
    maps, _ = structure.to_part_maps(boxes, SIZE)
    assert torch.equal(maps.to_full(), paste_by_operators(structure, boxes, SIZE)[0].to_full())


def test_loops_that_are_not_compiled_are_not_used(monkeypatch):
    window_labels.compiled_loops.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr("numba.config.DISABLE_JIT", 1)
        assert window_labels.compiled_loops() is None
    window_labels.compiled_loops.cache_clear()


@pytest.mark.parametrize(
    "side, size, expected",
    [(64, 256, True), (65, 65, True), (66, 66, False), (4, 16, False), (2, 5, True), (1, 4, False)],
)
def test_sizes_that_fit(side, size, expected):
    assert compiled_labels.fits(side, size) is expected
    if side > 1:
        meshes = window_labels._upsampling(side, size).meshes
        assert (max(np.bincount(meshes)) <= 5 and side <= 65) == expected


def test_other_sizes_are_left_to_arrays(paste_by_operators):
    generator = torch.Generator().manual_seed(0)
    structure = ROIPartLogits(random_logits(generator, "noise", 4, 5, 67), 1)
    boxes = random_boxes(generator, 4)
    maps, _ = structure.to_part_maps(boxes, SIZE)
    assert torch.equal(maps.to_full(), paste_by_operators(structure, boxes, SIZE)[0].to_full())


def test_threads_share_nothing():
    generator = torch.Generator().manual_seed(0)
    structure = ROIPartLogits(random_logits(generator, "ties", 12, 20, 16), 4)
    boxes = random_boxes(generator, 12)
    expected, expected_scores = structure.to_part_maps(boxes, SIZE)
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: structure.to_part_maps(boxes, SIZE), range(18)))
    for maps, scores in results:
        assert torch.equal(maps.to_full(), expected.to_full())
        assert torch.equal(scores, expected_scores)


def test_without_a_numba_that_works(monkeypatch):
    assert window_labels.compiled_loops() is compiled_labels
    window_labels.compiled_loops.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(window_labels, "find_spec", lambda name: None)
        assert window_labels.compiled_loops() is None
    window_labels.compiled_loops.cache_clear()
    with monkeypatch.context() as patch:
        # As if numba had refused numpy's version.
        patch.delattr(structures, "compiled_labels")
        patch.setitem(sys.modules, compiled_labels.__name__, None)
        with pytest.warns(UserWarning, match="numba does not work here"):
            assert window_labels.compiled_loops() is None
    window_labels.compiled_loops.cache_clear()


@pytest.mark.parametrize(
    "error", [RuntimeError("cannot cache function: no locator available"), EOFError("Ran out")]
)
def test_nowhere_to_keep_what_is_compiled(monkeypatch, error):
    """Nor if what was kept is damaged."""
    asked = []

    def njit(signature, cache=False, **_):
        asked.append(cache)
        if cache:
            raise error
        return lambda function: function

    monkeypatch.setattr(compiled_labels, "njit", njit)
    assert compiled_labels._compiled(len) is len
    assert asked == [True, False]

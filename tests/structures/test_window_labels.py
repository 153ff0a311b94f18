import numpy as np
import pytest
import torch

from aiparsing_d2.structures import ROIPartLogits, part_logits, window_labels

SIZE = (90, 120)
BOXES = torch.tensor(
    [
        [10.0, 5.0, 106.0, 85.0],  # whole pixels
        [-37.3, -14.6, 65.2, 150.9],  # leaves the image on three sides
        [33.2, 44.1, 36.9, 46.3],  # smaller than the logits
        [-900.0, -700.0, 1500.0, 1100.0],  # far larger than the image
        [130.0, 10.0, 190.0, 70.0],  # beside it
        [20.6, 10.2, 20.8, 30.0],  # between pixel centres
    ]
)


def random_logits(kind, num_classes, side):
    generator = torch.Generator().manual_seed(side * num_classes)
    shape = (len(BOXES), num_classes, side, side)
    noise = 2 * torch.randn(shape, generator=generator)
    # A person's: one class far ahead nearly everywhere.
    regions = torch.randn(*shape[:2], 3, 3, generator=generator)
    regions = torch.nn.functional.interpolate(regions, (side, side), mode="nearest")
    return {
        "noise": noise,
        "regions": 0.3 * noise + 8 * (regions == regions.amax(dim=1, keepdim=True)),
        "ties": noise.round(),
        "all tied": torch.zeros(shape),
        "shifted": noise + 1000,  # float32 holds little of the differences
    }[kind]


def paste(logits, factor, inclusive, with_scores=True):
    structure = ROIPartLogits(logits, factor)
    return structure.to_part_maps(BOXES, SIZE, inclusive, with_scores=with_scores)


@pytest.fixture(autouse=True)
def without_compiled_loops(monkeypatch):
    monkeypatch.setattr(window_labels, "compiled_loops", lambda: None)


@pytest.fixture
def paste_by_operators(monkeypatch):
    """Paste by resizing all probabilities."""

    def paste_plainly(*args):
        with monkeypatch.context() as patch:
            patch.setattr(part_logits, "label_window", lambda *_, **__: None)
            return paste(*args)

    return paste_plainly


@pytest.mark.parametrize("kind", ["noise", "regions", "ties", "all tied", "shifted"])
@pytest.mark.parametrize(
    "num_classes, side, factor", [(5, 16, 4), (20, 8, 1), (3, 2, 3), (1, 7, 2)]
)
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_labels_and_scores_are_those_of_the_operators(
    paste_by_operators, kind, num_classes, side, factor, inclusive, memory_format, monkeypatch
):
    logits = random_logits(kind, num_classes, side).contiguous(memory_format=memory_format)
    expected, expected_scores = paste_by_operators(logits, factor, inclusive)
    monkeypatch.setattr(part_logits, "_paste", None)  # nobody needs it
    maps, scores = paste(logits, factor, inclusive)
    only_maps, no_scores = paste(logits, factor, inclusive, False)
    assert torch.equal(maps.windows, expected.windows)
    for labels, again, other in zip(maps.maps, only_maps.maps, expected.maps):
        assert torch.equal(labels, other)
        assert torch.equal(again, other)
    torch.testing.assert_close(scores, expected_scores, atol=1e-5, rtol=0)
    assert no_scores is None


@pytest.mark.parametrize("kind", ["noise", "regions"])
def test_autocast_changes_nothing(kind):
    logits = random_logits(kind, 20, 8)
    maps, scores = paste(logits, 2, False)
    with torch.autocast("cpu", torch.bfloat16):
        others, other_scores = paste(logits, 2, False)
    assert torch.equal(others.to_full(), maps.to_full()) and torch.equal(other_scores, scores)


def test_one_chunk_or_many(paste_by_operators, monkeypatch):
    for kind in ("noise", "ties"):
        logits = random_logits(kind, 5, 16)
        monkeypatch.setattr(window_labels, "_CHUNK", 1000)
        maps, scores = paste(logits, 4, False)
        expected, expected_scores = paste_by_operators(logits, 4, False)
        assert torch.equal(maps.to_full(), expected.to_full())
        torch.testing.assert_close(scores, expected_scores, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1e4, 1e30])
def test_logits_that_only_the_operators_can_tell(paste_by_operators, value):
    logits = random_logits("noise", 5, 16)
    logits[:, 1, 4, 4] = value
    maps, scores = paste(logits, 2, False)
    expected, expected_scores = paste_by_operators(logits, 2, False)
    assert torch.equal(maps.to_full(), expected.to_full())
    torch.testing.assert_close(scores, expected_scores, equal_nan=True)


def test_a_single_node(paste_by_operators):
    logits = random_logits("noise", 5, 1)
    assert torch.equal(
        paste(logits, 4, False)[0].to_full(), paste_by_operators(logits, 4, False)[0].to_full()
    )


def test_a_third_class_between_two_winners():
    # Never the highest logit of a node, but where 6 (1 - t) and 6 t are below 3.9: 0.35 < t < 0.65.
    # The 16 cells, which are the pixels, are at t = 0, 1/15, ..., 1.
    nodes = torch.tensor([[6.0, 0.0], [0.0, 6.0], [3.9, 3.9]])
    logits = nodes[None, :, None].expand(1, 3, 2, 2)
    structure = ROIPartLogits(logits, 8)
    maps, _ = structure.to_part_maps(torch.tensor([[0.0, 0, 16, 16]]), (16, 16))
    assert maps.to_full()[0, 8].tolist() == [0] * 6 + [2] * 4 + [1] * 6


def test_pixel_centres_know_their_cells():
    # Eight cells over the box: the first centre is where the first cell's is, the second midway to
    # the next, the third in the border of zeros, the fourth beyond it.
    positions = np.array([-7 / 8, -6 / 8, -8.5 / 8, -9.5 / 8], dtype=np.float32)
    (centers,) = window_labels.locate_pixels([positions], 8)
    assert centers.axis.sources[:, 1].tolist() == [0, 1]
    assert centers.axis.weights.sum(axis=0).tolist() == [1, 1, 0.25, 0]
    assert centers.beyond.tolist() == [False, False, False, True]

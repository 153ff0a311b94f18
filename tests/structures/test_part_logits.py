import math

import numpy as np
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures import Boxes, Instances

from aiparsing_d2.structures import ROIPartLogits, part_logits

HEIGHT, WIDTH = 40, 60


@pytest.fixture
def logits():
    return 2 * torch.randn(4, 5, 8, 8, generator=torch.Generator().manual_seed(0))


BOXES = torch.tensor(
    [
        [10.0, 5.0, 42.0, 37.0],  # whole pixels, magnified four times
        [-7.3, -4.6, 25.2, 50.9],  # leaves the image on three sides
        [3.2, 4.1, 6.9, 6.3],  # smaller than the logits
        [30.4, 20.3, 59.7, 39.9],
    ]
)


def naive_paste(probabilities, box, height, width):
    """(C, T, T) to best label and its probability, pixel centre by pixel centre."""
    num_classes, size, _ = probabilities.shape
    padded = np.pad(probabilities, ((0, 0), (1, 1), (1, 1)))
    labels, confidence = np.zeros((height, width), np.uint8), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            # Only pixels that touch the box.
            if not (x + 1 > box[0] and x < box[2] and y + 1 > box[1] and y < box[3]):
                continue
            # Position in cells; the centre of padded cell i is at i - 1/2 of the box's own cells.
            u = (x + 0.5 - box[0]) / (box[2] - box[0]) * size + 0.5
            v = (y + 0.5 - box[1]) / (box[3] - box[1]) * size + 0.5
            if not (0 <= u < size + 1 and 0 <= v < size + 1):
                continue
            i, j, a, b = int(v), int(u), v - int(v), u - int(u)
            values = (
                padded[:, i, j] * (1 - a) * (1 - b)
                + padded[:, i, j + 1] * (1 - a) * b
                + padded[:, i + 1, j] * a * (1 - b)
                + padded[:, i + 1, j + 1] * a * b
            )
            labels[y, x], confidence[y, x] = values.argmax(), values.max()
    return labels, confidence


def test_pasting_and_part_scores_equal_a_loop_over_pixels(logits):
    part_maps, scores = ROIPartLogits(logits).to_part_maps(BOXES, (HEIGHT, WIDTH))
    probabilities = logits.softmax(dim=1).double().numpy()
    assert part_maps.image_size == (HEIGHT, WIDTH)
    assert part_maps.windows.tolist() == [
        [10, 5, 42, 37],
        [0, 0, 26, 40],
        [3, 4, 7, 7],
        [30, 20, 60, 40],
    ]
    for i, full in enumerate(part_maps.to_full().numpy()):
        labels, confidence = naive_paste(probabilities[i], BOXES[i].tolist(), HEIGHT, WIDTH)
        np.testing.assert_array_equal(full, labels)
        assert len(np.unique(labels)) > 2
        x0, y0, x1, y1 = part_maps.windows[i].tolist()
        labels, confidence = labels[y0:y1, x0:x1], confidence[y0:y1, x0:x1]
        expected = [confidence[labels == c].mean() if (labels == c).any() else 0 for c in range(5)]
        np.testing.assert_allclose(scores[i].numpy(), expected, rtol=1e-4)


def test_pasting_equals_detectron2s_mask_pasting_class_by_class(logits):
    probabilities = logits.softmax(dim=1)
    per_class = torch.stack(
        [
            paste_masks_in_image(probabilities[:, c], Boxes(BOXES), (HEIGHT, WIDTH), threshold=-1)
            for c in range(5)
        ],
        dim=1,
    )  # uint8 0..255: labels are compared where one class leads by more than the rounding
    best = per_class.int().topk(2, dim=1).values
    clear = (best[:, 0] - best[:, 1]) > 2
    # Detectron2 also fills the half cell around the box, where only the zero border is mixed in.
    for mask, (x0, y0, x1, y1) in zip(clear, BOXES.tolist()):
        mask[: max(math.floor(y0), 0)] = mask[math.ceil(y1) :] = False
        mask[:, : max(math.floor(x0), 0)] = mask[:, math.ceil(x1) :] = False
    full = ROIPartLogits(logits).to_part_maps(BOXES, (HEIGHT, WIDTH))[0].to_full()
    assert clear.sum() > 1000
    assert torch.equal(full[clear].long(), per_class.int().argmax(dim=1)[clear])


def test_upsampling_comes_before_the_softmax(logits):
    structure = ROIPartLogits(logits, upsample_factor=3)
    probabilities = structure.probabilities()
    assert probabilities.shape == (4, 5, 24, 24)
    # Corners stay corners, so the 8 cells lie 23 / 7 of the 24 apart.
    torch.testing.assert_close(probabilities[..., 0, 0], logits[..., 0, 0].softmax(dim=1))
    torch.testing.assert_close(probabilities[..., -1, -1], logits[..., -1, -1].softmax(dim=1))
    share = 7 / 23  # of the second cell in the second column
    between = (1 - share) * logits[..., 0, 0] + share * logits[..., 0, 1]
    torch.testing.assert_close(probabilities[..., 0, 1], between.softmax(dim=1))
    maps, _ = structure.to_part_maps(BOXES, (HEIGHT, WIDTH))
    labels, _ = naive_paste(probabilities[0].double().numpy(), BOXES[0].tolist(), HEIGHT, WIDTH)
    np.testing.assert_array_equal(maps.to_full()[0].numpy(), labels)


@pytest.mark.parametrize("max_floats", [1, 5 * 32 * 7])
def test_strips_change_nothing(logits, monkeypatch, max_floats):
    monkeypatch.setattr(part_logits, "label_window", lambda *_, **__: None)
    whole, whole_scores = ROIPartLogits(logits).to_part_maps(BOXES, (HEIGHT, WIDTH))
    monkeypatch.setattr(part_logits, "_MAX_FLOATS_PER_STRIP", max_floats)
    strips, strip_scores = ROIPartLogits(logits).to_part_maps(BOXES, (HEIGHT, WIDTH))
    assert torch.equal(strips.to_full(), whole.to_full())
    torch.testing.assert_close(strip_scores, whole_scores)


def test_part_scores_by_hand():
    # Left half label 1 with 0.75, right half label 2 with 0.6: at double size, 8 x 8 pixels.
    probabilities = torch.tensor([[0.15, 0.75, 0.1], [0.25, 0.15, 0.6]])
    tensor = probabilities.log()[[0, 0, 1, 1]].T[None, :, None].expand(1, 3, 4, 4)
    maps, scores = ROIPartLogits(tensor).to_part_maps(torch.tensor([[0.0, 0, 8, 8]]), (8, 8))
    # Bilinear weights along a side: 3/4 at the two border pixels (the rest is the zero border),
    # and between the halves pixels 3 and 4 mix 3/4 with 1/4.
    assert maps.to_full()[0].tolist() == [[1, 1, 1, 1, 2, 2, 2, 2]] * 8
    vertical = (6 + 2 * 0.75) / 8
    first = (0.75 * 0.75 + 0.75 + 0.75 + 0.75 * 0.75 + 0.25 * 0.15) / 4
    second = (0.75 * 0.6 + 0.25 * 0.1 + 0.6 + 0.6 + 0.75 * 0.6) / 4
    np.testing.assert_allclose(scores[0], [0, first * vertical, second * vertical], rtol=1e-5)


@pytest.mark.parametrize(
    "box",
    [
        [20.6, 10.2, 20.8, 30.0],  # between two columns of pixel centres
        [20.0, 10.0, 20.0, 30.0],  # no width
        [70.0, 10.0, 90.0, 30.0],  # right of the image
        [-30.0, -30.0, -1.0, -1.0],  # above it
    ],
)
def test_boxes_without_a_pixel_centre_give_an_empty_map(logits, box):
    # The first channel never wins inside a box.
    logits[:, 0] = -100
    maps, scores = ROIPartLogits(logits[:1]).to_part_maps(torch.tensor([box]), (HEIGHT, WIDTH))
    assert not maps.to_full().any()
    assert scores.isfinite().all()
    assert torch.all(scores[:, 1:] == 0)


def test_nobody():
    structure = ROIPartLogits(torch.zeros(0, 5, 8, 8), upsample_factor=2)
    assert structure.probabilities().shape[:2] == (0, 5)
    maps, scores = structure.to_part_maps(torch.zeros(0, 4), (HEIGHT, WIDTH))
    assert len(maps) == 0 and maps.image_size == (HEIGHT, WIDTH)
    assert maps.to_full().shape == (0, HEIGHT, WIDTH)
    assert scores.shape == (0, 5)


def test_half_precision_logits_are_pasted_in_float32(logits):
    maps, scores = ROIPartLogits(logits.half()).to_part_maps(BOXES, (HEIGHT, WIDTH))
    expected, _ = ROIPartLogits(logits.half().float()).to_part_maps(BOXES, (HEIGHT, WIDTH))
    assert scores.dtype == torch.float32
    assert torch.equal(maps.to_full(), expected.to_full())


@pytest.mark.parametrize(
    "item, expected",
    [
        (1, [1]),
        (-1, [3]),
        (np.int64(2), [2]),
        (slice(1, 3), [1, 2]),
        (torch.tensor([2, 0]), [2, 0]),
        (torch.tensor([True, False, True, False]), [0, 2]),
        (torch.zeros(0, dtype=torch.int64), []),
    ],
)
def test_indexing_selects_people(logits, item, expected):
    chosen = ROIPartLogits(logits, upsample_factor=4)[item]
    assert torch.equal(chosen.tensor, logits[expected])
    assert chosen.upsample_factor == 4


def test_is_a_field_of_instances(logits):
    instances = Instances((HEIGHT, WIDTH), pred_part_logits=ROIPartLogits(logits, 4))
    merged = Instances.cat([instances[2:], instances[torch.tensor([0])]]).to("cpu")
    assert torch.equal(merged.pred_part_logits.tensor, logits[[2, 3, 0]])
    assert merged.pred_part_logits.upsample_factor == 4
    assert merged.pred_part_logits.device == torch.device("cpu")


def test_cat_refuses_different_factors(logits):
    with pytest.raises(ValueError, match=r"different upsample factors \[1, 4\]"):
        ROIPartLogits.cat([ROIPartLogits(logits, 4), ROIPartLogits(logits, 1)])


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"expects \(N, C, M, M\), got \(5, 8, 8\)"):
        ROIPartLogits(torch.zeros(5, 8, 8))


def test_unlikely_parts_go_to_the_likely_ones(logits):
    least = 0.95
    kept = ROIPartLogits(logits, 2).without_unlikely_parts(least)
    assert kept.upsample_factor == 2
    left_out = 0
    for before, after in zip(logits.softmax(1).double().numpy(), kept.tensor.softmax(1).numpy()):
        peaks = [part.max() for part in before[1:]]
        likely = [c for c in range(1, 5) if peaks[c - 1] >= least or peaks[c - 1] == max(peaks)]
        left_out += 4 - len(likely)
        expected = np.zeros_like(before)
        expected[0] = before[0]
        for c in likely:
            expected[c] = before[c] / before[likely].sum(axis=0) * before[1:].sum(axis=0)
        np.testing.assert_allclose(after, expected, atol=1e-6)
        assert not set(range(1, 5)).difference(likely) & set(after.argmax(axis=0).flat)
    assert 4 < left_out < 12


def test_unlikely_parts_of_one_person_by_hand():
    # Two cells: coat .5, dress .3; coat .2, dress .3. The dress is likelier in the second.
    probabilities = torch.tensor([[[0.2, 0.5]], [[0.5, 0.2]], [[0.3, 0.3]]])
    logits = ROIPartLogits(probabilities.log().expand(3, 2, 2)[None])
    kept = logits.without_unlikely_parts(0.4).probabilities()[0, :, 0]
    expected = torch.tensor([[0.2, 0.5], [0.8, 0.5], [0, 0]])
    torch.testing.assert_close(kept, expected)
    assert torch.equal(
        logits.without_unlikely_parts(0.3).probabilities().argmax(1),
        probabilities.argmax(0).expand(1, 2, 2),
    )
    # Whoever has no likely part keeps the likeliest.
    torch.testing.assert_close(logits.without_unlikely_parts(1).probabilities()[0, :, 0], expected)


def test_unlikely_parts_of_nobody_and_in_half_precision(logits):
    assert len(ROIPartLogits(logits[:0]).without_unlikely_parts(0.5)) == 0
    kept = ROIPartLogits(logits.bfloat16()).without_unlikely_parts(0.5).tensor
    assert torch.equal(
        kept, ROIPartLogits(logits.bfloat16().float()).without_unlikely_parts(0.5).tensor
    )

import pickle
import tracemalloc
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.structures import Instances
from hypothesis import given, settings
from hypothesis import strategies as st

from aiparsing_d2.structures import PartMaps


@pytest.fixture
def full_maps():
    rng = np.random.default_rng(0)
    maps = np.zeros((4, 20, 30), dtype=np.uint8)
    maps[0, 3:9, 5:17] = rng.integers(1, 20, (6, 12))
    maps[1, 0:20, 0:30] = rng.integers(0, 20, (20, 30))
    maps[2, 19, 29] = 255
    return maps  # the fourth person has no pixel


def test_windows_are_tight_and_to_full_restores_the_maps(full_maps):
    part_maps = PartMaps.from_full(full_maps)
    assert part_maps.windows[0].tolist() == [5, 3, 17, 9]
    assert part_maps.windows[2].tolist() == [29, 19, 30, 20]
    assert part_maps.windows[3].tolist() == [0, 0, 0, 0]
    assert part_maps.maps[0].shape == (6, 12)
    np.testing.assert_array_equal(part_maps.to_full().numpy(), full_maps)
    assert part_maps.get_bounding_boxes().tensor[0].tolist() == [5, 3, 17, 9]


def test_bounding_boxes_ignore_zero_margins_of_a_window():
    padded = torch.zeros((6, 6), dtype=torch.uint8)
    padded[2, 3] = 7
    part_maps = PartMaps([padded], torch.tensor([[10, 4, 16, 10]]), (20, 30))
    assert part_maps.get_bounding_boxes().tensor.tolist() == [[13, 6, 14, 7]]


@pytest.mark.parametrize(
    "item, expected",
    [
        (1, [1]),
        (-1, [3]),
        (slice(1, 3), [1, 2]),
        (torch.tensor([2, 0]), [2, 0]),
        (torch.tensor([True, False, True, False]), [0, 2]),
        (torch.zeros(0, dtype=torch.int64), []),
        ([3, 1], [3, 1]),
    ],
)
def test_indexing_selects_people(full_maps, item, expected):
    chosen = PartMaps.from_full(full_maps)[item]
    assert len(chosen) == len(expected)
    np.testing.assert_array_equal(chosen.to_full().numpy(), full_maps[expected])


def test_index_out_of_range(full_maps):
    with pytest.raises(IndexError):
        PartMaps.from_full(full_maps)[4]


def test_is_a_field_of_instances(full_maps):
    instances = Instances((20, 30), gt_part_maps=PartMaps.from_full(full_maps))
    instances.gt_classes = torch.arange(4)
    merged = Instances.cat([instances[torch.tensor([3, 0])], instances[instances.gt_classes == 1]])
    np.testing.assert_array_equal(
        merged.gt_part_maps.to_full().numpy(), full_maps[merged.gt_classes.numpy()]
    )
    assert len(instances.to("cpu").gt_part_maps) == 4


def test_cat_refuses_different_images(full_maps):
    with pytest.raises(ValueError, match="different image sizes"):
        PartMaps.cat([PartMaps.from_full(full_maps), PartMaps.from_full(full_maps[:, :-1])])


def naive_crop_and_resize(full, box, size):
    """Pixel by pixel, from the definition."""
    height, width = full.shape
    x0, y0, x1, y1 = (int(np.rint(side)) for side in box)  # np.rint rounds half to even
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    x1, y1 = max(min(x1, width), x0 + 1), max(min(y1, height), y0 + 1)
    out = np.zeros((size, size), dtype=np.uint8)
    for r in range(size):
        for c in range(size):
            out[r, c] = full[y0 + r * (y1 - y0) // size, x0 + c * (x1 - x0) // size]
    return out


@pytest.mark.parametrize("size", [1, 7, 32])
def test_crop_and_resize_follows_its_definition(full_maps, size):
    boxes = [
        [0.5, 1.5, 29.6, 19.2],  # half to even: 0, 2
        [-4.0, -3.0, 12.2, 50.0],  # leaves the image on three sides
        [29.4, 18.6, 29.6, 19.4],  # rounds to one pixel in x
        [3.0, 3.0, 3.2, 3.4],  # zero area after rounding
        [100.0, 100.0, 120.0, 130.0],  # outside
        [4.0, 2.0, 18.0, 10.0],
    ]
    for person in range(len(full_maps)):
        part_maps = PartMaps.from_full(full_maps[[person] * len(boxes)])
        crops = part_maps.crop_and_resize(torch.tensor(boxes), size).numpy()
        for crop, box in zip(crops, boxes):
            np.testing.assert_array_equal(
                crop, naive_crop_and_resize(full_maps[person], box, size), err_msg=str(box)
            )


def test_crop_and_resize_of_nobody():
    assert PartMaps.from_full(np.zeros((0, 5, 6), np.uint8)).crop_and_resize(
        torch.zeros((0, 4)), (4, 3)
    ).shape == (0, 4, 3)


def test_people_selected_several_times_are_cropped_each_by_its_own_box(full_maps):
    people = [1, 0, 1, 1]
    boxes = torch.tensor([[0, 0, 30, 20], [4, 2, 18, 10], [5, 3, 25, 18], [0, 0, 3, 3]])
    crops = PartMaps.from_full(full_maps)[people].crop_and_resize(boxes.float(), 8).numpy()
    for crop, person, box in zip(crops, people, boxes.tolist()):
        np.testing.assert_array_equal(crop, naive_crop_and_resize(full_maps[person], box, 8))


@pytest.mark.parametrize("dumps", [pickle.dumps, ForkingPickler.dumps])
def test_pickled_maps_are_the_same(full_maps, dumps):
    part_maps = PartMaps.from_full(full_maps)[[1, 0, 1]]
    restored = pickle.loads(dumps(part_maps))
    assert restored.image_size == part_maps.image_size
    assert torch.equal(restored.windows, part_maps.windows)
    assert torch.equal(restored.to_full(), part_maps.to_full())
    nobody = pickle.loads(dumps(part_maps[:0]))
    assert len(nobody) == 0
    assert nobody.image_size == part_maps.image_size


def test_pickled_maps_take_the_bytes_of_their_windows_once(full_maps):
    part_maps = PartMaps.from_full(np.kron(full_maps, np.ones((1, 50, 50), np.uint8)))
    (y0, x0, y1, x1) = part_maps.windows[0, [1, 0, 3, 2]].tolist()
    size = len(pickle.dumps(part_maps[[0] * 20]))
    assert (y1 - y0) * (x1 - x0) < size < 1.1 * (y1 - y0) * (x1 - x0) + 2000


def test_moving_to_another_device_keeps_the_maps(full_maps):
    part_maps = PartMaps.from_full(full_maps)
    assert part_maps.to("cpu").maps[0] is part_maps.maps[0]
    moved = part_maps[[0, 1, 1]].to("meta")
    assert moved.device.type == "meta"
    assert [m.shape for m in moved.maps] == [part_maps.maps[i].shape for i in (0, 1, 1)]


def test_rle_decodes_to_the_parts(full_maps):
    encoded = PartMaps.from_full(full_maps).to_rle()
    assert [sorted(codes) for codes in encoded] == [
        sorted(set(np.unique(m).tolist()) - {0}) for m in full_maps
    ]
    for full, codes in zip(full_maps, encoded):
        for label, code in codes.items():
            np.testing.assert_array_equal(mask_util.decode(code), full == label)


@settings(deadline=None)
@given(st.data())
def test_rle_equals_that_of_the_full_mask(data):
    """Windows at all borders, runs over several columns, and labels on the first and last pixel."""
    height, width = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    x0, x1 = sorted(data.draw(st.tuples(*[st.integers(0, width)] * 2)))
    y0, y1 = sorted(data.draw(st.tuples(*[st.integers(0, height)] * 2)))
    labels = st.sampled_from([0, 1, 2, 255])
    pixels = data.draw(st.lists(labels, min_size=width * height, max_size=width * height))
    part_map = torch.tensor(pixels, dtype=torch.uint8).reshape(height, width)[y0:y1, x0:x1]
    part_maps = PartMaps([part_map], torch.tensor([[x0, y0, x1, y1]]), (height, width))
    full = part_maps.to_full()[0].numpy()
    (codes,) = part_maps.to_rle()
    assert list(codes) == [label for label in (1, 2, 255) if (full == label).any()]
    for label, code in codes.items():
        expected = mask_util.encode(np.asfortranarray((full == label).astype(np.uint8)))
        assert code == {**expected, "counts": expected["counts"].decode()}
    xs, ys = full.any(axis=0).nonzero()[0], full.any(axis=1).nonzero()[0]
    tight = [xs[0], ys[0], xs[-1] + 1, ys[-1] + 1] if len(xs) else [0, 0, 0, 0]
    assert part_maps.get_bounding_boxes().tensor.tolist() == [tight]


def test_cost_follows_the_window_and_not_the_image():
    """Of a person in 12 megapixels, boxes and codes take less memory than one full-size map."""
    height, width = 3000, 4000
    labels = np.random.default_rng(0).integers(0, 59, (60, 25)).astype(np.uint8)
    person = torch.from_numpy(labels.repeat(10, axis=0).repeat(10, axis=1))
    part_maps = PartMaps([person], torch.tensor([[1000, 700, 1250, 1300]]), (height, width))
    tracemalloc.start()
    try:
        (codes,) = part_maps.to_rle()
        assert part_maps.get_bounding_boxes().tensor.tolist() == [[1000, 700, 1250, 1300]]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(codes) == 58
    assert peak < height * width / 2
    code = mask_util.decode(codes[7])
    np.testing.assert_array_equal(code[700:1300, 1000:1250], person.numpy() == 7)
    assert code.sum() == (person == 7).sum()


@pytest.mark.parametrize(
    "part_map, window, message",
    [
        (torch.zeros((2, 3)), [0, 0, 3, 2], "map 0 must be uint8.*got torch.float32"),
        (
            torch.zeros((2, 3), dtype=torch.uint8),
            [0, 0, 2, 3],
            r"\(3, 2\) of its window.*\(2, 3\)$",
        ),
        (torch.zeros((2, 3), dtype=torch.uint8), [9, 0, 12, 2], "leaves the"),
    ],
)
def test_what_does_not_fit_is_refused(part_map, window, message):
    with pytest.raises(ValueError, match=message):
        PartMaps([part_map], torch.tensor([window]), (10, 10))


def test_cropped_maps_hold_the_same(full_maps):
    part_maps = PartMaps.from_full(full_maps)
    cropped = part_maps.to_cropped_maps()
    assert all(isinstance(crop, np.ndarray) for crop in cropped.maps)
    np.testing.assert_array_equal(cropped.windows, part_maps.windows.numpy())
    np.testing.assert_array_equal(cropped.to_full((20, 30)), full_maps)

"""PersonMasks: what the tools of others get to see of part maps."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, Instances

from aiparsing_d2.structures import PartMaps, PersonMasks

LABELS = np.zeros((3, 6, 8), dtype=np.uint8)
LABELS[0, 1:4, 2:5] = 7
LABELS[0, 2, 3] = 0  # a hole
LABELS[1, 0:6, 6:8] = 1
LABELS[1, 5, 7] = 255
EXPECTED = LABELS > 0  # nobody sees the third person


@pytest.fixture
def masks():
    return PersonMasks(PartMaps.from_full(LABELS))


def test_it_is_read_like_a_tensor(masks):
    assert masks.shape == EXPECTED.shape and len(masks) == 3 and masks.ndim == 3
    assert masks.dtype == masks.tensor.dtype == torch.bool
    for array in (np.asarray(masks), masks.numpy(), masks.cpu().numpy(), masks.tensor.numpy()):
        assert array.dtype == bool
        np.testing.assert_array_equal(array, EXPECTED)
    assert np.asarray(masks, dtype=np.uint8).dtype == np.uint8
    np.testing.assert_array_equal(np.stack([m.numpy() for m in masks]), EXPECTED)
    np.testing.assert_array_equal(masks[1].numpy(), EXPECTED[1])
    np.testing.assert_array_equal(masks[np.int64(0)].numpy(), EXPECTED[0])
    np.testing.assert_array_equal(masks.any(dim=0).numpy(), EXPECTED.any(axis=0))
    np.testing.assert_array_equal(masks.any(dim=2).numpy(), EXPECTED.any(axis=2))
    assert masks.any() and not masks[[2]].any()
    assert masks.get_bounding_boxes().tensor.tolist() == [[2, 1, 5, 4], [6, 0, 8, 6], [0, 0, 0, 0]]
    with pytest.raises(IndexError):
        masks[3]


@pytest.mark.parametrize(
    "item, people",
    [
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        (torch.tensor([True, False, True]), [0, 2]),
        (torch.tensor([], dtype=torch.int64), []),
    ],
)
def test_selected_people(masks, item, people):
    selected = masks[item]
    assert isinstance(selected, PersonMasks)
    np.testing.assert_array_equal(np.asarray(selected), EXPECTED[people])


def test_a_field_of_instances(masks):
    instances = Instances((6, 8), pred_masks=masks)
    joined = Instances.cat([instances[1], instances[[True, False, True]]]).to("cpu")
    np.testing.assert_array_equal(joined.pred_masks.numpy(), EXPECTED[[1, 0, 2]])


def test_only_one_mask_at_a_time_is_made():
    """2,000 people in 12 megapixels would be 24 GB."""
    part_maps = PartMaps(
        [torch.ones((1, 1), dtype=torch.uint8)] * 2000,
        torch.tensor([[7, 5, 8, 6]] * 2000),
        (3000, 4000),
    )
    masks = PersonMasks(part_maps)
    assert masks[1990:].any(dim=0).nonzero().tolist() == [[5, 7]]
    assert next(iter(masks)).shape == (3000, 4000)


def test_detectron2_writes_them_as_coco_json(masks):
    instances = Instances(
        (6, 8),
        pred_boxes=masks.get_bounding_boxes(),
        scores=torch.tensor([0.5, 0.25, 0.125]),
        pred_classes=torch.zeros(3, dtype=torch.int64),
        pred_masks=masks,
    )
    results = instances_to_coco_json(instances, "a")
    assert [r["bbox"] for r in results] == [[2, 1, 3, 3], [6, 0, 2, 6], [0, 0, 0, 0]]
    decoded = [mask_util.decode(r["segmentation"]) for r in results]
    np.testing.assert_array_equal(np.stack(decoded), EXPECTED)


def test_supervision_reads_them(masks):
    """What supervision's ``Detections.from_detectron2`` asks for."""
    instances = Instances((6, 8), pred_boxes=Boxes(torch.zeros(3, 4)), pred_masks=masks)
    assert hasattr(instances, "pred_masks")
    mask = instances.pred_masks.cpu().numpy()
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, EXPECTED)

import copy

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.data import build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError, read_image
from detectron2.structures import Boxes
from PIL import Image

from aiparsing_d2.data.annotations import (
    AnnotationError,
    PersonAnnotations,
    read_person_annotations,
)
from aiparsing_d2.data.dataset_mapper import (
    ParsingDatasetMapper,
    person_annotations_to_instances,
)
from aiparsing_d2.data.datasets import load_cihp
from aiparsing_d2.data.transforms import is_mirrored
from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import (
    CIHP_PART_LABELS,
    LV_MHP_V2_PART_LABELS,
    get_part_labels,
)

# (14, 15), (16, 17), (18, 19) written out, so as not to take them from the code under test.
SWAPPED = {14: 15, 15: 14, 16: 17, 17: 16, 18: 19, 19: 18}


def make_mapper(*augmentations, is_train=True, **kwargs):
    return ParsingDatasetMapper(
        is_train, augmentations=list(augmentations), part_labels=CIHP_PART_LABELS, **kwargs
    )


@pytest.fixture
def record(two_people):
    (record,) = load_cihp(two_people.root, "train")
    return record


@pytest.fixture
def crowd_record(cihp_folder):
    """Five people with ragged outlines and all 19 parts in a 61x83 image."""
    rng = np.random.default_rng(0)
    category_map = rng.integers(0, 20, (61, 83), dtype=np.uint8)
    human_map = np.zeros_like(category_map)
    for number in range(1, 6):
        left = 15 * number - 12
        human_map[5 : 30 + 5 * number, left : left + 13] = number
    image = rng.integers(0, 256, (61, 83, 3), dtype=np.uint8)
    cihp_folder.add("0000001", category_map, human_map, image)
    (record,) = load_cihp(cihp_folder.root, "train")
    return record


def test_types_and_the_record_is_left_alone(record):
    before = copy.deepcopy(record)
    sample = make_mapper()(record)
    assert record == before

    assert {key: sample[key] for key in record} == record
    image = sample["image"]
    assert image.dtype == torch.uint8 and image.shape == (3, 4, 6) and image.is_contiguous()
    # The pixels count up in RGB, and the image is BGR.
    assert image[:, 0, 1].tolist() == [5, 4, 3]

    instances = sample["instances"]
    assert instances.image_size == (4, 6)
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes", "gt_part_maps"}
    assert isinstance(instances.gt_boxes, Boxes) and isinstance(instances.gt_part_maps, PartMaps)
    assert instances.gt_classes.dtype == torch.int64 and instances.gt_classes.tolist() == [0, 0]
    assert instances.gt_boxes.tensor.dtype == torch.float32
    assert instances.gt_boxes.tensor.tolist() == [[0, 0, 3, 3], [4, 1, 6, 3]]


def test_flip_mirrors_pixels_and_boxes_and_swaps_left_and_right(record):
    sample = make_mapper(T.RandomFlip(prob=1.0))(record)
    assert sample["image"][:, 0, 4].tolist() == [5, 4, 3]
    expected = [
        [
            [0, 0, 0, 13, 13, 0],
            [0, 0, 0, 14, 13, 15],
            [0, 0, 0, 0, 13, 15],
            [0, 0, 0, 0, 0, 0],
        ],
        [
            [0, 0, 0, 0, 0, 0],
            [17, 17, 0, 0, 0, 0],
            [17, 255, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0],
        ],
    ]
    assert sample["instances"].gt_part_maps.to_full().tolist() == expected
    assert sample["instances"].gt_boxes.tensor.tolist() == [[3, 0, 6, 3], [0, 1, 2, 3]]


def test_flip_of_a_crowd_against_numpy(crowd_record):
    person_maps = read_person_annotations(crowd_record).person_maps
    expected = person_maps[:, :, ::-1].copy()
    for before, after in SWAPPED.items():
        expected[person_maps[:, :, ::-1] == before] = after
    instances = make_mapper(T.RandomFlip(prob=1.0))(crowd_record)["instances"]
    np.testing.assert_array_equal(instances.gt_part_maps.to_full().numpy(), expected)
    np.testing.assert_array_equal(
        instances.gt_boxes.tensor, instances.gt_part_maps.get_bounding_boxes().tensor
    )


@pytest.mark.parametrize(
    ("augmentations", "mirrored"),
    [
        ([], False),
        ([T.HFlipTransform(83)], True),
        ([T.HFlipTransform(83), T.HFlipTransform(83)], False),
        ([T.VFlipTransform(61)], True),
        ([T.HFlipTransform(83), T.VFlipTransform(61)], False),
        ([T.ResizeTransform(61, 83, 100, 40), T.HFlipTransform(40)], True),
        ([T.RotationTransform(61, 83, 170)], False),
        ([T.CropTransform(10, 5, 60, 50), T.HFlipTransform(60)], True),
        ([T.BlendTransform(0.0, 0.0, 1.0)], False),
    ],
)
def test_labels_swap_only_if_the_picture_is_mirrored(crowd_record, augmentations, mirrored):
    assert is_mirrored(T.TransformList(augmentations), (61, 83)) == mirrored
    maps = make_mapper(*augmentations)(crowd_record)["instances"].gt_part_maps.to_full()
    annotations = read_person_annotations(crowd_record)
    moved = T.TransformList(augmentations).apply_segmentation(annotations.person_maps[0])
    expected = np.vectorize(lambda label: SWAPPED.get(label, label))(moved) if mirrored else moved
    np.testing.assert_array_equal(maps[0].numpy(), expected)


def test_resize_keeps_labels_and_scales_boxes(record):
    sample = make_mapper(T.Resize((12, 12)))(record)
    assert sample["image"].shape == (3, 12, 12)
    assert (sample["height"], sample["width"]) == (4, 6)
    instances = sample["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[0, 0, 6, 9], [8, 3, 12, 9]]
    # Nearest neighbour: every pixel becomes a block of 3x2.
    expected = np.kron(read_person_annotations(record).person_maps, np.ones((3, 2), np.uint8))
    np.testing.assert_array_equal(instances.gt_part_maps.to_full().numpy(), expected)


def test_paper_resize_stays_in_its_bounds(crowd_record):
    mapper = make_mapper(T.ResizeShortestEdge((640, 800), 1333, "range"), T.RandomFlip())
    for _ in range(3):
        sample = mapper(crowd_record)
        height, width = sample["image"].shape[1:]
        assert 640 <= height <= 800 and width == int(height * 83 / 61 + 0.5)
        assert sample["instances"].image_size == (height, width)


@pytest.mark.parametrize("recompute_boxes", [False, True])
def test_crop_clips_boxes_and_drops_who_is_outside(record, recompute_boxes):
    # Columns 0..2 and rows 1..3 without row 0, where the face is widest: the right person is out.
    sample = make_mapper(T.CropTransform(0, 2, 3, 2), recompute_boxes=recompute_boxes)(record)
    instances = sample["instances"]
    assert instances.gt_part_maps.to_full().tolist() == [[[14, 13, 0], [0, 0, 0]]]
    box = [0, 0, 2, 1] if recompute_boxes else [0, 0, 3, 1]
    assert instances.gt_boxes.tensor.tolist() == [box]


def test_person_without_a_pixel_left_is_dropped_though_the_box_is_inside(record):
    # Of the left person only the empty corner (2, 2) of its box stays.
    sample = make_mapper(T.CropTransform(2, 2, 4, 2))(record)
    assert sample["instances"].gt_boxes.tensor.tolist() == [[2, 0, 4, 1]]
    assert len(sample["instances"].gt_part_maps) == 1


def test_crop_to_a_fixed_size_pads_with_background(record):
    mapper = make_mapper(T.CropTransform(3, 0, 3, 4), T.FixedSizeCrop((5, 8)), recompute_boxes=True)
    sample = mapper(record)
    assert sample["image"].shape == (3, 5, 8)
    (person,) = sample["instances"].gt_part_maps.to_full().tolist()
    assert person[1:3] == [[0, 16, 16, 0, 0, 0, 0, 0], [0, 255, 16, 0, 0, 0, 0, 0]]
    assert not np.any([person[0], *person[3:]])
    assert sample["instances"].gt_boxes.tensor.tolist() == [[1, 1, 3, 3]]


def test_pixels_beyond_the_image_are_nobodys(record):
    """Detectron2 main pads label maps with 255, which must not count as pixels of a person."""
    pad = T.PadTransform(2, 1, 0, 3, seg_pad_value=255)
    expected = make_mapper()(record)["instances"].gt_part_maps.to_full()
    instances = make_mapper(pad, recompute_boxes=True)(record)["instances"]
    actual = instances.gt_part_maps.to_full()
    assert actual.shape[1:] == (expected.shape[1] + 4, expected.shape[2] + 2)
    assert torch.equal(actual, torch.nn.functional.pad(expected, (2, 0, 1, 3)))
    boxes = PartMaps.from_full(expected).windows + torch.tensor([2, 1, 2, 1])
    assert instances.gt_boxes.tensor.tolist() == boxes.tolist()


CROPS = pytest.mark.parametrize(
    "crop",
    [
        T.RandomCrop("absolute", (20, 25)),
        T.RandomCrop("relative_range", (0.3, 0.3)),
        T.RandomCrop_CategoryAreaConstraint("absolute", (20, 25), 0.5, 0),
        T.RandomExtent((0.5, 1.5), (0.2, 0.2)),
        T.RandomRotation([-30, 30]),
    ],
    ids=lambda crop: type(crop).__name__,
)


@CROPS
def test_random_crops_keep_maps_boxes_and_image_together(crowd_record, crop):
    mapper = make_mapper(crop, T.RandomFlip(), recompute_boxes=True)
    numbers = set()
    for seed in range(10):
        np.random.seed(seed)
        sample = mapper(crowd_record)
        instances = sample["instances"]
        assert sample["image"].shape[1:] == instances.image_size
        maps = instances.gt_part_maps.to_full()
        numbers.add(len(maps))
        assert maps.any(dim=1).any(dim=1).all()
        assert maps.max() <= 19
        for part_map, box in zip(maps, instances.gt_boxes.tensor.tolist()):
            rows, columns = np.nonzero(part_map.numpy())
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert max(numbers) <= 5


@CROPS
def test_nobody_gets_labels_between_those_of_neighbours(cihp_folder, crop):
    category_map = np.zeros((60, 80), dtype=np.uint8)
    category_map[10:50, 5:40], category_map[10:50, 40:75] = 5, 19
    human_map = (category_map != 0) + np.uint8(category_map == 19)
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    cihp_folder.add("0000001", category_map, human_map, image)
    (record,) = load_cihp(cihp_folder.root, "train")
    mapper = make_mapper(crop, recompute_boxes=True)
    seen = set()
    for seed in range(20):
        np.random.seed(seed)
        maps = mapper(record)["instances"].gt_part_maps.maps
        labels = [frozenset(part_map.unique().tolist()) - {0} for part_map in maps]
        assert len(labels) == len(set(labels))
        seen |= set(labels)
    assert seen == {frozenset({5}), frozenset({19})}


@pytest.mark.parametrize(
    ("augmentations", "expected"),
    [
        ([], [[0, 0.5, 2, 3], [4, 0, 6, 4]]),
        ([T.RandomFlip(prob=1.0)], [[4, 0.5, 6, 3], [0, 0, 2, 4]]),
        ([T.Resize((8, 3))], [[0, 1, 1, 6], [2, 0, 3, 8]]),
        # A crop clips the one box and leaves nothing of the other.
        ([T.CropTransform(1, 1, 3, 3)], [[0, 0, 1, 2]]),
        ([T.CropTransform(1, 1, 3, 3), T.HFlipTransform(3)], [[2, 0, 3, 2]]),
        ([T.CropTransform(2, 0, 2, 4)], []),
    ],
)
@pytest.mark.parametrize("recompute_boxes", [False, True])
def test_ignore_boxes_follow_the_image(record, augmentations, expected, recompute_boxes):
    mapper = make_mapper(*augmentations, recompute_boxes=recompute_boxes, use_instance_mask=True)
    people = mapper(record)["instances"]
    boxes = [[0, 0.5, 2, 3], [4, 0, 6, 4]]
    instances = mapper({**record, "ignore_boxes": boxes})["instances"]
    assert boxes == [[0, 0.5, 2, 3], [4, 0, 6, 4]]
    count = len(people)
    assert instances.gt_classes.tolist() == [0] * count + [-1] * len(expected)
    assert instances.gt_boxes.tensor[count:].tolist() == expected
    assert instances.gt_boxes.tensor[:count].tolist() == people.gt_boxes.tensor.tolist()
    assert torch.equal(instances.gt_part_maps[:count].to_full(), people.gt_part_maps.to_full())
    assert not instances.gt_part_maps[count:].to_full().any()
    assert instances.gt_masks.tensor.flatten(1).any(1).tolist() == [True] * count + [False] * len(
        expected
    )


def test_ignore_boxes_stay_where_people_are_pasted(record):
    class PasteNobody:
        def __call__(self, image, annotations, image_format):
            return image, annotations

    with_box = {**record, "ignore_boxes": [[3, 1, 5, 4]]}
    instances = make_mapper(copy_paste=PasteNobody())(with_box)["instances"]
    assert instances.gt_classes.tolist() == [0, 0, -1]
    assert instances.gt_boxes.tensor[2].tolist() == [3, 1, 5, 4]


def test_overlapping_people_of_separate_files(tmp_path):
    labels = LV_MHP_V2_PART_LABELS
    front = np.array([[0, 22, 23, 0], [0, 22, 7, 0]], dtype=np.uint8)
    behind = np.array([[5, 5, 0, 0], [58, 58, 58, 0]], dtype=np.uint8)
    names = []
    for k, person in enumerate((behind, front), 1):
        rgb = np.zeros((2, 4, 3), dtype=np.uint8)
        rgb[..., 0] = person
        names.append(str(tmp_path / f"1_02_{k:02}.png"))
        Image.fromarray(rgb).save(names[-1])
    image = tmp_path / "1.jpg"
    Image.new("RGB", (4, 2)).save(image)
    record = {
        "file_name": str(image),
        "image_id": "1",
        "height": 2,
        "width": 4,
        "person_file_names": names,
    }
    mapper = ParsingDatasetMapper(True, augmentations=[T.RandomFlip(1.0)], part_labels=labels)
    instances = mapper(record)["instances"]
    assert instances.gt_part_maps.to_full().tolist() == [
        [[0, 0, 6, 6], [0, 58, 58, 58]],
        [[0, 22, 23, 0], [0, 8, 23, 0]],
    ]
    assert instances.gt_boxes.tensor.tolist() == [[1, 0, 4, 2], [1, 0, 3, 2]]
    with pytest.raises(AnnotationError, match=r"1_02_01.png .*label\(s\) 58;"):
        make_mapper()(record)


@pytest.mark.parametrize("seed", range(8))
def test_people_in_one_another_against_each_alone(seed):
    """Any number of overlapping people, transformed together, are those transformed one by one."""
    rng = np.random.default_rng(seed)
    count, size = int(rng.integers(1, 9)), (41, 57)
    person_maps = np.zeros((count, *size), dtype=np.uint8)
    for person_map in person_maps:
        y, x = rng.integers(0, 30, 2)
        window = person_map[y : y + rng.integers(2, 30), x : x + rng.integers(2, 30)]
        window[:] = rng.integers(0, 20, window.shape)
        window[0, 0] = 1
    ends = [np.nonzero(person_map) for person_map in person_maps]
    boxes = [(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in ends]
    annotations = PersonAnnotations(person_maps, np.array(boxes, float), person_maps.max(axis=0))
    new_size = tuple(rng.integers(60, 90, 2).tolist())
    transforms = T.TransformList(
        [
            T.ResizeTransform(*size, *new_size, Image.BILINEAR),
            T.PadTransform(2, 3, 4, 5, *new_size[::-1], 0, 255),
            T.HFlipTransform(new_size[1] + 6),
            T.CropTransform(0, 0, new_size[1], new_size[0]),
        ]
    )
    instances = person_annotations_to_instances(
        annotations, transforms, new_size, CIHP_PART_LABELS, recompute_boxes=True
    )
    swap = np.arange(256, dtype=np.uint8)
    swap[list(SWAPPED)] = list(SWAPPED.values())
    expected = [swap[transforms.apply_segmentation(person_map)] for person_map in person_maps]
    expected = [np.where(alone == 255, 0, alone) for alone in expected]
    np.testing.assert_array_equal(
        instances.gt_part_maps.to_full().numpy(), [alone for alone in expected if alone.any()]
    )


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_images_to_evaluate_are_detectron2s_to_the_bit(record, image_format):
    """Weights are scored on these; only training may round otherwise."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (record["height"], record["width"], 3), np.uint8)).save(
        record["file_name"]
    )
    mapper = make_mapper(T.Resize((9, 14)), is_train=False, image_format=image_format)
    aug_input = T.AugInput(read_image(record["file_name"], image_format))
    T.Resize((9, 14))(aug_input)
    np.testing.assert_array_equal(
        mapper(record)["image"].numpy(), aug_input.image.transpose(2, 0, 1)
    )


def test_image_without_people(cihp_folder):
    empty = np.zeros((4, 6), dtype=np.uint8)
    cihp_folder.add("0000001", empty, empty)
    (record,) = load_cihp(cihp_folder.root, "train")
    sample = make_mapper(T.Resize((8, 9)), T.RandomFlip(prob=1.0))(record)
    instances = sample["instances"]
    assert len(instances) == 0 and instances.image_size == (8, 9)
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_part_maps.image_size == (8, 9)


def test_inference_does_not_read_annotations(record):
    for key in ("category_file_name", "human_file_name"):
        record[key] = "/nonexistent.png"
    mapper = ParsingDatasetMapper(False, augmentations=[T.Resize((8, 9))])
    sample = mapper(record)
    assert sample["image"].shape == (3, 8, 9)
    assert {key: sample[key] for key in record} == record
    assert set(sample) == set(record) | {"image"}


def test_broken_input_names_the_file(record, two_people):
    with pytest.raises(SizeMismatchError, match="0000001.png"):
        make_mapper()({**record, "width": 7})

    category_map = np.full((4, 6), 20, dtype=np.uint8)
    two_people.write("Category_ids", "0000001.png", category_map)
    with pytest.raises(AnnotationError, match="Category_ids.0000001.png .*20"):
        make_mapper()(record)

    path = two_people.root / "Training" / "Images" / "0000001.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
        path
    )
    whole = path.read_bytes()
    for num_bytes in (0, 100, len(whole) // 2):
        path.write_bytes(whole[:num_bytes])
        with pytest.raises(OSError, match="0000001.jpg is not a readable image: "):
            make_mapper()({**record, "file_name": str(path)})
    path.unlink()
    with pytest.raises(FileNotFoundError, match="0000001.jpg"):
        make_mapper()({**record, "file_name": str(path)})


def test_training_needs_part_labels():
    with pytest.raises(ValueError, match="part_labels"):
        ParsingDatasetMapper(True, augmentations=[])


def test_from_yacs_config(record):
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("cihp_train", "cihp_val")
    cfg.INPUT.MIN_SIZE_TRAIN = (8, 8)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    cfg.INPUT.MIN_SIZE_TEST = 20
    cfg.INPUT.FORMAT = "RGB"
    sample = ParsingDatasetMapper(cfg, is_train=True)(record)
    assert sample["image"].shape == (3, 8, 12) and len(sample["instances"]) == 2
    sample = ParsingDatasetMapper(cfg, is_train=False)(record)
    assert sample["image"].shape == (3, 20, 30) and "instances" not in sample

    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = (2, 3)
    mapper = ParsingDatasetMapper(cfg, is_train=True)
    assert mapper.recompute_boxes
    assert mapper(record)["image"].shape == (3, 8, 12)


def test_from_lazy_config(record, tmp_path):
    cfg = L(ParsingDatasetMapper)(
        is_train=True,
        augmentations=[L(T.RandomFlip)(prob=1.0)],
        image_format="RGB",
        part_labels=L(get_part_labels)(dataset_names=["cihp_train"]),
    )
    LazyConfig.save(cfg, str(tmp_path / "mapper.yaml"))
    mapper = instantiate(LazyConfig.load(str(tmp_path / "mapper.yaml")))
    assert mapper.part_labels == CIHP_PART_LABELS
    assert mapper(record)["image"][:, 0, 4].tolist() == [3, 4, 5]


def test_training_loader_collates_and_keeps_images_without_people(cihp_folder):
    category_map = np.full((8, 10), 13, dtype=np.uint8)
    for index in range(4):
        human_map = np.zeros((8, 10), dtype=np.uint8)
        for number in range(index):
            human_map[:, 3 * number] = number + 1
        cihp_folder.add(f"000000{index}", category_map, human_map)
    loader = build_detection_train_loader(
        load_cihp(cihp_folder.root, "train"),
        mapper=make_mapper(T.Resize((16, 20)), T.RandomFlip()),
        total_batch_size=4,
        num_workers=0,
        aspect_ratio_grouping=False,
    )
    batches = iter(loader)
    for batch in (next(batches), next(batches)):
        # The sampler goes through all four images before one comes again.
        people = {sample["image_id"]: len(sample["instances"]) for sample in batch}
        assert people == {"0000000": 0, "0000001": 1, "0000002": 2, "0000003": 3}
        assert all(sample["image"].shape == (3, 16, 20) for sample in batch)

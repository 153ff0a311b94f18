"""Pasting people, against images small enough to check by hand."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from aiparsing_d2.data.annotations import PersonAnnotations
from aiparsing_d2.data.copy_paste import CopyPaste, Cutout, LazyRecords, Placement, paste_people
from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.data.datasets import load_cihp, register_cihp
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

H, W = 8, 10


def annotated(*person_maps, ignored=()):
    """People of an 8x10 image, and pixels that belong to nobody and are ignored."""
    maps = np.array(person_maps, dtype=np.uint8).reshape(-1, H, W)
    category_map = maps.max(axis=0, initial=0)
    for pixel in ignored:
        category_map[pixel] = 255
    boxes = np.zeros((len(maps), 4))
    for box, person_map in zip(boxes, maps):
        ys, xs = person_map.nonzero()
        box[:] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    return PersonAnnotations(maps, boxes, category_map)


def rectangle(rows, columns, label):
    person_map = np.zeros((H, W), dtype=np.uint8)
    person_map[rows, columns] = label
    return person_map


def block(height, width, label, grey=200):
    return Cutout(
        np.full((height, width, 3), grey, dtype=np.uint8),
        np.full((height, width), label, dtype=np.uint8),
    )


def paste(annotations, *placements, **kwargs):
    image = np.zeros((H, W, 3), dtype=np.uint8)
    return paste_people(image, annotations, placements, min_pixels=1, **kwargs)


def test_a_nearer_person_hides_a_farther_one():
    there = rectangle(slice(0, 8), slice(0, 4), 5)
    image, people = paste(annotated(there), Placement(block(8, 4, 9), x=2, y=0, depth=1))
    assert people.person_maps[0].tolist() == rectangle(slice(0, 8), slice(0, 2), 5).tolist()
    assert people.person_maps[1].tolist() == rectangle(slice(0, 8), slice(2, 6), 9).tolist()
    assert people.boxes.tolist() == [[0, 0, 2, 8], [2, 0, 6, 8]]
    assert people.category_map[0].tolist() == [5, 5, 9, 9, 9, 9, 0, 0, 0, 0]
    # Its inside has the colour of the cutout; the pixel beside it is untouched.
    assert (image[3, 3:5] == 200).all() and not image[3, 6:].any() and not image[3, :2].any()


def test_a_farther_person_is_hidden_by_those_before_it():
    there = rectangle(slice(0, 8), slice(0, 4), 5)
    image, people = paste(annotated(there), Placement(block(8, 4, 9), x=2, y=0, depth=0))
    assert people.person_maps[0].tolist() == rectangle(slice(0, 8), slice(4, 6), 9).tolist()
    assert people.person_maps[1].tolist() == there.tolist()
    assert not image[:, :4].any() and (image[3, 4] == 200).all()


def test_people_reach_beyond_every_edge():
    corners = [(-2, -3), (8, -3), (-2, 6), (8, 6)]
    placements = [
        Placement(block(5, 4, label), x, y, depth=k)
        for k, ((x, y), label) in enumerate(zip(corners, (1, 2, 3, 4)))
    ]
    _, people = paste(annotated(), *placements)
    assert people.boxes.tolist() == [[0, 0, 2, 2], [8, 0, 10, 2], [0, 6, 2, 8], [8, 6, 10, 8]]
    assert [int(m.max()) for m in people.person_maps] == [1, 2, 3, 4]


def test_someone_wholly_outside_is_no_person():
    for x, y in [(-20, 0), (0, -20), (30, 0), (0, 30)]:
        image, people = paste(annotated(), Placement(block(3, 3, 1), x, y, depth=0))
        assert len(people.boxes) == 0 and not image.any()
        assert people.person_maps.shape == (0, H, W)


@pytest.mark.parametrize(("covered", "kept"), [(6, True), (7, False)])
def test_the_hidden_are_dropped(covered, kept):
    there = rectangle(slice(0, 8), slice(0, 1), 5)
    over = Placement(block(covered, 1, 9), x=0, y=0, depth=1)
    _, people = paste(annotated(there), over, min_visible=0.25)  # 2 of 8 pixels
    assert [int(m.max()) for m in people.person_maps] == ([5, 9] if kept else [9])
    assert people.category_map[7, 0] == (5 if kept else 0)


def test_ignored_pixels_of_nobody_stay_unless_covered():
    _, people = paste(
        annotated(ignored=[(0, 0), (7, 9)]), Placement(block(2, 2, 9), x=0, y=0, depth=0)
    )
    assert people.category_map[0, 0] == 9 and people.category_map[7, 9] == 255


def test_what_was_given_is_left_alone():
    there = annotated(rectangle(slice(0, 8), slice(0, 4), 5))
    image = np.zeros((H, W, 3), dtype=np.uint8)
    paste_people(image, there, [Placement(block(8, 10, 9), 0, 0, 1)])
    assert not image.any() and there.category_map[0, 0] == 5 and there.person_maps[0, 0, 0] == 5


def test_a_mirrored_cutout_exchanges_left_and_right():
    part_map = np.array([[14, 0, 2], [255, 16, 19]], dtype=np.uint8)
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    mirrored = Cutout(image, part_map).mirrored(CIHP_PART_LABELS)
    assert mirrored.part_map.tolist() == [[2, 0, 15], [18, 17, 255]]
    assert mirrored.image[0, 0].tolist() == [6, 7, 8]


def test_a_resized_cutout_keeps_labels_and_its_ratio():
    part_map = np.array([[1, 2], [3, 255]], dtype=np.uint8)
    resized = Cutout(np.zeros((2, 2, 3), dtype=np.uint8), part_map).resized(6)
    assert resized.part_map.tolist() == np.kron(part_map, np.ones((3, 3), dtype=int)).tolist()
    assert resized.image.shape == (6, 6, 3)


@pytest.fixture
def records(cihp_folder):
    category_map = np.zeros((40, 30), dtype=np.uint8)
    category_map[5:35, 8:14], category_map[5:35, 14:20] = 14, 15
    category_map[5:9, 8:10] = 1  # at the left of the picture, unless mirrored
    human_map = (category_map > 0).astype(np.uint8)
    image = np.where(human_map[..., None] > 0, 250, 10).astype(np.uint8).repeat(3, axis=2)
    cihp_folder.add("0000001", category_map, human_map, image)
    return load_cihp(cihp_folder.root, "train")


def test_random_people_keep_their_promises(records):
    """People are as many and as high as asked for, half inside, and lie where they were painted."""
    paster = CopyPaste(records, CIHP_PART_LABELS, num_people=(1, 3), height_range=(0.5, 2.0))
    rng = np.random.default_rng(0)
    numbers, heights, sides = set(), [], set()
    for _ in range(200):
        placements = paster.sample_placements(rng, (60, 90), 2, "BGR")
        numbers.add(len(placements))
        for k, placement in enumerate(placements):
            height, width = placement.cutout.part_map.shape
            heights.append(height)
            sides.add(int(placement.cutout.part_map[0, 0]))
            assert 0 <= placement.depth <= 2 + k
            assert abs(width / height - 12 / 30) < 0.02
            assert min(placement.y + height, 60) - max(placement.y, 0) >= min(height, 60) / 2 - 1
            assert -width / 2 - 1 <= placement.x <= 90 - width / 2 + 1
    assert numbers == {1, 2, 3} and sides == {1, 14}
    assert 29 <= min(heights) < 34 and 108 < max(heights) <= 120
    # The logarithm is uniform, so half of the people are lower than the geometric mean.
    assert 0.4 < np.mean(np.array(heights) < 60) < 0.6


def test_the_mapper_pastes_while_training_only(records):
    paster = CopyPaste(records, CIHP_PART_LABELS, prob=1.0, num_people=(2, 2))
    mapper = ParsingDatasetMapper(
        True,
        augmentations=[],
        part_labels=CIHP_PART_LABELS,
        recompute_boxes=True,
        copy_paste=paster,
    )
    np.random.seed(0)
    samples = [mapper(records[0]) for _ in range(10)]
    assert max(len(sample["instances"]) for sample in samples) == 3
    for sample in samples:
        full = sample["instances"].gt_part_maps.to_full()
        assert (full > 0).sum(dim=0).max() == 1  # nobody lies over another one
        people = (full > 0).any(dim=0)
        # Inside (one pixel in from the softened outlines), people are bright.
        inside = -(-people.float()[None, None]).unfold(2, 3, 1).unfold(3, 3, 1).amax((4, 5))[0, 0]
        assert (sample["image"][0, 1:-1, 1:-1][inside > 0] > 150).all()
    tester = ParsingDatasetMapper(False, augmentations=[], copy_paste=paster)
    image = np.asarray(Image.open(records[0]["file_name"]))
    assert (tester(records[0])["image"].permute(1, 2, 0).numpy() == image[..., ::-1]).all()


def test_no_pasting_at_probability_0_and_repeatable_otherwise(records):
    mapper = ParsingDatasetMapper(True, augmentations=[], part_labels=CIHP_PART_LABELS)
    plain = mapper(records[0])
    mapper.copy_paste = CopyPaste(records, CIHP_PART_LABELS, prob=0.0)
    assert (mapper(records[0])["image"] == plain["image"]).all()
    mapper.copy_paste = CopyPaste(records, CIHP_PART_LABELS, prob=1.0)
    images = []
    for _ in range(2):
        np.random.seed(7)
        images.append(mapper(records[0])["image"])
    assert (images[0] == images[1]).all() and not (images[0] == plain["image"]).all()


def test_grey_images_are_pasted_into_as_coloured_ones(records):
    samples = {}
    for image_format in ("L", "RGB"):
        paster = CopyPaste(records, CIHP_PART_LABELS, prob=1.0, num_people=(3, 3))
        mapper = ParsingDatasetMapper(
            True,
            augmentations=[],
            image_format=image_format,
            part_labels=CIHP_PART_LABELS,
            copy_paste=paster,
        )
        np.random.seed(0)
        samples[image_format] = mapper(records[0])
    grey, coloured = samples["L"], samples["RGB"]
    assert grey["image"].shape == (1, 40, 30) and len(grey["instances"]) > 1
    # The images have grey pixels only.
    assert (grey["image"] == coloured["image"][:1]).all()
    full = [sample["instances"].gt_part_maps.to_full() for sample in (grey, coloured)]
    assert (full[0] == full[1]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_people": (3, 2)}, "num_people"),
        ({"height_range": (0.0, 1.0)}, "height_range"),
    ],
)
def test_settings_that_cannot_be(records, settings, message):
    with pytest.raises(ValueError, match=message):
        CopyPaste(**{"records": records, "part_labels": CIHP_PART_LABELS, **settings})


def test_nobody_to_paste():
    paster = CopyPaste([], CIHP_PART_LABELS, prob=1.0)
    with pytest.raises(ValueError, match="no records"):
        paster(np.zeros((H, W, 3), dtype=np.uint8), annotated(), "BGR")


def test_records_are_read_when_they_are_needed(cihp_folder, records):
    lazy = LazyRecords("copy_paste_test")
    register_cihp("copy_paste_test", cihp_folder.root, "train", part_labels=CIHP_PART_LABELS)
    try:
        assert len(lazy) == 1 and lazy[0]["image_id"] == records[0]["image_id"]
    finally:
        DatasetCatalog.remove("copy_paste_test")
        MetadataCatalog.remove("copy_paste_test")
    assert len(lazy) == 1  # they are kept


def test_people_kept_in_memory_are_pasted_as_if_read(records, monkeypatch):
    paster = CopyPaste(records, CIHP_PART_LABELS)
    keeper = CopyPaste(records, CIHP_PART_LABELS, cache_size=len(records))

    def draw(source):
        placements = source.sample_placements(np.random.default_rng(3), (60, 90), 1, "BGR")
        return [(p.x, p.y, p.depth, p.cutout.image, p.cutout.part_map) for p in placements]

    for _ in range(20):
        keeper.sample_placements(np.random.default_rng(), (60, 90), 1, "BGR")
    expected = draw(paster)
    monkeypatch.setattr("aiparsing_d2.data.copy_paste.read_image", None)  # nothing is read again
    for kept, read in zip(draw(keeper), expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(kept, read, strict=True))
    with pytest.raises(TypeError):
        draw(paster)

"""Tests of the drawn data sets in LV-MHP-v2's layout: through files and the real loader."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.data.datasets import load_lv_mhp_v2
from aiparsing_d2.drawn_scenes import (
    CIHPRequest,
    FolderInUseError,
    LVMHPv2Request,
    Part,
    draw_scene,
    write_data_set,
)
from aiparsing_d2.drawn_scenes.__main__ import main
from aiparsing_d2.drawn_scenes.figure import draw_figure
from aiparsing_d2.drawn_scenes.lv_mhp_v2_labels import (
    NEVER_DRAWN,
    label_table,
    person_label_maps,
)
from aiparsing_d2.drawn_scenes.parts import Side
from aiparsing_d2.drawn_scenes.person import sample_equipped_person
from aiparsing_d2.drawn_scenes.skeleton import LimbPose, Pose
from aiparsing_d2.drawn_scenes.wardrobe import ShoeStyle
from aiparsing_d2.structures.part_labels import LV_MHP_V2_PART_LABELS

NAMES = LV_MHP_V2_PART_LABELS.names
REQUEST = LVMHPv2Request(num_train=5, num_val=2, seed=5, image_size=(96, 128))

# Ids of LV-MHP-v2 -> what CIHP calls the same pixels. CIHP has no name for things that are carried.
CIHP_PARTS = {
    **{label: {Part.HAT} for label in (1, 2, 39)},
    **{label: {Part.SUNGLASSES} for label in (47, 48)},
    **{label: {Part.LEFT_ARM} for label in (5, 7, 53)},
    **{label: {Part.RIGHT_ARM} for label in (6, 8, 54)},
    **{label: {Part.UPPER_CLOTHES} for label in (10, 12, 13, 14, 15, 57)},
    **{label: {Part.COAT} for label in (11, 34)},
    **{label: {Part.PANTS} for label in (17, 18, 43)},
    **{label: {Part.SOCKS} for label in (20, 21)},
    **{label: {Part.LEFT_SHOE} for label in (22, 24, 26, 28)},
    **{label: {Part.RIGHT_SHOE} for label in (23, 25, 27, 29)},
    **{label: {Part.LEFT_LEG} for label in (30, 32)},
    **{label: {Part.RIGHT_LEG} for label in (31, 33)},
    **{label: {Part.BACKGROUND} for label in (0, 40, 41, 42, 44, 45, 46, 51, 52)},
    3: {Part.FACE},
    4: {Part.HAIR},
    9: {Part.LEFT_LEG, Part.RIGHT_LEG},
    16: {Part.TORSO_SKIN},
    19: {Part.SKIRT},
    35: {Part.DRESS},
    37: {Part.UPPER_CLOTHES, Part.PANTS},
    49: {Part.GLOVE},
    50: {Part.SCARF},
    55: {Part.UPPER_CLOTHES},
}


@pytest.fixture(autouse=True)
def no_index_cache(monkeypatch):
    monkeypatch.setenv("AIPARSING_INDEX_CACHE", "0")


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "data"
    return root, write_data_set(root, REQUEST)


@pytest.fixture(scope="module")
def scenes():
    rngs = [np.random.default_rng([4, i]) for i in range(8)]
    return [draw_scene(rng, 120, 160, 4, sample_equipped_person) for rng in rngs]


def files_of(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def label(name):
    return NAMES.index(name)


# Labels


def test_maps_painted_in_their_order_show_what_is_seen(scenes):
    allowed = np.zeros((len(NAMES), len(Part)), dtype=bool)
    for mhp_label, parts in CIHP_PARTS.items():
        allowed[mhp_label, list(parts)] = True
    for scene in scenes:
        painted = np.zeros_like(scene.category_map)
        for person_map in person_label_maps(scene):
            np.copyto(painted, person_map, where=person_map > 0)
        assert allowed[painted, scene.category_map].all()


def test_each_person_has_a_map(scenes):
    for scene in scenes:
        maps = np.stack(person_label_maps(scene))
        for human in range(1, scene.num_people + 1):
            covering = (maps[:, scene.human_map == human] > 0).all(axis=1)
            assert covering.any()
        assert len(maps) == scene.num_people == 4


def test_maps_overlap_in_a_rim_along_the_people_in_front(scenes):
    num_overlapping = 0
    for scene in scenes:
        maps = np.stack(person_label_maps(scene)) > 0
        top = np.where(maps.any(axis=0), len(maps) - 1 - np.argmax(maps[::-1], axis=0), -1)
        for index, person_map in enumerate(maps):
            hidden = person_map & (top > index)
            if hidden.any():
                num_overlapping += 1
                unseen = (top != index).astype(np.uint8)
                distances = cv2.distanceTransform(unseen, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                assert distances[hidden].max() < 0.04 * 120 + 1.5
    assert num_overlapping > 8


def test_all_parts_but_a_few_turn_up():
    worn = np.zeros(len(NAMES), dtype=int)
    for seed in range(200):
        person = sample_equipped_person(np.random.default_rng([8, seed]))
        layer = draw_figure(person, (45.0, 86.0), 78.0, 5.0, (90, 90), 1.0)
        labels = label_table(person)[layer.label, layer.detail]
        worn += np.bincount(labels.ravel(), minlength=len(NAMES)) >= 4
    absent = {NAMES[part] for part in np.nonzero(worn == 0)[0]}
    assert absent == set(NEVER_DRAWN), sorted(zip(worn.tolist(), NAMES, strict=True))
    assert len(NEVER_DRAWN) == 4


def upright_person(seed, **clothes):
    """Somebody who faces the viewer with bare arms and legs."""
    person = sample_equipped_person(np.random.default_rng(seed))
    arms = {side: LimbPose((20.0, 0.0), (15.0, 0.0)) for side in Side}
    legs = {side: LimbPose((7.0, 0.0), (6.0, 0.0)) for side in Side}
    outfit = dataclasses.replace(person.outfit, coat=None, gloves=None, socks=None, **clothes)
    return dataclasses.replace(
        person, outfit=outfit, pose=Pose("upright", arms=arms, legs=legs), yaw=0.0
    )


@pytest.mark.parametrize("seed", range(4))
def test_left_and_right_hands_and_feet(seed):
    person = upright_person(seed, shoes=ShoeStyle.BAREFOOT, handbag=None)
    layer = draw_figure(person, (75.0, 205.0), 190.0, 5.0, (220, 150), 1.0)
    labels = label_table(person)[layer.label, layer.detail]
    places = {name: np.argwhere(labels == label(name)).mean(axis=0) for name in NAMES[5:9]}
    places |= {name: np.argwhere(labels == label(name)).mean(axis=0) for name in NAMES[32:34]}
    for left, right in (("Left-hand", "Right-hand"), ("Left-foot", "Right-foot")):
        # The left of somebody who faces the viewer is on the image's right.
        assert places[left][1] > places[right][1] + 10
    for hand, arm in (("Left-hand", "Left-arm"), ("Right-hand", "Right-arm")):
        if not np.isnan(places[arm]).any():  # long sleeves leave nothing but hands
            assert places[hand][0] > places[arm][0] + 5
    assert places["Left-foot"][0] > 180 - layer.top


@pytest.mark.parametrize(
    ("part", "garment", "changes", "name"),
    [
        (Part.UPPER_CLOTHES, "top", {"sleeves": 0.0, "hem": 0.1}, "Singlet"),
        (Part.UPPER_CLOTHES, "top", {"sleeves": 0.0, "hem": 0.46}, "Bikini/bra"),
        (Part.UPPER_CLOTHES, "top", {"sleeves": 0.4, "buttons": False}, "Tee-shirt"),
        (Part.UPPER_CLOTHES, "top", {"sleeves": 0.4, "buttons": True}, "Polo-shirt"),
        (Part.UPPER_CLOTHES, "top", {"sleeves": 1.0, "buttons": False}, "Sweater"),
        (Part.PANTS, "pants", {"length": 0.9}, "Shorts/swim-shorts"),
        (Part.PANTS, "pants", {"length": 2.0}, "Pants"),
        (Part.COAT, "coat", {"length": 0.0}, "Jacket/windbreaker/hoodie"),
        (Part.COAT, "coat", {"length": 0.8}, "Coat"),
    ],
)
def test_cut_decides_the_name_of_a_garment(part, garment, changes, name):
    people = (sample_equipped_person(np.random.default_rng(seed)) for seed in range(99))
    person = next(
        p
        for p in people
        if getattr(p.outfit, garment) and not p.outfit.is_dress and not p.outfit.is_jumpsuit
    )
    cut = dataclasses.replace(getattr(person.outfit, garment), **changes)
    outfit = dataclasses.replace(person.outfit, **{garment: cut})
    assert NAMES[label_table(dataclasses.replace(person, outfit=outfit))[part, 0]] == name


# The data set on disk


def test_layout_and_lists(data_set):
    root, manifest = data_set
    ids = {split: (root / "list" / f"{split}.txt").read_text() for split in ("train", "val")}
    assert ids == {"train": "1\n2\n3\n4\n5\n", "val": "6\n7\n"}
    expected = {"list/train.txt", "list/val.txt", "drawn_scenes.json"}
    for split, names in ids.items():
        people = 0
        for name in names.split():
            expected.add(f"{split}/images/{name}.jpg")
            maps = sorted(p.name for p in (root / split / "parsing_annos").glob(f"{name}_*"))
            count = len(maps)
            assert maps == [f"{name}_{count:02d}_{k:02d}.png" for k in range(1, count + 1)]
            assert count >= 2
            expected |= {f"{split}/parsing_annos/{file_name}" for file_name in maps}
            people += count
        assert manifest["num_people"][split] == people
    assert set(files_of(root)) == expected
    assert manifest["layout"] == "lv_mhp_v2"


def test_labels_are_in_the_red_channel_only(data_set):
    for path in data_set[0].glob("*/parsing_annos/*.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (128, 96))
            red, green, blue = np.moveaxis(np.array(image), -1, 0)
        assert 0 < red.max() < len(NAMES)
        assert not green.any() and not blue.any()


def test_loader_and_mapper_read_it(data_set):
    root, manifest = data_set
    mapper = ParsingDatasetMapper(True, augmentations=[], part_labels=LV_MHP_V2_PART_LABELS)
    overlapping = 0
    for split in ("train", "val"):
        records = load_lv_mhp_v2(root, split)
        people = [len(mapper(record)["instances"]) for record in records]
        assert people == [len(record["person_file_names"]) for record in records]
        assert sum(people) == manifest["num_people"][split]
        for record in records:
            maps = read_person_annotations(record, len(NAMES)).person_maps
            overlapping += bool(((maps > 0).sum(axis=0) > 1).any())
    assert overlapping >= 4


def test_drawing_twice_or_going_on_gives_the_same_bytes(data_set, tmp_path):
    root = tmp_path / "again"
    assert write_data_set(root, REQUEST) == data_set[1]
    assert files_of(root) == files_of(data_set[0])

    # As if the power had failed before the last file of an image.
    (root / "drawn_scenes.json").unlink()
    (root / "drawn_scenes.unfinished.json").write_text(json.dumps(REQUEST.manifest()))
    (root / "train" / "images" / "2.jpg").unlink()
    next((root / "train" / "parsing_annos").glob("2_*_01.png")).write_bytes(b"half")
    untouched = root / "train" / "images" / "1.jpg"
    time = untouched.stat().st_mtime_ns
    assert write_data_set(root, REQUEST) == data_set[1]
    assert files_of(root) == files_of(data_set[0])
    assert untouched.stat().st_mtime_ns == time


def test_folder_of_another_layout_is_refused(data_set, tmp_path):
    root = data_set[0]
    before = files_of(root)
    same_numbers = dataclasses.asdict(REQUEST)
    with pytest.raises(FolderInUseError, match="layout lv_mhp_v2 instead of cihp"):
        write_data_set(root, CIHPRequest(**same_numbers))
    assert files_of(root) == before
    write_data_set(tmp_path / "cihp", CIHPRequest(num_train=1, num_val=0, image_size=(64, 64)))
    with pytest.raises(FolderInUseError, match="layout cihp instead of lv_mhp_v2"):
        write_data_set(
            tmp_path / "cihp", LVMHPv2Request(num_train=1, num_val=0, image_size=(64, 64))
        )


def test_command_line(data_set, tmp_path, capsys):
    options = "--train 5 --val 2 --seed 5 --size 96 128 --workers 1".split()
    command = ["--layout", "lv_mhp_v2", "--output", str(tmp_path / "out"), *options]
    assert main(command) == 0
    assert "5 training and 2 validation images" in capsys.readouterr().out
    assert files_of(tmp_path / "out") == files_of(data_set[0])
    with pytest.raises(SystemExit):
        main([*command, "--all-frames"])
    assert "--all-frames is for --layout vip only" in capsys.readouterr().err

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from aiparsing_d2.data.annotations import AnnotationError, read_person_annotations
from aiparsing_d2.data.datasets import load_coco_parsing, register_coco_parsing
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, PartLabels, get_part_labels

LABELS = PartLabels(["Background", "Left-wing", "Right-wing"], [(0, 0, 0)] * 3, [(1, 2)])

# Image 7 is in a folder; its people overlap and come in the order of their ids, not of the file.
CONTENT = {
    "images": [
        {"id": 7, "file_name": "yard/hens.jpg", "height": 2, "width": 3},
        {"id": 3, "file_name": "empty.jpg", "height": 4, "width": 5},
    ],
    "annotations": [
        {"id": 11, "image_id": 7, "category_id": 1, "iscrowd": 0, "parsing": "hens-10.png"},
        {"id": 2, "image_id": 7, "category_id": 1, "iscrowd": 0, "parsing": "hens-9.png"},
        {"id": 5, "image_id": 3, "category_id": 1, "iscrowd": 1},
    ],
    "categories": [
        {"id": 1, "name": "person", "parsing": ["background", "leftWing", "Right_wing"]}
    ],
}
PEOPLE = {"hens-9": [[1, 1, 0], [2, 0, 0]], "hens-10": [[0, 2, 2], [0, 0, 0]]}


class Files:
    def __init__(self, root):
        self.json_file = root / "birds.json"
        self.images = root / "images"
        self.people = root / "people"
        (self.images / "yard").mkdir(parents=True)
        self.people.mkdir()
        for image in CONTENT["images"]:
            size = (image["width"], image["height"])
            Image.new("RGB", size).save(self.images / image["file_name"])
        for name, person in PEOPLE.items():
            Image.fromarray(np.array(person, dtype=np.uint8)).save(self.people / f"{name}.png")
        self.write(CONTENT)

    def write(self, content):
        self.json_file.write_text(json.dumps(content))

    def load(self, **kwargs):
        return load_coco_parsing(self.json_file, self.images, self.people, **kwargs)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_records(files):
    hens, empty = files.load(part_labels=LABELS)
    assert hens == {
        "file_name": str(files.images / "yard" / "hens.jpg"),
        "image_id": "yard/hens",
        "height": 2,
        "width": 3,
        "person_file_names": [str(files.people / "hens-9.png"), str(files.people / "hens-10.png")],
    }
    annotations = read_person_annotations(hens, 3)
    np.testing.assert_array_equal(annotations.person_maps, list(PEOPLE.values()))
    np.testing.assert_array_equal(annotations.category_map, [[1, 2, 2], [2, 0, 0]])
    assert empty["image_id"] == "empty" and empty["person_file_names"] == []
    assert read_person_annotations(empty, 3).category_map.shape == (4, 5)


def test_folders_may_be_the_present_one(files, monkeypatch):
    monkeypatch.chdir(files.images)
    files.write({"images": CONTENT["images"]})
    for folder in ("", "."):
        records = load_coco_parsing(files.json_file, folder)
        assert [Path(record["file_name"]) for record in records] == [
            Path(image["file_name"]) for image in CONTENT["images"]
        ]


def test_without_annotations(files):
    files.write({"images": CONTENT["images"]})
    records = load_coco_parsing(files.json_file, files.images)
    assert [set(record) for record in records] == [{"file_name", "image_id", "height", "width"}] * 2


def test_category_maps_of_their_own(files, tmp_path):
    (tmp_path / "all" / "yard").mkdir(parents=True)
    for name, size in (("yard/hens", (3, 2)), ("empty", (5, 4))):
        Image.new("L", size, 2).save(tmp_path / "all" / f"{name}.png")
    (tmp_path / "all" / "empty.png").rename(tmp_path / "all" / "empty.PNG")
    hens, empty = files.load(category_folder=tmp_path / "all")
    assert hens["category_file_name"] == str(tmp_path / "all" / "yard" / "hens.png")
    assert (read_person_annotations(empty, 3).category_map == 2).all()


def test_images_with_one_map_of_people(files):
    """As ``prepare`` writes them for data sets without a file for each person."""
    content = copy.deepcopy(CONTENT)
    maps = {"category_file_name": "parts/hens.png", "human_file_name": "numbers/hens.png"}
    content["images"][0].update(maps)
    for annotation in content["annotations"][:2]:
        annotation["human"] = annotation.pop("id")
        del annotation["parsing"]
    files.write(content)
    with pytest.raises(FileNotFoundError, match="parts.hens.png"):
        files.load()
    for name in maps.values():
        (files.people / name).parent.mkdir()
        Image.fromarray(np.array([[1, 0, 2], [1, 0, 0]], dtype=np.uint8)).save(files.people / name)
    hens, empty = files.load()
    assert hens["category_file_name"] == str(files.people / "parts" / "hens.png")
    assert hens["human_file_name"] == str(files.people / "numbers" / "hens.png")
    assert "person_file_names" not in hens and empty["person_file_names"] == []
    np.testing.assert_array_equal(
        read_person_annotations(hens, 3).person_maps,
        [[[1, 0, 0], [1, 0, 0]], [[0, 0, 2], [0, 0, 0]]],
    )
    del content["images"][0]["category_file_name"]
    files.write(content)
    with pytest.raises(AnnotationError, match='lacks "category_file_name"'):
        files.load()


def test_registering(files):
    register_coco_parsing("birds", files.json_file, files.images, files.people, LABELS)
    try:
        assert len(DatasetCatalog.get("birds")) == 2
        assert get_part_labels("birds") == LABELS
        register_coco_parsing("birds", files.json_file, files.images, files.people, LABELS)
        with pytest.raises(ValueError, match="'birds' is registered already"):
            register_coco_parsing("birds", files.json_file, files.people, files.images, LABELS)
    finally:
        DatasetCatalog.remove("birds")
        MetadataCatalog.remove("birds")


def set_entry(path, value):
    """A change that sets the entry at a path of keys and indices."""

    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


def remove_entry(*path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(remove_entry("images"), 'lacks "images"', id="no images"),
        pytest.param(set_entry(["images"], []), "has no images", id="empty images"),
        pytest.param(remove_entry("annotations"), 'lacks "annotations"', id="no annotations"),
        pytest.param(remove_entry("images", 0, "height"), 'lacks "height" in', id="no height"),
        pytest.param(
            remove_entry("annotations", 0, "parsing"), 'lacks "parsing" in', id="no parsing"
        ),
        pytest.param(set_entry(["images", 1], "empty.jpg"), "'empty.jpg' in .images", id="text"),
        pytest.param(set_entry(["images"], 7), '"images" is 7, not a list', id="no list"),
        pytest.param(set_entry(["images", 0, "id"], [7]), '"id" is neither', id="id a list"),
        pytest.param(set_entry(["images", 0, "id"], True), '"id" is neither', id="id true"),
        pytest.param(set_entry(["images", 0, "height"], 2.5), '"height" is 2.5', id="fraction"),
        pytest.param(set_entry(["images", 0, "width"], 0), '"width" is 0', id="no width"),
        pytest.param(
            set_entry(["images", 0, "height"], 10**9),
            "1000000000 x 3 .*more than",
            id="absurd size",
        ),
        pytest.param(
            set_entry(["images", 0, "file_name"], "../a.jpg"), "leads out", id="path to above"
        ),
        pytest.param(
            set_entry(["images", 0, "file_name"], "/etc/passwd"), "leads out", id="absolute path"
        ),
        pytest.param(
            set_entry(["annotations", 0, "parsing"], "a/../../b.png"), "leads out", id="label path"
        ),
        pytest.param(
            set_entry(["annotations", 0, "parsing"], ["hens-9.png"]), "is not a text", id="type"
        ),
        pytest.param(
            set_entry(["annotations", 0, "parsing"], "a\ud800\0"), "control", id="characters"
        ),
        pytest.param(
            set_entry(["annotations", 0, "image_id"], {}), '"image_id" is neither', id="an object"
        ),
        pytest.param(set_entry(["categories", 0], "person"), "'person' in", id="category"),
        pytest.param(
            set_entry(["categories", 0, "parsing"], [1, 2]), "not a list of names", id="no names"
        ),
        pytest.param(set_entry(["images", 1, "id"], 7), "image 7 .*twice", id="image id twice"),
        pytest.param(
            set_entry(["images", 1, "file_name"], "yard/hens.png"),
            "'yard/hens'.* twice",
            id="image name twice",
        ),
        pytest.param(set_entry(["annotations", 0, "image_id"], 8), "image 8", id="unknown image"),
        pytest.param(
            set_entry(["annotations", 0, "id"], 2), "annotation 2 more", id="annotation id twice"
        ),
        pytest.param(
            set_entry(["annotations", 0, "parsing"], "hens-9.png"),
            "annotation 'hens-9.png' more",
            id="person twice",
        ),
        pytest.param(
            set_entry(["annotations", 0, "iscrowd"], "0"), '"iscrowd" is not 0 or 1', id="no bool"
        ),
        pytest.param(
            set_entry(["categories", 0, "parsing"], ["Left-wing"]), "names 1 classes", id="classes"
        ),
        pytest.param(
            set_entry(["categories", 0, "parsing"], ["Right-wing", "Left-wing"]),
            "label 1 'Right-wing', .* 'Left-wing'",
            id="classes in another order",
        ),
    ],
)
def test_broken_json(files, change, message):
    content = copy.deepcopy(CONTENT)
    change(content)
    files.write(content)
    with pytest.raises(AnnotationError, match=f"birds.json.*{message}"):
        files.load(part_labels=LABELS)


def test_a_path_longer_than_any(files):
    content = copy.deepcopy(CONTENT)
    content["annotations"][0]["parsing"] = "x/" * 3000 + "hens.png"
    files.write(content)
    with pytest.raises(FileNotFoundError, match="does not exist, but .*birds.json names it"):
        files.load()


@pytest.mark.parametrize("key", ["category_file_name", "human_file_name"])
def test_maps_of_an_image_stay_in_the_folder(files, key):
    content = copy.deepcopy(CONTENT)
    maps = {"category_file_name": "a.png", "human_file_name": "b.png", key: "../people/c.png"}
    content["images"][0].update(maps)
    files.write(content)
    with pytest.raises(AnnotationError, match=f'"{key}" .*leads out'):
        files.load()


def test_ids_may_be_numbers_or_texts(files):
    content = copy.deepcopy(CONTENT)
    content["annotations"][1]["id"] = "2"
    files.write(content)
    names = files.load()[0]["person_file_names"]
    assert names == [str(files.people / "hens-10.png"), str(files.people / "hens-9.png")]


BAD_TEXTS = {
    "empty": b"",
    "cut short": b'{"images": [',
    "a list": b"[]",
    "not text": b"\xff\xfe{",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
def test_no_json_object(files, text):
    files.json_file.write_bytes(text)
    with pytest.raises(AnnotationError, match="birds.json"):
        files.load(part_labels=LABELS)


@pytest.mark.parametrize("name", ["images/yard/hens.jpg", "people/hens-10.png", "birds.json"])
def test_missing_file(files, tmp_path, name):
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        files.load()


@pytest.mark.parametrize("with_background", [True, False])
def test_published_spellings_of_cihp_names(files, with_background):
    names = ["Background"] if with_background else []
    names += [name.replace("UpperClothes", "Upper-clothes") for name in CIHP_PART_LABELS.names[1:]]
    names[names.index("Torso-skin")] = "Tosor-skin"
    files.write({**CONTENT, "categories": [{"parsing": names}]})
    assert len(files.load(part_labels=CIHP_PART_LABELS)) == 2

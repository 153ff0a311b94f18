import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from aiparsing_d2.data import datasets
from aiparsing_d2.data.annotations import AnnotationError, read_person_annotations
from aiparsing_d2.structures.part_labels import LV_MHP_V2_PART_LABELS, get_part_labels


def write_person(root, name, person_map, split="train"):
    rgb = np.zeros((*person_map.shape, 3), dtype=np.uint8)
    rgb[..., 0] = person_map
    Image.fromarray(rgb).save(root / split / "parsing_annos" / name)


def write_image(root, image_id, split="train"):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / split / "images" / f"{image_id}.jpg")


@pytest.fixture
def root(tmp_path):
    """Images 12 with 11 people and 2 with one. Person k of image 12 has label k in one pixel."""
    root = tmp_path / "LV-MHP-v2"
    for folder in ("train/images", "train/parsing_annos", "test/images", "list"):
        (root / folder).mkdir(parents=True)
    (root / "list" / "train.txt").write_text("12\n2\n")
    for image_id in ("12", "2"):
        write_image(root, image_id)
    for k in range(1, 12):
        person_map = np.zeros((4, 6), dtype=np.uint8)
        person_map[k // 6, k % 6] = k
        write_person(root, f"12_11_{k:02}.png", person_map)
    write_person(root, "2_01_01.png", np.full((4, 6), 58, dtype=np.uint8))
    (root / "train" / "parsing_annos" / "Thumbs.db").write_text("")
    return root


def test_records_follow_the_list_and_people_their_numbers(root):
    first, second = datasets.load_lv_mhp_v2(root, "train")
    people = root / "train" / "parsing_annos"
    assert second == {
        "file_name": str(root / "train" / "images" / "2.jpg"),
        "image_id": "2",
        "height": 4,
        "width": 6,
        "person_file_names": [str(people / "2_01_01.png")],
    }
    assert first["image_id"] == "12"
    assert first["person_file_names"] == [str(people / f"12_11_{k:02}.png") for k in range(1, 12)]
    annotations = read_person_annotations(first, 59)
    assert annotations.person_maps.max(axis=(1, 2)).tolist() == list(range(1, 12))
    assert annotations.category_map.ravel()[:13].tolist() == [*range(12), 0]


@pytest.mark.parametrize("number", range(1, 100, 7))
def test_more_than_nine_people_are_in_numerical_order(root, number):
    """Also without leading zeros."""
    (root / "list" / "train.txt").write_text("7\n")
    write_image(root, "7")
    for k in range(1, number + 1):
        write_person(root, f"7_{number}_{k}.png", np.full((4, 6), 1, dtype=np.uint8))
    (record,) = datasets.load_lv_mhp_v2(root, "train")
    names = [f"7_{number}_{k}.png" for k in range(1, number + 1)]
    assert record["person_file_names"] == [
        str(root / "train" / "parsing_annos" / name) for name in names
    ]


@pytest.mark.parametrize(
    ("split", "list_name"),
    [
        ("test", "test_all"),
        ("test_inter_top10", "test_inter_top10"),
        ("test_inter_top20", "test_inter_top20"),
    ],
)
def test_test_lists_have_no_annotations(root, split, list_name):
    write_image(root, "99", "test")
    (root / "list" / f"{list_name}.txt").write_text("99\n")
    (record,) = datasets.load_lv_mhp_v2(root, split)
    assert set(record) == {"file_name", "image_id", "height", "width"}
    assert record["file_name"] == str(root / "test" / "images" / "99.jpg")


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda folder: (folder / "12_11_04.png").unlink(), "has 10:", id="one less"),
        pytest.param(rename("12_11_11.png", "12_11_12.png"), "has 11:.*12_11_12", id="gap"),
        pytest.param(rename("12_11_01.png", "12_11_00.png"), "has 11:.*12_11_00", id="from 0"),
        pytest.param(rename("12_11_04.png", "12_10_04.png"), "has 11:", id="other total"),
        pytest.param(rename("2_01_01.png", "12_11_12.png"), "has 12:", id="one more"),
        pytest.param(rename("2_01_01.png", "12_11_1.png"), "has 12:", id="number twice"),
    ],
)
def test_wrong_number_of_people(root, spoil, message):
    spoil(root / "train" / "parsing_annos")
    with pytest.raises(AnnotationError, match=f"parsing_annos .*12_NN_KK.png.*{message}"):
        datasets.load_lv_mhp_v2(root, "train")


def test_missing_files(root):
    (root / "train" / "parsing_annos" / "2_01_01.png").unlink()
    with pytest.raises(FileNotFoundError, match="2_NN_KK.png does not exist"):
        datasets.load_lv_mhp_v2(root, "train")
    (root / "train" / "images" / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="images.2{"):
        datasets.load_lv_mhp_v2(root, "train")
    with pytest.raises(FileNotFoundError, match="list.val.txt"):
        datasets.load_lv_mhp_v2(root, "val")
    with pytest.raises(ValueError, match="Unknown split 'test_all'"):
        datasets.load_lv_mhp_v2(root, "test_all")


def test_unreadable_images_are_skipped_with_a_warning_unless_told_otherwise(root, caplog):
    image = root / "train" / "images" / "12.jpg"
    image.write_bytes(image.read_bytes()[:-100])
    # What is left of its annotations does not matter.
    (root / "train" / "parsing_annos" / "12_11_04.png").unlink()
    (record,) = datasets.load_lv_mhp_v2(root, "train")
    assert record["image_id"] == "2"
    assert "1 of 2 images" in caplog.text and str(image) in caplog.text
    with pytest.raises(ValueError, match="(?s)1 of 2 images.*12.jpg"):
        datasets.load_lv_mhp_v2(root, "train", unreadable_images="error")


def test_builtin_splits_and_metadata(root):
    names = [f"lv_mhp_v2_{split}" for split in ("train", "val", "test")]
    names += [f"drawn_lv_mhp_v2_{split}" for split in ("train", "val")]
    for name in names:
        metadata = MetadataCatalog.get(name)
        assert metadata.semseg_thresh == 0.005
        assert metadata.evaluator_type == "human_parsing"
        assert metadata.part_names[10] == "Bikini/bra"
    assert get_part_labels(names) == LV_MHP_V2_PART_LABELS
    try:
        datasets.register_all_lv_mhp_v2(root.parent)
        assert len(DatasetCatalog.get("lv_mhp_v2_train")) == 2
        with pytest.raises(FileNotFoundError, match="drawn_lv_mhp_v2"):
            DatasetCatalog.get("drawn_lv_mhp_v2_train")
    finally:
        datasets.register_all_lv_mhp_v2(datasets.datasets_root())

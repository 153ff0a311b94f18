import importlib

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from aiparsing_d2.data import datasets
from aiparsing_d2.data.dataset_mapper import read_image
from aiparsing_d2.data.part_labels import CIHP_PART_LABELS, PartLabels, get_part_labels

BUILTIN = ["cihp_train", "cihp_val", "cihp_test", "drawn_cihp_train", "drawn_cihp_val"]


@pytest.fixture
def registered():
    """Names that a test registers; they are free again afterwards."""
    names = []
    yield names
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_records_follow_the_id_list(two_people, category_map, human_map):
    two_people.add("0000007", category_map[:2, :3].copy(), human_map[:2, :3].copy())
    two_people.add("0000003", category_map, human_map, listed=False)
    with open(two_people.root / "train_id.txt", "a", encoding="utf-8") as file:
        file.write("\n  \n")

    records = datasets.load_cihp(two_people.root, "train")
    assert [record["image_id"] for record in records] == ["0000001", "0000007"]
    folder = two_people.root / "Training"
    assert records[1] == {
        "file_name": str(folder / "Images" / "0000007.png"),
        "image_id": "0000007",
        "height": 2,
        "width": 3,
        "category_file_name": str(folder / "Category_ids" / "0000007.png"),
        "human_file_name": str(folder / "Human_ids" / "0000007.png"),
    }


def test_test_split_has_no_annotations(cihp_folder):
    cihp_folder.split = "test"
    cihp_folder.write("Images", "0000009.jpg", np.zeros((4, 6, 3), dtype=np.uint8))
    (cihp_folder.root / "test_id.txt").write_bytes(b"0000009\r\n")
    (record,) = datasets.load_cihp(cihp_folder.root, "test")
    assert set(record) == {"file_name", "image_id", "height", "width"}
    assert record["file_name"].endswith("0000009.jpg") and record["image_id"] == "0000009"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_size_is_the_one_after_exif_orientation(cihp_folder, suffix):
    (cihp_folder.root / "Testing" / "Images").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    path = cihp_folder.root / "Testing" / "Images" / f"1{suffix}"
    Image.new("RGB", (6, 4)).save(path, exif=exif)
    (cihp_folder.root / "test_id.txt").write_text("1")
    (record,) = datasets.load_cihp(cihp_folder.root, "test")
    assert (record["height"], record["width"]) == (6, 4)
    assert read_image(record["file_name"], "BGR").shape[:2] == (6, 4)


def test_pixels_are_not_decoded(two_people):
    path = two_people.root / "Training" / "Images" / "0000001.png"
    path.write_bytes(path.read_bytes()[:45])  # up to the pixels
    (record,) = datasets.load_cihp(two_people.root, "train")
    assert (record["height"], record["width"]) == (4, 6)


@pytest.mark.parametrize("subfolder", ["Images", "Category_ids", "Human_ids"])
def test_missing_file_of_a_listed_id(two_people, subfolder):
    (two_people.root / "Training" / subfolder / "0000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"{subfolder}.*0000001.*list.* '?0000001"):
        datasets.load_cihp(two_people.root, "train")


def test_missing_root_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        datasets.load_cihp(tmp_path / "nowhere", "val")
    for hint in (str(tmp_path / "nowhere"), "DETECTRON2_DATASETS", "datasets/README.md"):
        assert hint in str(error.value)
    with pytest.raises(FileNotFoundError, match="val_id.txt"):
        datasets.load_cihp(tmp_path, "val")


def test_bad_id_lists_and_headers(two_people):
    with pytest.raises(ValueError, match="Unknown split 'dev'"):
        datasets.load_cihp(two_people.root, "dev")
    id_list = two_people.root / "train_id.txt"
    id_list.write_text("0000001\n0000001\n")
    with pytest.raises(ValueError, match="'0000001'"):
        datasets.load_cihp(two_people.root, "train")
    id_list.write_text("\n")
    with pytest.raises(ValueError, match="train_id.txt lists no image"):
        datasets.load_cihp(two_people.root, "train")
    id_list.write_text("0000001\n")
    image = two_people.root / "Training" / "Images" / "0000001.png"
    image.write_bytes(b"")
    with pytest.raises(ValueError, match="Images.0000001.png"):
        datasets.load_cihp(two_people.root, "train")


def test_builtin_splits_and_metadata():
    for name in BUILTIN:
        assert name in DatasetCatalog
        metadata = MetadataCatalog.get(name)
        assert metadata.thing_classes == ["person"]
        assert metadata.evaluator_type == "human_parsing"
        assert metadata.ignore_label == 255
        assert metadata.semseg_thresh == 0.3
        assert metadata.part_names[14] == "Left-arm"
        assert metadata.part_colors[14] == (51, 170, 221)
        assert metadata.part_flip_pairs == [(14, 15), (16, 17), (18, 19)]
    assert get_part_labels(BUILTIN) == CIHP_PART_LABELS


def test_registering_again_moves_the_builtin_splits(tmp_path):
    try:
        datasets.register_all_cihp(tmp_path)
        datasets.register_all_cihp(tmp_path)
        with pytest.raises(FileNotFoundError, match=str(tmp_path / "drawn_cihp")):
            DatasetCatalog.get("drawn_cihp_train")
        image_root = MetadataCatalog.get("cihp_val").image_root
        folder = tmp_path / "instance-level_human_parsing"
        assert image_root == str(folder / "Validation" / "Images")
    finally:
        datasets.register_all_cihp(datasets.datasets_root())


def test_a_name_of_other_code_is_left_alone(tmp_path, caplog):
    def load_of_another_package():
        return []

    ours = DatasetCatalog.pop("cihp_val")
    DatasetCatalog.register("cihp_val", load_of_another_package)
    try:
        datasets.register_all_cihp(datasets.datasets_root())
        assert DatasetCatalog["cihp_val"] is load_of_another_package
        assert "cihp_val" in caplog.text
    finally:
        DatasetCatalog.remove("cihp_val")
        DatasetCatalog.register("cihp_val", ours)


def test_import_touches_no_file_and_expands_the_home_folder(tmp_path, monkeypatch):
    try:
        with monkeypatch.context() as environment:
            environment.setenv("HOME", str(tmp_path))
            environment.setenv("DETECTRON2_DATASETS", "~/sets")
            importlib.reload(datasets)
        expected = tmp_path / "sets" / "instance-level_human_parsing" / "Validation" / "Images"
        assert MetadataCatalog.get("cihp_val").image_root == str(expected)
    finally:
        importlib.reload(datasets)
    assert MetadataCatalog.get("cihp_val").image_root != str(expected)


def test_own_data_set_with_other_parts(two_people, registered):
    labels = PartLabels(["Background", "Wing"], [(0, 0, 0), (255, 0, 0)])
    registered.append("birds_train")
    datasets.register_cihp("birds_train", two_people.root, "train", labels, semseg_thresh=0.1)

    assert len(DatasetCatalog.get("birds_train")) == 1
    assert get_part_labels("birds_train") == labels
    assert MetadataCatalog.get("birds_train").semseg_thresh == 0.1
    with pytest.raises(ValueError, match="'birds_train' is registered already"):
        datasets.register_cihp("birds_train", two_people.root, "train", labels)
    with pytest.raises(ValueError, match="'cihp_train' and 'birds_train'"):
        get_part_labels(["cihp_train", "birds_train"])


def test_part_labels_of_data_sets_without_any(registered):
    with pytest.raises(KeyError, match="'unheard_of'"):
        get_part_labels("unheard_of")
    with pytest.raises(ValueError, match="'coco_2017_val' has no part labels"):
        get_part_labels("coco_2017_val")
    with pytest.raises(ValueError, match="No data set"):
        get_part_labels([])

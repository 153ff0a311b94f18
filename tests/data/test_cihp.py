import importlib
import io
import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from aiparsing_d2.data import datasets
from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.image_files import read_image
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, PartLabels, get_part_labels

BUILTIN = [
    "cihp_train",
    "cihp_val",
    "cihp_test",
    "ccp_train",
    "ccp_val",
    "ccp_crowd_val",
    "ccp_crops_val",
    "drawn_cihp_train",
    "drawn_cihp_val",
]


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


def test_ignore_boxes(two_people, category_map, human_map):
    two_people.add("0000007", category_map, human_map)
    boxes = {"0000007": [[0, 0.5, 2, 3], [4, 0, 6, 4]], "0000009": [[0, 0, 1, 1]]}
    (two_people.root / "ignore_boxes.json").write_text(json.dumps(boxes))
    without, with_boxes = datasets.load_cihp(two_people.root, "train")
    assert "ignore_boxes" not in without
    assert with_boxes["ignore_boxes"] == [[0, 0.5, 2, 3], [4, 0, 6, 4]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"0000001": [[2, 0, 1, 1]]}', "for image '0000001'"),
        ('{"0000001": [[0, 0, 1]]}', "for image '0000001'"),
        ('{"0000001": [0, 0, 1, 1]}', "for image '0000001'"),
        ('{"0000001": [[0, 0, NaN, 1]]}', "for image '0000001'"),
    ],
)
def test_wrong_ignore_boxes(two_people, content, message):
    file = two_people.root / "ignore_boxes.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        datasets.load_cihp(two_people.root, "train")
    assert str(file) in str(error.value)


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


def test_pixels_of_whole_files_are_not_decoded(two_people):
    path = two_people.root / "Training" / "Images" / "0000001.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:45] + whole[-12:])  # up to the pixels, and the end marker
    (record,) = datasets.load_cihp(two_people.root, "train")
    assert (record["height"], record["width"]) == (4, 6)


@pytest.mark.parametrize("subfolder", ["Images", "Category_ids", "Human_ids"])
def test_missing_file_of_a_listed_id(two_people, subfolder):
    (two_people.root / "Training" / subfolder / "0000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"{subfolder}.*0000001.*list.* '?0000001"):
        datasets.load_cihp(two_people.root, "train")


def test_a_folder_without_the_split_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        datasets.load_cihp(tmp_path, "val")
    for hint in ("val_id.txt", "annotations/CIHP_val.json", "datasets/README.md"):
        assert hint in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("0000001\n0000001\n", ": line 2 repeats '0000001' of line 1", id="repeated"),
        pytest.param("\n", " lists no image", id="empty"),
        pytest.param("../Validation/0000001\n", ": line 1 .*leads out", id="out of the folder"),
    ],
)
def test_bad_id_list(two_people, content, message):
    (two_people.root / "train_id.txt").write_text(content)
    with pytest.raises(ValueError, match=f"train_id.txt{message}"):
        datasets.load_cihp(two_people.root, "train")


def test_unknown_split_and_policy(two_people):
    with pytest.raises(ValueError, match="Unknown split 'dev'"):
        datasets.load_cihp(two_people.root, "dev")
    with pytest.raises(ValueError, match="'error' or 'skip', got 'ignore'"):
        datasets.load_cihp(two_people.root, "train", unreadable_images="ignore")


def test_byte_order_mark_is_no_part_of_the_first_id(two_people):
    (two_people.root / "train_id.txt").write_bytes(b"\xef\xbb\xbf0000001\r\n")
    (record,) = datasets.load_cihp(two_people.root, "train")
    assert record["image_id"] == "0000001"


def jpeg_bytes():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def png_bytes():
    file = io.BytesIO()
    Image.fromarray(np.zeros((64, 48, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


UNREADABLE_IMAGES = {
    "empty": lambda: b"",
    "no image": lambda: b"<html>Not found</html>",
    "jpeg header only": lambda: jpeg_bytes()[:100],
    "truncated jpeg": lambda: jpeg_bytes()[: len(jpeg_bytes()) // 2],
    "truncated png": lambda: png_bytes()[:-30],
    "png signature only": lambda: png_bytes()[:8],
}


@pytest.mark.parametrize("content", UNREADABLE_IMAGES.values(), ids=UNREADABLE_IMAGES.keys())
def test_unreadable_images(two_people, category_map, human_map, content, caplog):
    for image_id in ("0000002", "0000003", "0000004"):
        two_people.add(image_id, category_map, human_map)
    images = two_people.root / "Training" / "Images"
    for image_id in ("0000002", "0000004"):
        (images / f"{image_id}.png").unlink()
        (images / f"{image_id}.jpg").write_bytes(content())

    for _ in range(2):  # from the files, from the cache
        with pytest.raises(ValueError, match="2 of 4 images") as error:
            datasets.load_cihp(two_people.root, "train")
        caplog.clear()
        records = datasets.load_cihp(two_people.root, "train", unreadable_images="skip")
        assert [record["image_id"] for record in records] == ["0000001", "0000003"]
        assert records[1]["human_file_name"].endswith("0000003.png")
        for message in (str(error.value), caplog.text):
            assert str(images / "0000002.jpg") in message
            assert str(images / "0000004.jpg") in message
            assert "0000003" not in message


def test_no_readable_image_is_never_skipped(two_people):
    (two_people.root / "Training" / "Images" / "0000001.png").write_bytes(b"")
    with pytest.raises(ValueError, match="1 of 1 images"):
        datasets.load_cihp(two_people.root, "train", unreadable_images="skip")


def test_whole_image_without_an_end_marker_is_readable(two_people):
    path = two_people.root / "Training" / "Images" / "0000001.png"
    path.unlink()
    path.with_suffix(".jpg").write_bytes(jpeg_bytes() + b"from a phone")
    (record,) = datasets.load_cihp(two_people.root, "train")
    assert (record["height"], record["width"]) == (64, 48)


@pytest.fixture
def converted(tmp_path, category_map, human_map):
    """The image of ``two_people``, and one without people, in the layout with a JSON."""
    root = tmp_path / "CIHP"
    for folder in ("annotations", "val_img", "val_parsing", "val_seg", "test_img"):
        (root / folder).mkdir(parents=True)
    images, annotations = [], []
    for key, image_id in enumerate(("0035374", "0000002")):
        file_name = f"{image_id}.jpg"
        Image.new("RGB", (6, 4)).save(root / "val_img" / file_name)
        Image.fromarray(category_map).save(root / "val_seg" / f"{image_id}.png")
        images.append({"id": key, "file_name": file_name, "height": 4, "width": 6})
    for k, number in enumerate((1, 4), 1):
        person = np.where(human_map == number, category_map, 0).astype(np.uint8)
        name = f"0035374-{k}.png"
        Image.fromarray(person).save(root / "val_parsing" / name)
        annotations.append({"id": k, "image_id": 0, "category_id": 1, "parsing": name})
    categories = [{"id": 1, "name": "person", "parsing": list(CIHP_PART_LABELS.names)}]
    val = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "CIHP_val.json").write_text(json.dumps(val))
    Image.new("RGB", (6, 4)).save(root / "test_img" / "0000009.jpg")
    image = {"id": 9, "file_name": "0000009.jpg", "height": 4, "width": 6}
    (root / "annotations" / "CIHP_test.json").write_text(json.dumps({"images": [image]}))
    return root


def test_converted_layout_gives_the_same_people(converted, two_people, category_map):
    first, second = datasets.load_cihp(converted, "val")
    assert first == {
        "file_name": str(converted / "val_img" / "0035374.jpg"),
        "image_id": "0035374",
        "height": 4,
        "width": 6,
        "person_file_names": [
            str(converted / "val_parsing" / "0035374-1.png"),
            str(converted / "val_parsing" / "0035374-2.png"),
        ],
        "category_file_name": str(converted / "val_seg" / "0035374.png"),
        "ignore_unknown_labels": True,
    }
    (downloaded,) = datasets.load_cihp(two_people.root, "train")
    ours, theirs = read_person_annotations(first, 20), read_person_annotations(downloaded, 20)
    np.testing.assert_array_equal(ours.person_maps, theirs.person_maps)
    np.testing.assert_array_equal(ours.category_map, theirs.category_map)
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)

    assert second["person_file_names"] == [] and "ignore_unknown_labels" not in second
    nobody = read_person_annotations(second, 20)
    assert nobody.person_maps.shape == (0, 4, 6)
    np.testing.assert_array_equal(nobody.category_map, category_map)

    (record,) = datasets.load_cihp(converted, "test")
    assert set(record) == {"file_name", "image_id", "height", "width"}


def test_builtin_splits_use_the_layout_that_exists_when_they_are_used(
    tmp_path, two_people, converted
):
    try:
        datasets.register_all_cihp(tmp_path)
        records = DatasetCatalog.get("cihp_val")
        assert records[0]["file_name"].startswith(str(tmp_path / "CIHP"))
        # The other one is put there later, and wins.
        two_people.root.rename(tmp_path / "instance-level_human_parsing")
        records = DatasetCatalog.get("cihp_train")
        assert records[0]["file_name"].startswith(str(tmp_path / "instance-level_human_parsing"))
        with pytest.raises(FileNotFoundError, match="instance-level_human_parsing.val_id.txt"):
            DatasetCatalog.get("cihp_val")
    finally:
        datasets.register_all_cihp(datasets.datasets_root())


def test_missing_builtin_split_names_both_places(tmp_path):
    try:
        datasets.register_all_cihp(tmp_path)
        with pytest.raises(FileNotFoundError) as error:
            DatasetCatalog.get("cihp_val")
        for hint in (
            str(tmp_path / "instance-level_human_parsing"),
            str(tmp_path / "CIHP"),
            "DETECTRON2_DATASETS",
            "datasets/README.md",
        ):
            assert hint in str(error.value)
    finally:
        datasets.register_all_cihp(datasets.datasets_root())


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
        with pytest.raises(FileNotFoundError, match=str(tmp_path / "sets" / "CIHP")):
            DatasetCatalog.get("cihp_val")
    finally:
        importlib.reload(datasets)
    assert str(tmp_path) not in str(DatasetCatalog["cihp_val"].load.folders)


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

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from aiparsing_d2.data import datasets
from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, get_part_labels

# Frame names repeat across the videos, and the person numbers of a video change.
FRAMES = {
    "videos10/000000000001": {1: 13},
    "videos2/000000000001": {1: 14, 2: 15},
    "videos2/000000000026": {2: 14, 3: 15},
}


def write(root, folder, name, pixels):
    path = root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_frames(root, label_folder, list_folder):
    """Each person of a frame is a column with one label."""
    for frame, people in FRAMES.items():
        write(root, "Images", f"{frame}.jpg", np.zeros((3, 5, 3), dtype=np.uint8))
        category_map, human_map = np.zeros((2, 3, 5), dtype=np.uint8)
        for column, (number, label) in enumerate(people.items()):
            category_map[:, column] = label
            human_map[:, column] = number
        write(root / label_folder, "Category_ids", f"{frame}.png", category_map)
        write(root / label_folder, "Human_ids", f"{frame}.png", human_map)
    lists = root / list_folder
    lists.mkdir(exist_ok=True)
    (lists / "train_id.txt").write_text("\n".join(FRAMES))
    (lists / "test_id.txt").write_text("videos2/000000000026\n")
    return root


@pytest.fixture(params=[("Annotations", "lists"), ("", "lists"), ("", "")], ids=str)
def root(request, tmp_path):
    return write_frames(tmp_path / "VIP", *request.param)


def test_frames_are_known_by_video_and_frame(root):
    records = datasets.load_vip(root, "train")
    assert [record["image_id"] for record in records] == list(FRAMES)
    for record, people in zip(records, FRAMES.values()):
        assert record["file_name"] == str(root / "Images" / f"{record['image_id']}.jpg")
        assert (record["height"], record["width"]) == (3, 5)
        annotations = read_person_annotations(record, 20)
        assert annotations.person_maps.max(axis=(1, 2)).tolist() == list(people.values())
        assert annotations.boxes.tolist() == [[k, 0, k + 1, 3] for k in range(len(people))]

    (record,) = datasets.load_vip(root, "test")
    assert set(record) == {"file_name", "image_id", "height", "width"}


@pytest.mark.parametrize("folder", ["Images", "Category_ids", "Human_ids"])
def test_missing_frame(tmp_path, folder):
    root = write_frames(tmp_path, "", "lists")
    for path in (root / folder / "videos2").glob("000000000026.*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{folder}.videos2.000000000026"):
        datasets.load_vip(root, "train")


def test_missing_list_names_both_places(root):
    with pytest.raises(FileNotFoundError) as error:
        datasets.load_vip(root, "val")
    assert str(root / "lists" / "val_id.txt") in str(error.value)
    assert str(root / "val_id.txt") in str(error.value)


def test_unreadable_frames(tmp_path, caplog):
    root = write_frames(tmp_path, "", "lists")
    (root / "Images" / "videos10" / "000000000001.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="(?s)1 of 3 images.*videos10.000000000001.jpg"):
        datasets.load_vip(root, "train")
    assert len(datasets.load_vip(root, "train", unreadable_images="skip")) == 2
    assert "videos10" in caplog.text


def test_builtin_splits_and_metadata(tmp_path):
    names = ["vip_train", "vip_val", "vip_test", "drawn_vip_train", "drawn_vip_val"]
    assert get_part_labels(names) == CIHP_PART_LABELS
    assert all(MetadataCatalog.get(name).semseg_thresh == 0.3 for name in names)
    try:
        datasets.register_all_vip(tmp_path)
        with pytest.raises(FileNotFoundError, match="VIP_Fine nor .*VIP"):
            DatasetCatalog.get("vip_train")
        write_frames(tmp_path / "VIP", "", "lists")
        assert len(DatasetCatalog.get("vip_train")) == 3
        write_frames(tmp_path / "VIP_Fine", "Annotations", "lists")
        assert "VIP_Fine" in DatasetCatalog.get("vip_train")[0]["human_file_name"]
    finally:
        datasets.register_all_vip(datasets.datasets_root())

"""Detectron2's own Visualizer shows people and parts of the data sets registered here."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from detectron2.utils.visualizer import ColorMode, Visualizer

from aiparsing_d2.data.datasets import register_cihp, register_lv_mhp_v2
from aiparsing_d2.data.standard_dataset_dict import to_standard_dataset_dict
from aiparsing_d2.structures import PartMaps, PersonMasks
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

NAME = "detectron2_visualizer_test"
GREY = 100
# One person: trousers above, a coat below. The points are far from edges, and from the names, which
# are written in the middle of each part and at the box's upper left corner.
TROUSERS, COAT, NOBODY = (180, 270), (215, 270), (285, 15)


@pytest.fixture
def record(cihp_folder):
    parts = np.zeros((300, 300), dtype=np.uint8)
    parts[100:200, 150:290] = 9
    parts[200:290, 150:290] = 7
    image = np.full((300, 300, 3), GREY, dtype=np.uint8)
    cihp_folder.add("a", parts, (parts > 0).astype(np.uint8), image)
    register_cihp(NAME, cihp_folder.root, "train")
    yield DatasetCatalog.get(NAME)[0]
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def visualizer(**kwargs):
    image = np.full((300, 300, 3), GREY, dtype=np.uint8)
    return Visualizer(image, MetadataCatalog.get(NAME), **kwargs)


def blend(label, alpha, under=GREY):
    return (1 - alpha) * np.array(under) + alpha * np.array(CIHP_PART_LABELS.colors[label])


def test_sem_seg_has_the_part_colours(record):
    (maps,) = to_standard_dataset_dict(record)["sem_seg"][None]
    picture = visualizer().draw_sem_seg(torch.as_tensor(maps), alpha=0.8).get_image()
    np.testing.assert_allclose(picture[TROUSERS], blend(9, 0.8), atol=2)
    np.testing.assert_allclose(picture[COAT], blend(7, 0.8), atol=2)


def test_a_record_as_it_is_shows_parts(record):
    assert "annotations" not in record
    picture = visualizer().draw_dataset_dict(record).get_image()
    np.testing.assert_allclose(picture[TROUSERS], blend(9, 0.5), atol=2)
    np.testing.assert_allclose(picture[COAT], blend(7, 0.5), atol=2)


def test_a_standard_record_shows_people_and_parts(record):
    before = dict(record)
    standard = to_standard_dataset_dict(record, num_classes=20)
    assert record == before
    (person,) = standard["annotations"]
    assert person["bbox"] == [150, 100, 140, 190] and person["area"] == 190 * 140
    drawing = visualizer(instance_mode=ColorMode.SEGMENTATION)
    picture = drawing.draw_dataset_dict(standard).get_image()
    # Below the parts lies the person in their own colour, made lighter by a random half at most.
    person = 0.5 * GREY + 0.5 * np.array(MetadataCatalog.get(NAME).thing_colors[0])
    lighter = picture[TROUSERS] - blend(9, 0.5, person)
    assert (lighter >= -2).all() and (lighter <= 0.5 * 0.5 * 0.5 * 255 + 2).all()
    np.testing.assert_allclose(picture[NOBODY], blend(0, 0.5), atol=2)
    without_person = visualizer().draw_dataset_dict(record).get_image()
    assert np.abs(picture[TROUSERS].astype(int) - without_person[TROUSERS]).max() > 20


@pytest.mark.parametrize("mode", list(ColorMode))
def test_predictions_show_people(record, mode, monkeypatch):
    # Random, it may be nearly the image's.
    red = np.array([1.0, 0.0, 0.0])
    monkeypatch.setattr("detectron2.utils.visualizer.random_color", lambda **_: red)
    part_maps = PartMaps.from_full(to_standard_dataset_dict(record)["sem_seg"][None])
    instances = Instances(
        (300, 300),
        pred_boxes=Boxes(torch.tensor([[150.0, 100.0, 290.0, 290.0]])),
        scores=torch.tensor([0.75]),
        pred_classes=torch.tensor([0]),
        pred_masks=PersonMasks(part_maps),
    )
    picture = visualizer(instance_mode=mode).draw_instance_predictions(instances).get_image()
    assert np.abs(picture[TROUSERS].astype(int) - GREY).max() > 20
    np.testing.assert_allclose(picture[NOBODY], GREY, atol=1)
    # Nobody is nothing to draw.
    empty = visualizer(instance_mode=mode).draw_instance_predictions(instances[[False]]).get_image()
    np.testing.assert_allclose(empty, GREY, atol=1)


def test_people_with_a_file_each(tmp_path):
    """LV-MHP-v2 has no map of all parts: the standard record paints the people."""
    from PIL import Image

    for folder in ("list", "train/images", "train/parsing_annos"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "list/train.txt").write_text("7\n")
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "train/images/7.jpg")
    for k, label in ((1, 3), (2, 4)):
        red = np.zeros((4, 5, 3), dtype=np.uint8)
        red[k : k + 2, 1:3, 0] = label
        Image.fromarray(red).save(tmp_path / f"train/parsing_annos/7_02_0{k}.png")
    register_lv_mhp_v2(NAME, tmp_path, "train")
    try:
        (record,) = DatasetCatalog.get(NAME)
        assert "sem_seg_file_name" not in record
        standard = to_standard_dataset_dict(record)
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)
    assert [a["bbox"] for a in standard["annotations"]] == [[1, 1, 2, 2], [1, 2, 2, 2]]
    assert standard["sem_seg"][:, 1].tolist() == [0, 3, 4, 4]

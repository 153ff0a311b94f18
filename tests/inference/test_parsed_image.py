"""A result as data, against maps set by hand, NumPy, OpenCV and pycocotools."""

from __future__ import annotations

import io
import json
import sys
import time

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import supervision
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from aiparsing_d2.inference import ParsedImage
from aiparsing_d2.structures import PartMaps, PersonMasks
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

HAIR, COAT, FACE = (CIHP_PART_LABELS.names.index(name) for name in ("Hair", "Coat", "Face"))
HEIGHT, WIDTH = 12, 16


def full_maps() -> np.ndarray:
    """Two people who overlap in columns 6 and 7, the second with a hole in the coat."""
    maps = np.zeros((2, HEIGHT, WIDTH), dtype=np.uint8)
    maps[0, 1:4, 2:8] = HAIR
    maps[0, 4:9, 2:8] = FACE
    maps[1, 3:11, 6:14] = COAT
    maps[1, 5:7, 9:11] = 0
    return maps


def make_parsed(maps: np.ndarray, scores, image=None, **fields) -> ParsedImage:
    part_maps = PartMaps.from_full(maps)
    instances = Instances(
        maps.shape[1:],
        pred_boxes=part_maps.get_bounding_boxes(),
        pred_classes=torch.zeros(len(maps), dtype=torch.int64),
        scores=torch.tensor(scores),
        pred_part_maps=part_maps,
        pred_masks=PersonMasks(part_maps),
        **fields,
    )
    return ParsedImage(instances, CIHP_PART_LABELS, image)


@pytest.fixture
def parsed() -> ParsedImage:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    part_scores = torch.linspace(0, 1, 40).reshape(2, 20)
    return make_parsed(
        full_maps(),
        [0.75, 0.5],
        image,
        box_scores=torch.tensor([0.9, 0.8]),
        pred_mious=torch.tensor([0.625, 0.3125]),
        pred_part_scores=part_scores,
    )


def decode(rle) -> np.ndarray:
    return mask_util.decode(rle).astype(bool)


def test_people(parsed):
    first, second = parsed.people
    assert len(parsed) == 2 and parsed.image_size == (HEIGHT, WIDTH)
    assert first.box.tolist() == [2, 1, 8, 9] and first.window == (2, 1, 8, 9)
    assert (first.score, second.score) == (0.75, 0.5)
    assert first.detection_score == pytest.approx(0.9) and second.parsing_score == 0.3125
    np.testing.assert_allclose(second.part_scores, np.linspace(0, 1, 40)[20:], rtol=1e-6)
    assert first.parts == ["Hair", "Face"] and second.parts == ["Coat"]
    assert parsed[-1].box.tolist() == second.box.tolist()
    with pytest.raises(IndexError):
        parsed[2]


def test_masks_run_lengths_and_areas(parsed):
    for person, part_map in zip(parsed, full_maps(), strict=True):
        np.testing.assert_array_equal(person.part_map(), part_map)
        np.testing.assert_array_equal(person.mask(), part_map > 0)
        np.testing.assert_array_equal(decode(person.rle()), part_map > 0)
        assert person.area() == np.count_nonzero(part_map)
        assert set(person.part_rles()) == set(person.parts)
        for part in ("Hair", "Coat", FACE, "Skirt"):
            label = CIHP_PART_LABELS.names.index(part) if isinstance(part, str) else part
            np.testing.assert_array_equal(person.mask(part), part_map == label)
            np.testing.assert_array_equal(decode(person.rle(part)), part_map == label)
            assert person.area(part) == np.count_nonzero(part_map == label)


def test_unknown_parts(parsed):
    with pytest.raises(ValueError, match="no part 'hair': did you mean Hair"):
        parsed[0].mask("hair")
    for label in (0, 20, -1, "Background"):
        with pytest.raises(ValueError, match=f"there is no part {label!r}"):
            parsed[0].rle(label)


def test_polygons_give_the_mask_back(parsed):
    first, second = parsed.people
    (outline,) = first.polygons()
    assert sorted(outline.tolist()) == [[2, 1], [2, 8], [7, 1], [7, 8]]
    (hair,) = first.polygons("Hair")
    assert hair[:, 1].max() == 3 and hair[:, 1].min() == 1
    filled = cv2.fillPoly(np.zeros((HEIGHT, WIDTH), np.uint8), second.polygons(), 1)
    without_hole = second.mask()
    without_hole[5:7, 9:11] = True
    np.testing.assert_array_equal(filled, without_hole)
    assert first.polygons("Skirt") == []


def test_crops(parsed):
    crop = parsed[1].crop("Coat")
    assert crop.shape == (8, 8, 4) and crop.dtype == np.uint8
    np.testing.assert_array_equal(crop[..., :3], parsed.image[3:11, 6:14])
    expected = np.full((8, 8), 255)
    expected[2:4, 3:5] = 0
    np.testing.assert_array_equal(crop[..., 3], expected)
    assert parsed[0].crop("Face").shape == (5, 6, 4)
    assert parsed[0].crop("Skirt").shape == (0, 0, 4)


@pytest.mark.parametrize("scores", [[0.75, 0.5], [0.5, 0.75], [0.5, 0.5]])
def test_maps_of_all_people(scores):
    """The higher score is seen; of equal ones the later."""
    maps = full_maps()
    order = (1, 0) if scores[0] > scores[1] else (0, 1)
    labels, people = np.zeros((2, HEIGHT, WIDTH), dtype=int)
    for n in order:
        labels[maps[n] > 0] = maps[n][maps[n] > 0]
        people[maps[n] > 0] = n + 1
    parsed = make_parsed(maps, scores)
    np.testing.assert_array_equal(parsed.semantic_map(), labels)
    np.testing.assert_array_equal(parsed.instance_map(), people)
    assert parsed.semantic_map().dtype == np.uint8 and parsed.instance_map().dtype == np.uint16


def test_json(parsed):
    content = json.loads(parsed.to_json())
    assert (content["height"], content["width"]) == (HEIGHT, WIDTH)
    assert content["part_names"][HAIR] == "Hair"
    first = content["people"][0]
    assert first["box"] == [2, 1, 8, 9] and first["score"] == 0.75
    assert first["detection_score"] == pytest.approx(0.9) and first["parsing_score"] == 0.625
    np.testing.assert_array_equal(decode(first["segmentation"]), full_maps()[0] > 0)
    face = first["parts"]["Face"]
    assert face["label"] == FACE and face["area"] == 30
    assert face["score"] == pytest.approx(FACE / 39)
    np.testing.assert_array_equal(decode(face["segmentation"]), full_maps()[0] == FACE)
    without = json.loads(make_parsed(full_maps(), [0.75, 0.5]).to_json())["people"][0]
    assert without["detection_score"] is without["parsing_score"] is None
    assert without["parts"]["Face"]["score"] is None


def test_coco(parsed, capsys):
    """As its own truth, the result is perfect by COCO's figures."""
    results = json.loads(json.dumps(parsed.to_coco(image_id=7)))
    assert results[0]["bbox"] == [2, 1, 6, 8] and set(results[0]["parts"]) == {"Hair", "Face"}
    annotations = [{**r, "id": i, "iscrowd": 0} for i, r in enumerate(results, start=1)]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 7, "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotations,
    }
    truth.createIndex()
    for kind in ("bbox", "segm"):
        evaluation = COCOeval(truth, truth.loadRes([dict(r) for r in results]), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1)


def test_supervision(parsed):
    detections = parsed.to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == 2
    np.testing.assert_array_equal(detections.mask, full_maps() > 0)
    assert detections.area.tolist() == [48, 60]
    assert detections.xyxy.tolist() == [[2, 1, 8, 9], [6, 3, 14, 11]]
    assert detections.confidence.tolist() == [0.75, 0.5]
    assert detections.class_id.tolist() == [0, 0]
    assert len(make_parsed(full_maps()[:0], []).to_supervision()) == 0


def test_without_supervision(parsed, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        parsed.to_supervision()


@pytest.mark.parametrize("num_people", [0, 1, 2])
@pytest.mark.parametrize("with_scores", [False, True])
def test_saved_and_loaded(parsed, tmp_path, num_people, with_scores):
    instances = parsed.instances[:num_people]
    if not with_scores:
        for name in ("box_scores", "pred_mious", "pred_part_scores"):
            instances.remove(name)
    file = tmp_path / "new" / "result.npz"
    ParsedImage(instances, CIHP_PART_LABELS, parsed.image).save(file)
    loaded = ParsedImage.load(file)
    assert loaded.image is None and loaded.part_labels == CIHP_PART_LABELS
    fields, expected = loaded.instances.get_fields(), instances.get_fields()
    assert set(fields) == set(expected) and loaded.image_size == (HEIGHT, WIDTH)
    for name in set(fields) - {"pred_boxes", "pred_part_maps", "pred_masks"}:
        assert fields[name].dtype == expected[name].dtype
        assert torch.equal(fields[name], expected[name])
    assert torch.equal(fields["pred_boxes"].tensor, expected["pred_boxes"].tensor)
    np.testing.assert_array_equal(
        fields["pred_part_maps"].to_full(), full_maps()[:num_people].reshape(-1, HEIGHT, WIDTH)
    )
    assert loaded.to_json() == ParsedImage(instances, CIHP_PART_LABELS).to_json()


def test_files_are_not_overwritten_and_others_not_loaded(parsed, tmp_path):
    file = tmp_path / "result.npz"
    parsed.save(file)
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match=r"result\.npz"):
        parsed.save(file)
    assert file.read_bytes() == before
    make_parsed(full_maps()[:1], [0.5]).save(file, overwrite=True)
    assert len(ParsedImage.load(file)) == 1

    with pytest.raises(FileNotFoundError):
        ParsedImage.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "cut.npz").write_bytes(before[:-200])
    for name in ("other", "text", "cut"):
        with pytest.raises(ValueError, match=rf"{name}\.npz is not a file of ParsedImage\.save"):
            ParsedImage.load(tmp_path / f"{name}.npz")


def test_pictures(parsed):
    from aiparsing_d2.visualization import draw_parsing

    fields = parsed.instances.get_fields()
    drawn = (parsed.image, fields["pred_part_maps"], CIHP_PART_LABELS)
    scores = fields["scores"]
    expected = draw_parsing(*drawn, boxes=fields["pred_boxes"], scores=scores)
    np.testing.assert_array_equal(parsed.plot(), expected)
    expected = draw_parsing(*drawn, scores=scores, alpha=0.3, scale=2)
    np.testing.assert_array_equal(parsed.plot(boxes=False, alpha=0.3, scale=2), expected)
    png = np.asarray(Image.open(io.BytesIO(parsed._repr_png_())))
    np.testing.assert_array_equal(png, parsed.plot(legend=True))
    larger = parsed.plot(legend=True, scale=20)
    assert (larger[: 20 * HEIGHT] == parsed.plot(scale=20)).all()
    assert (larger[20 * HEIGHT :] == CIHP_PART_LABELS.colors[FACE]).all(axis=2).any()
    by_person = parsed.plot(boxes=False, color_by="person", legend=True)
    expected = draw_parsing(*drawn, scores=scores, color_by="person")
    np.testing.assert_array_equal(by_person, expected)


def test_the_legend_leaves_out_parts_of_a_few_pixels():
    maps = np.zeros((1, 300, 300), dtype=np.uint8)
    maps[0, :200] = FACE  # 60000 pixels, of which 60 are 0.1 %
    hat, glasses = 1, 4
    maps[0, 0, :60], maps[0, 1, :59] = hat, glasses
    image = np.zeros((300, 300, 3), dtype=np.uint8)
    drawing = make_parsed(maps, [0.5], image).plot(boxes=False, legend=True, alpha=1)
    above, below = drawing[:300], drawing[300:]
    for label, is_named in ((FACE, True), (hat, True), (glasses, False)):
        color = CIHP_PART_LABELS.colors[label]
        assert (below == color).all(axis=2).any() == is_named
    maps[0, 1] = FACE
    without = make_parsed(maps, [0.5], image).plot(boxes=False, alpha=1)
    assert (above != without).any()  # it is drawn all the same


def test_a_large_picture_is_shown_small_in_a_notebook():
    maps = np.zeros((1, 1500, 3000), dtype=np.uint8)
    parsed = make_parsed(maps, [0.5], np.zeros((1500, 3000, 3), dtype=np.uint8))
    assert Image.open(io.BytesIO(parsed._repr_png_())).size == (1000, 500)


def test_without_an_image(parsed):
    parsed.image = None
    for use in (parsed.plot, parsed[0].crop):
        with pytest.raises(ValueError, match=r"set \.image"):
            use()
    assert parsed._repr_png_() is None
    parsed.image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert parsed[0].crop().shape == (8, 6, 4) and parsed.plot().shape == (HEIGHT, WIDTH, 3)


def best_time(function) -> float:
    times = []
    for _ in range(10):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def test_a_person_in_a_large_picture_costs_what_the_window_does():
    """600 x 250 pixels and 19 parts in 12 megapixels."""
    part_map = torch.zeros((600, 250), dtype=torch.uint8)
    for label in range(1, 20):
        part_map[30 * label : 30 * label + 28, 10:240] = label
    times = []
    for height, width in ((600, 250), (3000, 4000)):
        windows = torch.tensor([[0, 0, 250, 600]])
        instances = Instances(
            (height, width),
            pred_boxes=Boxes(windows.float()),
            scores=torch.ones(1),
            pred_part_maps=PartMaps([part_map], windows, (height, width)),
        )
        (person,) = ParsedImage(instances, CIHP_PART_LABELS)
        assert len(person.part_rles()) == 19
        times.append([best_time(f) for f in (person.rle, person.part_rles, person.polygons)])
    for small, large in zip(*times):
        assert large < 5 * small

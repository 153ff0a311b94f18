"""The COCO JSON of registered data sets, and Detectron2's COCOEvaluator on it."""

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators
from detectron2.structures import Boxes, Instances
from detectron2.utils.file_io import PathManager
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.datasets import (
    generated_coco,
    register_cihp,
    register_coco_parsing,
    register_lv_mhp_v2,
    register_vip,
)
from aiparsing_d2.data.datasets.generated_coco import coco_json_file
from aiparsing_d2.drawn_scenes.__main__ import main as draw
from aiparsing_d2.evaluation import ParsingEvaluator
from aiparsing_d2.structures import PartMaps, PersonMasks
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

NAME = "generated_coco_test"


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    yield
    if NAME in DatasetCatalog:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def json_file():
    return PathManager.get_local_path(MetadataCatalog.get(NAME).json_file)


def perfect_output(record):
    """What a model that is always right would give, its masks from the part maps."""
    people = read_person_annotations(record)
    maps = people.person_maps
    part_maps = PartMaps.from_full(np.where(maps == 255, 16, maps).astype(np.uint8))
    n = len(part_maps)
    return Instances(
        (record["height"], record["width"]),
        pred_boxes=Boxes(torch.as_tensor(people.boxes, dtype=torch.float32)),
        scores=torch.linspace(0.9, 0.5, n),
        pred_classes=torch.zeros(n, dtype=torch.int64),
        pred_part_maps=part_maps,
        pred_masks=PersonMasks(part_maps),
    )


def test_content(two_people):
    register_cihp(NAME, two_people.root, "train")
    content = json.loads(Path(json_file()).read_text())
    (image,) = content["images"]
    (record,) = DatasetCatalog.get(NAME)
    assert image == {
        "id": "0000001",
        "file_name": record["file_name"],
        "height": 4,
        "width": 6,
    }
    masks = [mask_util.decode(a.pop("segmentation")).tolist() for a in content["annotations"]]
    # The second person's ignored pixel is theirs.
    assert masks == [
        [[0, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0] * 6],
        [[0] * 6, [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1], [0] * 6],
    ]
    common = {"image_id": "0000001", "category_id": 1, "iscrowd": 0}
    assert content["annotations"] == [
        {"id": 1, "bbox": [0, 0, 3, 3], "area": 7, **common},
        {"id": 2, "bbox": [4, 1, 2, 2], "area": 4, **common},
    ]
    assert content["categories"][0]["parsing"] == list(CIHP_PART_LABELS.names)
    assert content["categories"][0]["id"] == 1
    with PathManager.open(MetadataCatalog.get(NAME).json_file) as file:
        assert len(json.load(file)["annotations"]) == 2
    assert PathManager.isfile(MetadataCatalog.get(NAME).json_file)


def test_it_is_made_once_and_anew_when_the_data_change(two_people, category_map, monkeypatch):
    register_cihp(NAME, two_people.root, "train")
    calls = []
    make = generated_coco._make_content
    monkeypatch.setattr(
        generated_coco, "_make_content", lambda *args: calls.append(1) or make(*args)
    )
    first = json_file()
    assert json_file() == first and len(calls) == 1
    category_map[0, 1] = 0
    path = two_people.write("Category_ids", "0000001.png", category_map)
    os.utime(path, ns=(1, 1))
    second = json_file()
    assert len(calls) == 2 and COCO(second).anns[1]["area"] == 6
    assert not Path(first).exists()  # nothing piles up


def test_without_a_cache(two_people, tmp_path, monkeypatch):
    monkeypatch.setenv("AIPARSING_INDEX_CACHE", "0")
    register_cihp(NAME, two_people.root, "train")
    assert len(COCO(json_file()).anns) == 2
    assert not (tmp_path / "cache" / "aiparsing_d2").exists()


def _ask(barrier, queue):
    barrier.wait()
    queue.put(coco_json_file(NAME))


def test_several_processes_at_once(two_people, monkeypatch, tmp_path):
    register_cihp(NAME, two_people.root, "train")
    make = generated_coco._make_content

    def counted(*args):
        with open(tmp_path / "calls", "a") as file:
            file.write("x")
        return make(*args)

    monkeypatch.setattr(generated_coco, "_make_content", counted)
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_ask, args=(barrier, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    files = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(files) == 1 and len(COCO(files.pop()).anns) == 2
    assert (tmp_path / "calls").read_text() == "x"


def test_a_test_split_has_no_annotations(two_people, tmp_path):
    folder = two_people.root
    (folder / "Training").rename(folder / "Testing")
    (folder / "train_id.txt").rename(folder / "test_id.txt")
    register_cihp(NAME, folder, "test")
    assert "annotations" not in json.loads(Path(json_file()).read_text())
    COCOEvaluator(NAME, distributed=False)


def test_a_json_file_of_the_users_own_is_kept(two_people):
    register_cihp(NAME, two_people.root, "train", json_file="own.json")
    assert MetadataCatalog.get(NAME).json_file == "own.json"


def register_drawn(layout, root):
    sizes = ["--size", "64", "64", "--train", "1", "--val", "1" if layout == "vip" else "2"]
    if layout == "vip":
        sizes += ["--annotated-frames", "2"]
    assert draw(["--output", str(root), "--layout", layout, "--workers", "1", *sizes]) == 0
    register = {"cihp": register_cihp, "lv_mhp_v2": register_lv_mhp_v2, "vip": register_vip}
    register[layout](NAME, root, "val")


def register_json(root, two_people):
    """The image of ``two_people`` in COCO's format."""
    entry = {"id": 7, "file_name": "0000001.png", "height": 4, "width": 6}
    maps = {
        "category_file_name": "Category_ids/0000001.png",
        "human_file_name": "Human_ids/0000001.png",
    }
    content = {"images": [{**entry, **maps}], "annotations": []}
    root.mkdir()
    (root / "own.json").write_text(json.dumps(content))
    folder = two_people.folder
    register_coco_parsing(NAME, root / "own.json", folder / "Images", folder, CIHP_PART_LABELS)


@pytest.mark.parametrize("kind", ["cihp", "lv_mhp_v2", "vip", "coco"])
def test_detectron2s_evaluator_beside_ours(kind, tmp_path, two_people):
    if kind == "coco":
        register_json(tmp_path / "drawn", two_people)
    else:
        register_drawn(kind, tmp_path / "drawn")
    records = DatasetCatalog.get(NAME)
    evaluators = DatasetEvaluators(
        [
            ParsingEvaluator(NAME, distributed=False, box_group=None),
            COCOEvaluator(NAME, distributed=False),
        ]
    )
    evaluators.reset()
    for record in records:
        evaluators.process([record], [{"instances": perfect_output(record)}])
    results = evaluators.evaluate()
    assert set(results) == {"parsing", "bbox", "segm"}
    assert results["bbox"]["AP"] == results["segm"]["AP"] == pytest.approx(100)
    assert results["parsing"]["APp50"] == pytest.approx(100)


def test_the_figures_follow_the_masks(two_people, category_map):
    """One of two people is missed, and half of the other one: IoU 4/7."""
    register_cihp(NAME, two_people.root, "train")
    (record,) = DatasetCatalog.get(NAME)
    output = perfect_output(record)[[True, False]]
    part_map = output.pred_part_maps.to_full()
    part_map[0, 2:] = 0
    part_map[0, 0, 1] = 0
    output.pred_masks = PersonMasks(PartMaps.from_full(part_map))
    evaluator = COCOEvaluator(NAME, tasks=("segm",), distributed=False)
    evaluator.reset()
    evaluator.process([record], [{"instances": output}])
    segm = evaluator.evaluate()["segm"]
    # COCO samples the precision at 101 recalls, of which 51 are at most 1/2; IoU thresholds
    # .50 and .55 of ten are passed.
    assert segm["AP50"] == pytest.approx(100 * 51 / 101)
    assert segm["AP75"] == pytest.approx(0)
    assert segm["AP"] == pytest.approx(100 * 51 / 101 * 2 / 10)


@pytest.mark.parametrize("box_group", ["bbox", "person_bbox", None])
def test_the_group_of_box_ap(two_people, box_group, tmp_path):
    register_cihp(NAME, two_people.root, "train")
    evaluator = ParsingEvaluator(
        NAME, distributed=False, box_group=box_group, output_dir=str(tmp_path / "out")
    )
    (record,) = DatasetCatalog.get(NAME)
    evaluator.process([record], [{"instances": perfect_output(record)}])
    results = evaluator.evaluate()
    assert set(results) == {"parsing"} | ({box_group} - {None})
    if box_group:
        assert results[box_group]["AP"] == pytest.approx(100)
    written = json.loads((tmp_path / "out" / "parsing_results.json").read_text())
    assert set(written["results"]) == set(results)


def test_the_groups_must_differ(two_people):
    register_cihp(NAME, two_people.root, "train")
    with pytest.raises(ValueError, match="box_group"):
        ParsingEvaluator(NAME, box_group="parsing")


def test_numpy_reads_the_masks_of_a_registered_set(two_people):
    register_cihp(NAME, two_people.root, "train")
    (record,) = DatasetCatalog.get(NAME)
    masks = np.asarray(perfect_output(record).pred_masks)
    coco = COCO(json_file())
    np.testing.assert_array_equal(masks, [coco.annToMask(a) > 0 for a in coco.anns.values()])

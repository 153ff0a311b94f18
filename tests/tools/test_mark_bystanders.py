"""Bystanders found by a tiny untrained model, whose detections are anywhere."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes
from PIL import Image

from aiparsing_d2.data.datasets import load_cihp, register_cihp
from aiparsing_d2.engine import apply_overrides

REPOSITORY = Path(__file__).parents[2]
DEMO = str(REPOSITORY / "configs/demo/aiparsing_tiny_FPN_drawn_cihp.py")
# Untrained, the detector would not believe in anything.
OVERRIDES = [
    "dataloader.test.mapper.augmentations.0.short_edge_length=128",
    "model.proposal_generator.head.num_convs=1",
    "+model.proposal_generator.head.prior_prob=0.4",
    "train.device=cpu",
]
PERSON = [20, 8, 60, 60]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(
        "mark_bystanders", REPOSITORY / "tools" / "mark_bystanders.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(cihp_folder):
    """A registered split of two 64x96 images of noise, one with a person."""
    rng = np.random.default_rng(0)
    human_map = np.zeros((64, 96), np.uint8)
    human_map[PERSON[1] : PERSON[3], PERSON[0] : PERSON[2]] = 1
    for image_id, people in (("somebody", human_map), ("nobody", 0 * human_map)):
        image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        cihp_folder.add(image_id, 13 * people, people, image)
    register_cihp("bystander_test", cihp_folder.root, "train")
    yield cihp_folder.root
    DatasetCatalog.remove("bystander_test")
    MetadataCatalog.remove("bystander_test")


@pytest.fixture
def arguments(root, tmp_path):
    torch.manual_seed(0)
    model = instantiate(apply_overrides(LazyConfig.load(DEMO), OVERRIDES).model)
    weights = tmp_path / "weights.pth"
    torch.save({"model": model.state_dict()}, weights)
    options = ["--config-file", DEMO, "--weights", str(weights), "--dataset", "bystander_test"]
    return [*options, *OVERRIDES]


def test_the_boxes_are_those_of_the_next_training(tool, arguments, root):
    tool.main(["--threshold", "0.05", *arguments])
    everybody = {r["image_id"]: r["ignore_boxes"] for r in load_cihp(root, "train")}
    assert everybody == json.loads((root / "ignore_boxes.json").read_text())
    with Image.open(root / "ignore_boxes.png") as sheet:
        assert len(sheet.getcolors(sheet.width * sheet.height)) > 10
    assert len(everybody["nobody"]) > len(everybody["somebody"]) > 0
    area = (PERSON[2] - PERSON[0]) * (PERSON[3] - PERSON[1])
    for x0, y0, x1, y1 in everybody["somebody"]:
        width = min(x1, PERSON[2]) - max(x0, PERSON[0])
        height = min(y1, PERSON[3]) - max(y0, PERSON[1])
        shared, size = max(width, 0) * max(height, 0), (x1 - x0) * (y1 - y0)
        rounding = 0.1 * (x1 - x0 + y1 - y0)
        assert shared < 0.5 * size + rounding
        assert shared < 0.3 * (area + size - shared) + rounding
    assert max(x1 for boxes in everybody.values() for _, _, x1, _ in boxes) > 64  # original pixels


def test_nothing_is_overwritten(tool, arguments, root):
    (root / "ignore_boxes.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"ignore_boxes.json exists; move it away"):
        tool.main(arguments)
    assert (root / "ignore_boxes.json").read_text() == "{}"


def test_images_in_a_linked_folder_are_marked_in_the_data_set_that_lists_them(
    tool, cihp_folder, tmp_path
):
    cihp_folder.add("0000001", np.ones((4, 6), np.uint8), np.ones((4, 6), np.uint8))
    own = tmp_path / "own"
    own.mkdir()
    (own / "Training").symlink_to(cihp_folder.root / "Training")
    (own / "train_id.txt").write_text("0000001\n")
    (record,) = load_cihp(own, "train")
    assert tool.default_output(record) == own / "ignore_boxes.json"


def test_nobody_above_the_threshold(tool, arguments, root, tmp_path):
    output = tmp_path / "elsewhere" / "boxes.json"
    options = ["--threshold", "0.999", "--num-images", "1", "--output", str(output)]
    tool.main([*options, *arguments])
    assert output.read_text() == "{}"
    assert not (root / "ignore_boxes.json").exists()


def test_a_part_of_the_images_needs_an_output_of_its_own(tool, arguments, capsys):
    with pytest.raises(SystemExit):
        tool.main(["--num-images", "1", *arguments])
    assert "give it an --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([100, 0, 140, 100], True),  # elsewhere
        ([0, 0, 40, 100], False),  # the person
        ([20, 0, 60, 100], False),  # IoU 20/60, half inside
        ([22, 0, 62, 100], True),  # 18/62 = .29, 18/40 inside
        ([5, 5, 15, 15], False),  # small and inside: IoU .025
        ([35, 0, 45, 10], False),  # half inside
        ([35.2, 0, 45.2, 10], True),
        ([-200, 0, 200, 100], True),  # far larger: IoU .1
    ],
)
def test_who_is_a_bystander(tool, box, expected):
    detected = Boxes(torch.tensor([box], dtype=torch.float32))
    person = [0.0, 0, 40, 100]
    for labelled in ([person], [[300.0, 0, 400, 100], person]):
        assert tool.is_bystander(detected, Boxes(torch.tensor(labelled))).tolist() == [expected]
    assert tool.is_bystander(detected, Boxes(torch.zeros(0, 4))).tolist() == [True]

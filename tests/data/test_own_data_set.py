"""A data set with parts of its own, registered by the very lines of datasets/README.md."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from PIL import Image

from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.evaluation import ParsingEvaluator
from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import distinct_colors, get_part_labels

README = Path(__file__).parents[2] / "datasets" / "README.md"

# A person with Head 1, Left-hand 2, Right-hand 3 and Body 4, and one with a Left-hand only.
CATEGORY_MAP = np.array([[0, 1, 0, 0, 2], [3, 4, 2, 0, 2]], dtype=np.uint8)
HUMAN_MAP = np.array([[0, 1, 0, 0, 2], [1, 1, 1, 0, 2]], dtype=np.uint8)


@pytest.fixture
def registered(tmp_path):
    for split, folder in (("train", "Training"), ("val", "Validation")):
        for name, pixels in (
            ("Images", np.zeros((2, 5, 3), dtype=np.uint8)),
            ("Category_ids", CATEGORY_MAP),
            ("Human_ids", HUMAN_MAP),
        ):
            (tmp_path / folder / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / folder / name / "a.png")
        (tmp_path / f"{split}_id.txt").write_text("a\n")

    section = README.read_text(encoding="utf-8").partition("## Your own data\n")[2]
    code = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[0]
    assert "/path/to/my_data" in code
    assert len(code.strip().splitlines()) <= 12
    exec(code.replace("/path/to/my_data", str(tmp_path)), {})
    yield
    for name in ("my_train", "my_val"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_the_mapper_flips_its_own_pairs(registered):
    mapper = ParsingDatasetMapper(
        True, augmentations=[T.RandomFlip(1.0)], part_labels=get_part_labels("my_train")
    )
    (record,) = DatasetCatalog.get("my_train")
    instances = mapper(record)["instances"]
    assert instances.gt_part_maps.to_full().tolist() == [
        [[0, 0, 0, 1, 0], [0, 0, 3, 4, 2]],
        [[3, 0, 0, 0, 0], [3, 0, 0, 0, 0]],
    ]


def test_the_evaluator_knows_its_parts(registered):
    """The first person is right but for the body, the second one is missed."""
    evaluator = ParsingEvaluator("my_val", distributed=False)
    (record,) = DatasetCatalog.get("my_val")
    part_map = np.where(HUMAN_MAP == 1, CATEGORY_MAP, 0)
    part_map[part_map == 4] = 0
    instances = Instances((2, 5))
    instances.pred_part_maps = PartMaps.from_full(torch.as_tensor(part_map[None]))
    instances.pred_boxes = Boxes(torch.tensor([[0.0, 0.0, 3.0, 2.0]]))
    instances.scores = torch.tensor([0.9])
    evaluator.process([record], [{"instances": instances}])
    results = evaluator.evaluate()["parsing"]

    # Of the background, 4 pixels are right; the body and the second person's two come on top.
    ious = {"Background": 4 / 7, "Head": 1, "Left-hand": 1 / 3, "Right-hand": 1, "Body": 0}
    for name, iou in ious.items():
        assert results[f"IoU-{name}"] == pytest.approx(100 * iou)
    assert results["mIoU"] == pytest.approx(100 * np.mean(list(ious.values())))
    # One of two people is found, with three of four parts.
    assert results["APp50"] == pytest.approx(50)
    assert results["PCP50"] == pytest.approx(100 * 0.75 / 2)


def test_colours_that_the_readme_offers():
    assert len(set(distinct_colors(5))) == 5

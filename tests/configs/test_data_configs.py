"""The data configs: every one names splits that fit together, and differs in nothing else."""

import ast
import re
from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog

from aiparsing_d2.drawn_scenes.cihp_writer import CIHPRequest
from aiparsing_d2.structures.part_labels import (
    CIHP_PART_LABELS,
    LV_MHP_V2_PART_LABELS,
    get_part_labels,
)

FOLDER = Path(__file__).parents[2] / "configs" / "common" / "data"

# Config -> label set, and the score from which on people count for mIoU.
DATA_SETS = {
    "cihp": (CIHP_PART_LABELS, 0.3),
    "lv_mhp_v2": (LV_MHP_V2_PART_LABELS, 0.005),
    "vip": (CIHP_PART_LABELS, 0.3),
    "ccp": (CIHP_PART_LABELS, 0.3),
    "drawn_cihp": (CIHP_PART_LABELS, 0.3),
    "drawn_lv_mhp_v2": (LV_MHP_V2_PART_LABELS, 0.005),
    "drawn_vip": (CIHP_PART_LABELS, 0.3),
}


def test_every_data_config_is_listed_here():
    mixes = {"ccp_and_drawn"}  # tests/data/test_repeat_factors.py
    assert {path.stem for path in FOLDER.glob("*.py")} == set(DATA_SETS) | mixes


@pytest.mark.parametrize("name", DATA_SETS)
def test_splits_labels_and_sizes(name):
    part_labels, semseg_thresh = DATA_SETS[name]
    dataloader = LazyConfig.load(str(FOLDER / f"{name}.py")).dataloader
    train, test = dataloader.train, dataloader.test
    assert (train.dataset.names, test.dataset.names) == (f"{name}_train", f"{name}_val")
    for split in (train, test):
        assert split.dataset.names in DatasetCatalog
        assert not split.dataset.filter_empty
        assert get_part_labels(split.dataset.names) == part_labels
        assert MetadataCatalog.get(split.dataset.names).semseg_thresh == semseg_thresh
    mapper = instantiate(train.mapper)
    assert mapper.part_labels == part_labels
    if name != "ccp":  # which has crops and colours of its own, below
        resize, flip = mapper.augmentations.augs
        assert resize.short_edge_length == [640, 800] and resize.is_range
        assert resize.max_size == 1333
        assert flip.prob == 0.5 and flip.horizontal
    (resize,) = instantiate(test.mapper).augmentations.augs
    assert list(resize.short_edge_length) == [800, 800] and resize.max_size == 1333
    assert dataloader.evaluator.dataset_name == f"{name}_val"


def test_ccp_is_trained_on_people_of_all_sizes_cut_at_every_side():
    mapper = LazyConfig.load(str(FOLDER / "ccp.py")).dataloader.train.mapper
    mapper = instantiate(mapper)
    assert mapper.recompute_boxes and list(mapper.copy_paste.records.names) == ["ccp_train"]
    assert mapper.copy_paste.part_labels == CIHP_PART_LABELS
    kinds = [type(augmentation).__name__ for augmentation in mapper.augmentations.augs]
    assert kinds[:4] == ["RandomApply", "ResizeScale", "FixedSizeCrop", "RandomFlip"]
    part, scale, crop, flip = mapper.augmentations.augs[:4]
    # Half of the pictures whole; of the others a quarter of each side or more.
    assert part.prob == 0.5
    assert (part.aug.crop_type, tuple(part.aug.crop_size)) == ("relative_range", (0.25, 0.25))
    assert (scale.min_scale, scale.max_scale) == (0.6, 1.15)
    assert (scale.target_height, scale.target_width) == tuple(crop.crop_size) == (512, 384)
    assert not crop.pad
    assert flip.prob == 0.5 and flip.horizontal


@pytest.mark.parametrize("name", [name for name in DATA_SETS if name.startswith("drawn_")])
def test_the_command_in_the_docstring_draws_this_layout(name):
    docstring = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    command = re.search(r"aiparsing_d2\.drawn_scenes(?: --layout (\w+))?``", docstring)
    assert (command[1] or CIHPRequest.layout) == name.removeprefix("drawn_")

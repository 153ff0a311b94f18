import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from aiparsing_d2.data.datasets import register_cihp

TOOL = Path(__file__).parents[2] / "tools" / "visualize_data.py"

CONFIG = """
from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_train_loader,
    get_detection_dataset_dicts,
    transforms as T,
)
from omegaconf import OmegaConf

from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.structures.part_labels import get_part_labels

dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="tiny_train", filter_empty=False),
    mapper=L(ParsingDatasetMapper)(
        is_train=True,
        augmentations=[L(T.RandomFlip)(prob=1.0)],
        image_format="BGR",
        part_labels=L(get_part_labels)(dataset_names="${...dataset.names}"),
    ),
    total_batch_size=1,
    num_workers=2,
)
"""


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("visualize_data", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny_train(cihp_folder):
    """A registered data set of a face in the left half of a bright and of a dark image."""
    category_map = np.zeros((40, 100), dtype=np.uint8)
    category_map[:, :50] = 13
    for image_id, value in (("bright", 200), ("dark", 20)):
        image = np.full((40, 100, 3), value, dtype=np.uint8)
        cihp_folder.add(image_id, category_map, category_map.clip(max=1), image)
    register_cihp("tiny_train", cihp_folder.root, "train")
    yield cihp_folder
    DatasetCatalog.remove("tiny_train")
    MetadataCatalog.remove("tiny_train")


def blue_columns(path):
    """Columns, relative to the right picture, in which the blue of the face is seen."""
    sheet = np.asarray(Image.open(path)).astype(int)
    columns = np.flatnonzero(sheet[30, :, 2] - sheet[30, :, 0] > 100) - (2 * 12 + 100)
    return columns.min(), columns.max()


def test_annotations(tool, tiny_train, tmp_path):
    out = tmp_path / "out"
    tool.main(["--source", "annotation", "--dataset", "tiny_train", "--output-dir", str(out)])
    assert [path.name for path in sorted(out.iterdir())] == ["0000_bright.png", "0001_dark.png"]
    # Outline and box take the outermost column.
    assert blue_columns(out / "0000_bright.png") == (1, 48)


def test_annotations_of_a_data_set_that_a_config_registers(tool, cihp_folder, two_people, tmp_path):
    config_file = tmp_path / "config.py"
    config_file.write_text(
        "from aiparsing_d2.data.datasets import register_cihp\n"
        "from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS\n"
        f"register_cihp('of_a_config', {str(cihp_folder.root)!r}, 'train', "
        "part_labels=CIHP_PART_LABELS)\n" + CONFIG
    )
    out = tmp_path / "out"
    args = ["--source", "annotation", "--config-file", str(config_file), "--output-dir", str(out)]
    try:
        tool.main([*args, "--dataset", "of_a_config"])
    finally:
        DatasetCatalog.remove("of_a_config")
        MetadataCatalog.remove("of_a_config")
    assert [path.name for path in out.iterdir()] == ["0000_0000001.png"]


def test_data_loader_shows_the_augmented_samples(tool, tiny_train, tmp_path):
    config_file = tmp_path / "config.py"
    config_file.write_text(CONFIG)
    out = tmp_path / "out"
    args = ["--source", "dataloader", "--config-file", str(config_file), "--output-dir", str(out)]
    tool.main([*args, "--num-images", "3"])
    pictures = sorted(out.iterdir())
    assert len(pictures) == 3
    for path in pictures:
        assert blue_columns(path) == (51, 98)

    overrides = ["dataloader.train.mapper.augmentations.0.prob=0.0"]
    args[-1] = str(tmp_path / "unflipped")
    tool.main([*args, "--num-images", "1", *overrides])
    (picture,) = (tmp_path / "unflipped").iterdir()  # which one, the sampler's seed decides
    assert blue_columns(picture) == (1, 48)


def test_ignore_boxes_are_dashed_in_both_sources(tool, tiny_train, tmp_path):
    boxes = {"bright": [[60, 4, 90, 36]], "dark": [[60, 4, 90, 36]]}
    (tiny_train.root / "ignore_boxes.json").write_text(json.dumps(boxes))
    config_file = tmp_path / "config.py"
    config_file.write_text(CONFIG)
    sources = {
        "annotation": (["--dataset", "tiny_train"], 60),
        "dataloader": (["--config-file", str(config_file)], 10),  # mirrored: 100 - 90
    }
    for source, (args, left) in sources.items():
        out = tmp_path / source
        tool.main(["--source", source, *args, "--num-images", "1", "--output-dir", str(out)])
        (picture,) = out.iterdir()
        sheet = np.asarray(Image.open(picture)).astype(int)
        drawing = sheet[12:52, 124:224]
        row = drawing[20]  # of pixels of one grey but the two sides and the face
        is_grey = np.ptp(row, axis=1) == 0
        sides = [
            x for x in range(left, left + 30) if is_grey[x] and (row[x] != row[left + 5]).any()
        ]
        assert sides == [left, left + 29]
        top = drawing[4, left : left + 30, 0]
        assert len(set(top.tolist())) == 2  # dashes


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--source", "dataloader", "--dataset", "cihp_val"], "use --config-file"),
        (["--source", "annotation"], "give --config-file, or --dataset"),
    ],
)
def test_arguments_that_do_not_go_together(tool, capsys, args, message):
    with pytest.raises(SystemExit):
        tool.parse_args(args)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "annotation", "--dataset", "nope"], "visualize_data: \\w.*nope"),
        (["--source", "dataloader", "--config-file", "nope.py"], "visualize_data: .*nope.py"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(tool, arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        tool.main([*arguments, "--output-dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()

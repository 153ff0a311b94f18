"""Registering a data set again, as config files do that are run again."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from aiparsing_d2.data.datasets import register_cihp, register_parsing_dataset
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, LV_MHP_V2_PART_LABELS

NAME = "registration_test"
FILE = """
def lister(number, default=0):
    def load():
        return [number]
    return load
"""


@pytest.fixture(autouse=True)
def nothing_stays():
    yield
    if NAME in DatasetCatalog:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def run_file():
    namespace = {}
    exec(compile(FILE, "config.py", "exec"), namespace)
    return namespace["lister"]


def test_the_same_thing_again():
    for _ in range(2):
        register_cihp(NAME, "folder", "train")
    assert DatasetCatalog[NAME].load.args[:2] == ("folder", "train")


@pytest.mark.parametrize(
    "root, split, labels, metadata",
    [
        ("other", "train", CIHP_PART_LABELS, {}),
        ("folder", "val", CIHP_PART_LABELS, {}),
        ("folder", "train", LV_MHP_V2_PART_LABELS, {}),
        ("folder", "train", CIHP_PART_LABELS, {"semseg_thresh": 0.1}),
    ],
)
def test_another_thing_under_the_name(root, split, labels, metadata):
    register_cihp(NAME, "folder", "train")
    with pytest.raises(ValueError, match=f"'{NAME}' is registered already.*choose another name"):
        register_cihp(NAME, root, split, labels, **metadata)
    assert DatasetCatalog[NAME].load.args[:2] == ("folder", "train")
    assert MetadataCatalog.get(NAME).semseg_thresh == 0.3


def test_a_function_of_a_file_that_is_run_again():
    register_parsing_dataset(NAME, run_file()(1), CIHP_PART_LABELS)
    register_parsing_dataset(NAME, run_file()(1), CIHP_PART_LABELS)
    for other in (run_file()(2), run_file(), list):
        with pytest.raises(ValueError, match="registered already"):
            register_parsing_dataset(NAME, other, CIHP_PART_LABELS)

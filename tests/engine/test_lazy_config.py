"""LazyConfigs are read, yacs configs are told apart."""

import shutil

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog

from aiparsing_d2.data.datasets import register_cihp
from aiparsing_d2.engine import ConfigError, load_lazy_config, register_by_config_file
from aiparsing_d2.model_zoo import get_config_file
from aiparsing_d2.structures.part_labels import PartLabels, get_part_labels

NAME = "cihp/aiparsing_R_50_FPN_cihp_75ep"


def test_python_files_and_yaml_saved_from_them(tmp_path):
    config = load_lazy_config(get_config_file(NAME))
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    assert load_lazy_config(str(tmp_path / "config.yaml")).train == config.train
    assert "SGD" in load_lazy_config(get_config_file("common/optim"))  # in capitals too


def test_a_yacs_config_is_answered_with_the_lazy_config_of_its_name(tmp_path):
    file = get_config_file(f"yaml/{NAME}.yaml")
    with pytest.raises(ValueError, match="is a yacs config.*get_cfg") as error:
        load_lazy_config(file)
    assert str(error.value).startswith(file)
    assert str(error.value).endswith(f"here {get_config_file(NAME)}")

    copy = shutil.copy(file, tmp_path / "own.yaml")
    with pytest.raises(ValueError, match="give a LazyConfig$"):
        load_lazy_config(str(copy))


def test_calls_that_register_data_sets_are_made_when_a_yaml_is_read(tmp_path):
    labels = {"names": ["Background", "Left", "Right"], "flip_pairs": [[1, 2]]}
    labels["colors"] = [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    call = L(register_cihp)(
        name="registered_by_yaml", root="folder", split="val", part_labels=L(PartLabels)(**labels)
    )
    config = load_lazy_config(get_config_file(NAME))
    config.dataloader.register = [call]
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    assert "registered_by_yaml" not in DatasetCatalog
    try:
        for _ in range(2):
            load_lazy_config(str(tmp_path / "config.yaml"))
        assert get_part_labels("registered_by_yaml") == PartLabels(**labels)
    finally:
        DatasetCatalog.remove("registered_by_yaml")
        MetadataCatalog.remove("registered_by_yaml")


def test_a_registering_config_file_that_is_gone(tmp_path):
    with pytest.raises(ConfigError, match="gone.py, which registers the data sets of this run"):
        register_by_config_file(str(tmp_path / "gone.py"))

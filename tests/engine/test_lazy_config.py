"""LazyConfigs are read, yacs configs are told apart."""

import shutil

import pytest
from detectron2.config import LazyConfig

from aiparsing_d2.engine import load_lazy_config
from aiparsing_d2.model_zoo import get_config_file

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

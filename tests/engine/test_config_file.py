"""No code runs from a YAML config, and nothing is built from what no model is built from."""

from __future__ import annotations

import pickle

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.modeling.backbone.resnet import BasicBlock
from omegaconf import OmegaConf
from torch import nn

from aiparsing_d2 import model_zoo
from aiparsing_d2.engine import (
    ConfigError,
    apply_overrides,
    check_targets,
    load_lazy_config,
    read_config_file,
    register_by_config_file,
    saving_whole_configs,
)


@pytest.mark.fault("weights or a YAML config from somebody else hold code")
@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [{mark}]",
        "!!python/object/new:os.mkdir [{mark}]",
        "!!python/object:pathlib.Path {{}}",
        "!!python/module:antigravity ''",
        "!!python/name:os.mkdir ''",
        "!!python/name:torch.os.mkdir ''",
        "!!python/name:builtins.eval ''",
    ],
)
@pytest.mark.parametrize("read", [load_lazy_config, register_by_config_file])
def test_yaml_runs_no_code(tmp_path, value, read):
    mark = tmp_path / "ran"
    config = tmp_path / "config.yaml"
    config.write_text("model: {}\ntrain: " + value.format(mark=mark) + "\n")
    with pytest.raises(ConfigError, match="config.yaml, line 2: ") as error:
        read(str(config))
    assert "\n" not in str(error.value)
    assert not mark.exists()


def test_what_is_saved_is_read_back_the_same(tmp_path):
    """With a class that is an argument, not what is called, and a text like a number."""
    config = OmegaConf.create(
        {
            "model": L(nn.Conv2d)(in_channels=3, out_channels=4, kernel_size=[1, 3]),
            "stages": L(nn.Sequential)(block=BasicBlock),
            "train": {"name": "1e3", "lr": 1e-3, "none": None, "ünicode": "ü"},
        },
        flags={"allow_objects": True},
    )
    file = tmp_path / "run" / "config.yaml"
    with saving_whole_configs():
        LazyConfig.save(config, str(file))
    read = read_config_file(str(file))
    assert read == LazyConfig.load(str(file))
    assert read.stages.block is BasicBlock and read.train.name == "1e3"
    assert [file.name for file in file.parent.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "posix.system",
        "subprocess.run",
        "shutil.rmtree",
        "builtins.eval",
        "eval",
        "importlib.import_module",
        "pickle.loads",
        "torch.os.system",
        "torch.sys.modules.pop",
        "torch.load",
        "torch.hub.load",
        "yaml.unsafe_load",
        "numpy.load",
        "detectron2.config.LazyConfig.load",
        "aiparsing_d2.engine.config_file.LazyConfig.load",
        eval,
        pickle.loads,
    ],
)
def test_targets_of_no_model_are_refused(target):
    for config in (
        {"model": {"_target_": target}},
        {"model": {"backbone": [{"x": 1}, {"_target_": target}]}},
        {"x": {"_target_": "${y}"}, "y": target},
    ):
        with pytest.raises(ConfigError, match="_target_: .* is nothing that a model is built from"):
            check_targets(OmegaConf.create(config, flags={"allow_objects": True}))


def test_they_are_refused_before_anything_is_built(tmp_path):
    mark = tmp_path / "ran"
    call = {"_target_": "os.mkdir", "path": str(mark)}
    for suffix, text in ((".yaml", f"dataloader: {{register: [{call}]}}"), (".py", None)):
        config = tmp_path / f"config{suffix}"
        config.write_text(text or f"dataloader = dict(register=[{call}])")
        with pytest.raises(ConfigError, match="dataloader.register.0._target_: os.mkdir"):
            load_lazy_config(str(config))
    config = OmegaConf.create({"model": {"_target_": "torch.nn.ReLU"}})
    with pytest.raises(ConfigError, match="model._target_: os.mkdir"):
        apply_overrides(config, ["model._target_=os.mkdir"])
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    ["torch.nn.Conv2d", "torch.relu", "torch.nn.functional.relu", "torch.optim.SGD", "dict"]
    + ["collections.OrderedDict", "functools.partial", "torchvision.ops.nms", "not_installed.X"],
)
def test_other_targets_pass(target):
    check_targets(OmegaConf.create({"a": {"_target_": target}, "b": "???", "c": "${b}"}))


def test_configs_of_the_zoo_pass():
    names = [name for name in model_zoo.list_configs() if not name.endswith(".yaml")]
    for name in names[::6]:
        check_targets(LazyConfig.load(model_zoo.get_config_file(name)))

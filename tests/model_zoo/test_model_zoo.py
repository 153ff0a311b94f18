"""Configs by name, from the clone and from a wheel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, LazyConfig
from omegaconf import DictConfig, OmegaConf

from aiparsing_d2 import model_zoo
from aiparsing_d2.engine import ConfigError
from aiparsing_d2.modeling import AIParsing

REPOSITORY = Path(__file__).parents[2]
NAME = "cihp/aiparsing_R_50_FPN_cihp_75ep"
YAML_NAME = f"yaml/{NAME}.yaml"


def test_experiments_are_listed_and_their_parts_are_not():
    names = model_zoo.list_configs()
    assert {NAME, YAML_NAME, "ablations/table_vi/baseline"} <= set(names)
    assert len(set(names)) == len(names)
    # Every file is an experiment or a part of some.
    parts = {
        path.relative_to(REPOSITORY / "configs").as_posix()
        for pattern in ("common/**/*.py", "yaml/Base-*.yaml")
        for path in (REPOSITORY / "configs").glob(pattern)
    }
    files = [
        path for suffix in ("py", "yaml") for path in REPOSITORY.glob(f"configs/**/*.{suffix}")
    ]
    assert len(names) + len(parts) == len(files)
    assert not parts & set(names)


def test_names_with_and_without_suffix():
    file = str(REPOSITORY / "configs" / f"{NAME}.py")
    assert model_zoo.get_config_file(NAME) == model_zoo.get_config_file(f"{NAME}.py") == file
    assert Path(model_zoo.get_config_file("common/models/aiparsing_fpn")).is_file()


def test_both_kinds_of_config():
    lazy, yacs = model_zoo.get_config(NAME), model_zoo.get_config(YAML_NAME)
    assert isinstance(lazy, DictConfig) and isinstance(yacs, CfgNode)
    assert lazy.train.max_iter == yacs.SOLVER.MAX_ITER == 265_125
    imagenet = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    assert lazy.train.init_checkpoint == yacs.MODEL.WEIGHTS == imagenet
    for name in (NAME, YAML_NAME):
        cfg = model_zoo.get_config(name, weights="elsewhere.pth")
        node = cfg.MODEL.WEIGHTS if name == YAML_NAME else cfg.train.init_checkpoint
        assert node == "elsewhere.pth"


def test_an_unknown_name_is_answered_with_similar_ones():
    with pytest.raises(ValueError, match=f"no config 'cihp/aiparsing_R50.*did you mean '{NAME}'"):
        model_zoo.get_config("cihp/aiparsing_R50_FPN_cihp_75ep")
    with pytest.raises(ValueError, match="MODEL_ZOO.md and list_configs"):
        model_zoo.get_config_file("?")


@pytest.mark.parametrize("name", [NAME, YAML_NAME])
def test_trained_weights_are_those_of_a_run_in_the_current_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="carries none of this config") as error:
        model_zoo.get_config(name, trained=True)
    checkpoint = tmp_path / "output/aiparsing_R_50_FPN_cihp_75ep/model_final.pth"
    assert str(checkpoint) in str(error.value) and "convert-weights" in str(error.value)

    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    cfg = model_zoo.get_config(name, trained=True)
    weights = cfg.MODEL.WEIGHTS if name == YAML_NAME else cfg.train.init_checkpoint
    assert Path(weights).resolve() == Path(model_zoo.get_checkpoint(name)).resolve() == checkpoint
    with pytest.raises(ValueError, match="not both"):
        model_zoo.get_config(name, trained=True, weights="elsewhere.pth")


def test_a_model_with_given_weights(tmp_path):
    demo = "demo/aiparsing_tiny_FPN_drawn_cihp"
    model = model_zoo.get(demo, device="cpu", weights="")
    assert isinstance(model, AIParsing) and model.training
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    again = model_zoo.get(demo, device="cpu", weights=str(tmp_path / "weights.pth"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    head = model.roi_heads.parsing_head
    head.parsing_predictor = torch.nn.ConvTranspose2d(64, 5, 4)
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"parsing_predictor.bias: \(5,\) in the file, \(20,\)"):
        model_zoo.get(demo, device="cpu", weights=str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    "name, weights",
    [
        ("vip/aiparsing_R_50_FPN_vip_25ep_from_cihp", None),
        ("cihp/aiparsing_R_50_FPN_cihp_authors", None),
        (YAML_NAME, "elsewhere.pth"),
    ],
)
def test_a_model_of_missing_weights(name, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = weights or model_zoo.get_config(name).train.init_checkpoint
    with pytest.raises(FileNotFoundError, match="convert-weights") as error:
        model_zoo.get(name, weights=weights, device="cpu")
    assert str(tmp_path / file) in str(error.value)


# Run in a folder of its own by a Python that finds the installed package first.
USE_INSTALLED = f"""
import aiparsing_d2
from aiparsing_d2 import model_zoo
from detectron2.config import LazyConfig

LazyConfig.save(model_zoo.get_config("{NAME}"), "config.yaml")
assert model_zoo.get_config("{YAML_NAME}").SOLVER.MAX_ITER == 265125
use_authors_conventions = LazyConfig.load(
    model_zoo.get_config_file("common/authors_conventions"), "use_authors_conventions"
)
cfg = model_zoo.get_config("cihp/aiparsing_R_101_FPN_cihp_75ep")
use_authors_conventions(cfg.model, cfg.dataloader, cfg.test_time_augmentation)
assert cfg.model.proposal_generator.inclusive_boxes
print(aiparsing_d2.__file__, *model_zoo.list_configs(), sep="\\n")
"""


def test_the_configs_are_installed(tmp_path):
    source, installed, elsewhere = (tmp_path / n for n in ("source", "installed", "elsewhere"))
    elsewhere.mkdir()
    for folder in ("aiparsing_d2", "configs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, source / folder, ignore=ignore)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / file, source)
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(installed)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=60)

    for folder, place in (("aiparsing_d2", "."), ("configs", "aiparsing_d2/model_zoo")):
        for path in (source / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".npz", ".safetensors"):
                copy = installed / place / path.relative_to(source)
                assert copy.read_bytes() == path.read_bytes()

    shutil.rmtree(source)
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    printed = subprocess.run(
        [sys.executable, "-c", USE_INSTALLED],
        cwd=elsewhere,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout.split()
    assert printed == [str(installed / "aiparsing_d2/__init__.py"), *model_zoo.list_configs()]
    saved = LazyConfig.load(str(elsewhere / "config.yaml"))
    LazyConfig.save(model_zoo.get_config(NAME), str(elsewhere / "from_clone.yaml"))
    from_clone = LazyConfig.load(str(elsewhere / "from_clone.yaml"))
    assert OmegaConf.to_yaml(saved) == OmegaConf.to_yaml(from_clone)


@pytest.mark.parametrize(
    "config",
    [
        "cihp/aiparsing_R_50_FPN_cihp_75ep",
        "cihp/aiparsing_R_50_FPN_cihp_75ep.py",
        "configs/cihp/aiparsing_R_50_FPN_cihp_75ep.py",
    ],
)
def test_a_config_is_found_by_its_name_anywhere(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = model_zoo.get_config_file("cihp/aiparsing_R_50_FPN_cihp_75ep")
    assert model_zoo.find_config_file(config) == expected


def test_a_file_counts_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "cihp/aiparsing_R_50_FPN_cihp_75ep.py"
    (tmp_path / "cihp").mkdir()
    (tmp_path / name).touch()
    assert model_zoo.find_config_file(name) == name
    with pytest.raises(
        ValueError, match="^there is no file cihp/aiparsing_R_50.py, and no config .* mean"
    ):
        model_zoo.find_config_file("cihp/aiparsing_R_50.py")

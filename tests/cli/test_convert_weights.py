"""The command convert-weights, from file to file."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate

from aiparsing_d2.cli import convert_weights, main

CONFIG = Path(__file__).parents[2] / "configs/demo/aiparsing_tiny_FPN_drawn_cihp.py"


def run(*argv) -> int:
    parser = argparse.ArgumentParser()
    convert_weights.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["convert-weights", *map(str, argv)])
    return args.run(args)


@pytest.fixture
def theirs(tmp_path):
    """A ResNet-18 of half the width, as the demo's."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    tensors = {}
    for name, tensor in network.state_dict().items():
        if name.startswith("fc"):
            tensors[name] = tensor
        elif tensor.dim() == 4:
            inputs = tensor.shape[1] if tensor.shape[1] == 3 else tensor.shape[1] // 2
            tensors[name] = tensor[: tensor.shape[0] // 2, :inputs].clone()
        else:
            tensors[name] = tensor[: len(tensor) // 2].clone() if tensor.dim() else tensor
    torch.save(tensors, tmp_path / "resnet18.pth")
    return tensors


def test_a_torchvision_backbone(theirs, tmp_path, capsys):
    out = tmp_path / "ours.pth"
    arguments = ("torchvision", tmp_path / "resnet18.pth", out, "--config-file", CONFIG)
    assert run(*arguments, "--verbose") == 0
    printed = capsys.readouterr().out
    assert "layer2.0.downsample.1.bias -> backbone.bottom_up.res3.0.shortcut.norm.bias" in printed
    assert "fc.weight" in printed.partition("not carried over: ")[2].splitlines()[0]
    assert "model.input_format=RGB (is BGR)" in printed
    assert "model.pixel_mean=[123.675,116.28,103.53] (is [103.53, 116.28, 123.675])" in printed
    assert "dataloader.train.mapper.image_format=RGB (is BGR)" in printed

    content = torch.load(out, weights_only=True)["model"]
    model = instantiate(LazyConfig.load(str(CONFIG)).model)
    before = model.state_dict()["backbone.fpn_lateral3.weight"].clone()
    DetectionCheckpointer(model).load(str(out))
    body = model.backbone.bottom_up
    assert torch.equal(body.res4[0].shortcut.weight, theirs["layer3.0.downsample.0.weight"])
    assert torch.equal(body.stem.conv1.norm.running_var, theirs["bn1.running_var"])
    assert torch.equal(model.state_dict()["backbone.fpn_lateral3.weight"], before)
    names = {f"backbone.bottom_up.{name}" for name in body.state_dict()}
    # The model's own counters of batches stay.
    assert names - set(content) == {n for n in names if n.endswith("num_batches_tracked")}


def test_overrides_and_matching_settings(theirs, tmp_path, capsys):
    assert (
        run(
            "torchvision",
            tmp_path / "resnet18.pth",
            tmp_path / "ours.pth",
            "--config-file",
            CONFIG,
            "--set",
            "model.input_format=RGB",
            "model.pixel_mean=[123.675,116.28,103.53]",
            "model.pixel_std=[58.395,57.12,57.375]",
            "dataloader.train.mapper.image_format=RGB",
        )
        == 0
    )
    assert "other settings" not in capsys.readouterr().out


def test_nothing_is_overwritten_unasked(theirs, tmp_path, capsys):
    out = tmp_path / "ours.pth"
    out.write_text("precious")
    arguments = ("torchvision", tmp_path / "resnet18.pth", out, "--config-file", CONFIG)
    assert run(*arguments) == 1
    assert "ours.pth exists; give another name, or --overwrite" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert run(*arguments, "--overwrite") == 0
    assert torch.load(out, weights_only=True)["model"]


@pytest.mark.parametrize("name", ["ours.pkl", "ours.pyth", "ours.pt", "ours"])
def test_a_name_that_the_checkpointer_reads_otherwise_is_refused(theirs, tmp_path, capsys, name):
    out = tmp_path / name
    arguments = ("torchvision", tmp_path / "resnet18.pth", out, "--config-file", CONFIG)
    assert run(*arguments) == 1
    assert f"{out} has to end with .pth" in capsys.readouterr().err
    assert not out.exists()


def test_an_error_writes_nothing(theirs, tmp_path, capsys):
    out = tmp_path / "ours.pth"
    assert run("authors", tmp_path / "resnet18.pth", out, "--config-file", CONFIG) == 1
    printed = capsys.readouterr()
    assert "error:" in printed.err and "resnet18.pth does not fit the model" in printed.err
    assert "layer1.0.conv1.weight: not known" in printed.err
    assert not out.exists()


@pytest.mark.parametrize(
    "source, config, message",
    [
        ("none.pth", CONFIG, "none.pth"),
        ("resnet18.pth", "none.py", "none.py"),
        ("resnet18.pth", CONFIG.parents[1] / "common/optim.py", "has no model"),
    ],
)
def test_what_is_missing_is_named(theirs, tmp_path, capsys, source, config, message):
    out = tmp_path / "ours.pth"
    assert run("torchvision", tmp_path / source, out, "--config-file", config) == 1
    assert message in capsys.readouterr().err


def test_the_commands_help_speaks_of_it(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    description = capsys.readouterr().out.partition("\noptions:")[0]
    assert "convert weights" in " ".join(description.split())

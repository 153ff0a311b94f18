"""Weights in the package: half precision, checksums, and who may load them."""

import hashlib
import subprocess

import pytest
import torch
from safetensors import safe_open

from aiparsing_d2 import model_zoo
from aiparsing_d2.model_zoo import shipped_weights

NAME = "photographs/aiparsing_lite0_FPN_ccp"


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(8, 4, 3, 3, generator=generator),
        "conv.bias": torch.randn(8, generator=generator),
        # Below what float16 tells from 0.
        "norm.running_var": torch.full((8,), 1e-9),
        "norm.num_batches_tracked": torch.tensor(2**20 + 1),
    }


def test_kernels_become_half_and_the_rest_keeps_its_digits(tmp_path, tensors):
    file = shipped_weights.write_shipped_weights("a/b", tensors, {"licence": "stated"}, tmp_path)
    assert (
        file
        == tmp_path / "a/b.safetensors"
        == shipped_weights.find_shipped_weights("a/b", tmp_path)
    )
    with safe_open(file, "pt") as content:
        assert content.metadata() == {"licence": "stated"}
        read = {key: content.get_tensor(key) for key in content.keys()}
    assert read["conv.weight"].dtype == torch.float16
    # Rounded to 11 significant bits.
    torch.testing.assert_close(
        read["conv.weight"].float(), tensors["conv.weight"], rtol=2**-11, atol=2**-25
    )
    for key in ("conv.bias", "norm.running_var", "norm.num_batches_tracked"):
        assert read[key].dtype == tensors[key].dtype and torch.equal(read[key], tensors[key])


def test_checksums_are_what_sha256sum_reads(tmp_path, tensors):
    shipped_weights.write_shipped_weights("a/b", tensors, {}, tmp_path)
    shipped_weights.write_shipped_weights("a/c", {"x": torch.ones(2, 2)}, {}, tmp_path)
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    for line, name in zip(lines, ("a/b.safetensors", "a/c.safetensors"), strict=True):
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert line == f"{digest}  {name}"
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, check=True)


def test_damaged_or_missing_weights_are_refused(tmp_path, tensors):
    file = shipped_weights.write_shipped_weights("a/b", tensors, {}, tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="b.safetensors is missing or is not"):
        shipped_weights.find_shipped_weights("a/b", tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="b.safetensors is missing or is not"):
        shipped_weights.find_shipped_weights("a/b", tmp_path)
    assert shipped_weights.find_shipped_weights("a/other", tmp_path) is None
    assert shipped_weights.find_shipped_weights("a/b", tmp_path / "nowhere") is None


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_what_half_precision_cannot_hold_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match="x holds values that are not finite"):
        shipped_weights.write_shipped_weights("a", {"x": torch.full((2, 2), value)}, {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_zoo_prefers_them_to_a_run_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "weights"
    monkeypatch.setattr(
        model_zoo.model_zoo,
        "find_shipped_weights",
        lambda name: shipped_weights.find_shipped_weights(name, weights),
    )
    run = tmp_path / "output/aiparsing_lite0_FPN_ccp/model_final.pth"
    run.parent.mkdir(parents=True)
    run.touch()
    assert model_zoo.get_checkpoint(NAME) == "./output/aiparsing_lite0_FPN_ccp/model_final.pth"

    trained = model_zoo.get(NAME, device="cpu", weights="")
    shipped_weights.write_shipped_weights(NAME, trained.state_dict(), {}, weights)
    for name in (NAME, f"{NAME}.py"):
        assert model_zoo.get_checkpoint(name) == str(weights / f"{NAME}.safetensors")
    loaded = model_zoo.get(NAME, trained=True, device="cpu")
    for key, tensor in trained.state_dict().items():
        expected = tensor.half().float() if tensor.dim() > 1 else tensor
        assert torch.equal(loaded.state_dict()[key], expected), key

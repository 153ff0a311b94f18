"""Training in bfloat16 on the CPU."""

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from aiparsing_d2.engine import FiniteStepTrainer, build_trainer, mixed_precision
from aiparsing_d2.engine.mixed_precision import precision_of_run, tell_precision


class Network(nn.Module):
    """Records the types of what its layers give."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                "full": nn.Conv2d(3, 8, 3, padding=1),
                "depthwise_3x3": nn.Conv2d(8, 8, 3, padding=1, groups=8),
                "grouped_3x3": nn.Conv2d(8, 8, 3, padding=1, groups=2),
                "depthwise_5x5": nn.Conv2d(8, 8, 5, padding=2, groups=8),
                "after": nn.Conv2d(8, 1, 1),
            }
        )
        self.types = {}

    def forward(self, x):
        for name, layer in self.layers.items():
            x = layer(x)
            self.types[name] = x.dtype
        return {"loss": x.float().square().mean()}


def train(precision, steps=20):
    torch.manual_seed(0)
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    batch = torch.randn(2, 3, 8, 8)
    trainer = build_trainer(model, [batch] * steps, optimizer, precision)
    losses = []
    with EventStorage() as storage:
        for _ in range(steps):
            trainer.iter = storage.iter
            trainer.run_step()
            losses.append(storage.latest()["total_loss"][0])
            storage.step()
    return model, losses


def test_bfloat16_computes_in_it_and_learns_as_float32_does():
    model, losses = train("bfloat16")
    # Depthwise convolutions are faster in float32, other grouped ones are not known to be.
    assert model.types == {
        "full": torch.bfloat16,
        "depthwise_3x3": torch.float32,
        "grouped_3x3": torch.bfloat16,
        "depthwise_5x5": torch.float32,
        "after": torch.bfloat16,
    }
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())
    exact, exact_losses = train(None)
    assert set(exact.types.values()) == {torch.float32}
    assert losses == pytest.approx(exact_losses, rel=0.05)
    assert losses != exact_losses and losses[-1] < losses[0] / 2


def test_outside_of_training_a_model_stays_in_float32_and_can_be_copied():
    model, _ = train("bfloat16", steps=1)
    duplicate = copy.deepcopy(model)
    for network in (model, duplicate):
        network(torch.zeros(1, 3, 8, 8))
        assert set(network.types.values()) == {torch.float32}
        assert not torch.is_autocast_enabled("cpu")


def test_float16_needs_a_gpu(caplog):
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = build_trainer(model, [], optimizer, "float16")
    assert type(trainer) is FiniteStepTrainer
    assert "train.amp.enabled needs a GPU for float16" in caplog.text
    assert "train.amp.precision=bfloat16" in caplog.text
    with pytest.raises(ValueError, match="train.amp.precision is 'int8'"):
        build_trainer(model, [], optimizer, "int8")


@pytest.mark.parametrize(
    "amp, fast, expected",
    [
        ({"enabled": None, "precision": "float16"}, "bf16", "bfloat16"),
        ({"enabled": None, "precision": "bfloat16"}, "fp32", None),
        ({"enabled": False, "precision": "bfloat16"}, "bf16", None),
        ({"enabled": True, "precision": "bfloat16"}, "fp32", "bfloat16"),
        ({"enabled": True}, "bf16", None),  # of a config saved by an earlier version: float16
    ],
)
def test_a_new_run_computes_in_what_its_config_or_the_cpu_says(monkeypatch, amp, fast, expected):
    monkeypatch.setattr(mixed_precision, "best_precision", lambda device: fast)
    assert precision_of_run(amp, "cpu") == expected


@pytest.mark.parametrize("began, differs", [("float32", False), ("float16", True)])
def test_the_precision_that_is_told_is_the_one_computed_in(tmp_path, caplog, began, differs):
    """float16 without a GPU is none, also where a run is resumed."""
    caplog.set_level("INFO")
    torch.save({"trainer": {"precision": began}, "iteration": 0}, tmp_path / "model_0000000.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000000.pth")
    amp = {"enabled": True, "precision": "float16"}
    assert precision_of_run({"enabled": True}, "cuda", str(tmp_path)) == "float16"
    caplog.clear()
    precision = precision_of_run(amp, "cpu", str(tmp_path))
    tell_precision(precision, "cpu")
    assert precision is None and "Training in float32" in caplog.text
    assert "train.amp.enabled needs a GPU for float16; training on cpu in float32" in caplog.text
    assert ("The run began in float16 and goes on in float32" in caplog.text) == differs
    assert "began in float32" not in caplog.text
    assert precision_of_run({"enabled": None}, "cpu", str(tmp_path)) is None


class Halving(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.conv = nn.Conv2d(64, 64, 3, stride=2, padding=1, **kwargs)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize("side, dtype", [(1, torch.float32), (4, torch.bfloat16)])
def test_gradients_of_kernels_larger_than_the_map(side, dtype):
    """In bfloat16, torch 2.14 leaves those of some weights as they were in memory."""
    torch.manual_seed(0)
    model = Halving()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    in_half = build_trainer(model, [], optimizer, "bfloat16").model
    x = torch.randn(4, 64, side, side)
    model(x).sum().backward()
    expected = model.conv.weight.grad
    for _ in range(20):
        model.conv.weight.grad = None
        y = in_half(x)
        assert y.dtype == dtype
        [torch.full((n,), float("nan")) for n in (64, 576, 36864)]  # freed memory to be found
        y.float().sum().backward()
        torch.testing.assert_close(model.conv.weight.grad, expected, atol=0.5, rtol=0.02)

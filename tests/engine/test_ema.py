"""The average of the weights, against one written out by hand, and across interruptions."""

import copy

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import SimpleTrainer
from torch import nn

from aiparsing_d2.engine import ExponentialMovingAverage


class Network(nn.Module):
    """Has weights, a float buffer and a counter."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def forward(self, x):
        return {"loss": self.layers(x).square().mean()}


class Batches:
    """The batch of iteration i is always the same, also in a run that starts there."""

    def __init__(self, start):
        self.start = start

    def __iter__(self):
        i = self.start
        while True:
            yield torch.randn(8, 3, generator=torch.Generator().manual_seed(i))
            i += 1


class Run:
    def __init__(self, folder, decay=0.9, start=0, seed=0):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(seed)
        self.model = Network()
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.trainer = SimpleTrainer(self.model, Batches(start), optimizer)
        self.history = []
        self.average = ExponentialMovingAverage(self.model, decay)
        self.trainer.register_hooks([self.average])
        self.averaged_model = self.average.averaged_model
        self.checkpointer = DetectionCheckpointer(
            self.averaged_model, str(folder), trainer=self.trainer
        )

    def train(self, start, end):
        step = self.average.after_step

        def recorded_step():
            step()
            self.history.append(copy.deepcopy(self.model.state_dict()))

        self.average.after_step = recorded_step
        self.trainer.train(start, end)


def assert_same(ours, others):
    assert ours.keys() == others.keys()
    assert all(tensor.equal(others[name]) for name, tensor in ours.items())


def test_the_average_by_hand(tmp_path):
    run = Run(tmp_path, decay=0.3)
    expected = {k: v.double() for k, v in run.model.state_dict().items()}
    run.train(0, 5)
    # (1 + i) / (10 + i) until it passes the decay: 0.1, 2/11, 3/12, 4/13, ...
    for weights, decay in zip(run.history, [0.1, 2 / 11, 0.25, 0.3, 0.3], strict=True):
        for name, value in expected.items():
            expected[name] = decay * value + (1 - decay) * weights[name].double()
    for name, tensor in run.averaged_model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert tensor == 5
        else:
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not run.averaged_model.training
    assert not any(p.requires_grad for p in run.averaged_model.parameters())


def test_a_resumed_run_ends_as_one_that_was_not_stopped(tmp_path):
    whole = Run(tmp_path / "whole")
    whole.train(0, 6)

    first = Run(tmp_path)
    first.train(0, 3)
    first.checkpointer.save("model_0000002")
    second = Run(tmp_path, start=3, seed=1)
    second.checkpointer.resume_or_load("", resume=True)
    second.train(3, 6)
    assert_same(second.model.state_dict(), whole.model.state_dict())
    assert_same(second.averaged_model.state_dict(), whole.averaged_model.state_dict())
    assert not second.model.state_dict()["layers.0.weight"].equal(
        second.averaged_model.state_dict()["layers.0.weight"]
    )


def test_the_checkpoint_holds_the_average_as_the_model(tmp_path):
    run = Run(tmp_path)
    run.train(0, 3)
    run.checkpointer.save("model")
    checkpoint = torch.load(tmp_path / "model.pth", weights_only=True)
    assert_same(checkpoint["model"], run.averaged_model.state_dict())


def test_a_new_run_starts_from_the_initial_weights(tmp_path):
    start = Run(tmp_path / "start", seed=5)
    start.checkpointer.save("initial")
    run = Run(tmp_path)
    run.checkpointer.resume_or_load(str(tmp_path / "start" / "initial.pth"), resume=False)
    run.train(0, 0)
    assert_same(run.model.state_dict(), start.model.state_dict())


def test_a_run_without_an_average_is_not_continued_with_one(tmp_path):
    run = Run(tmp_path)
    run.trainer._hooks.clear()
    run.trainer.train(0, 2)
    run.checkpointer.save("model")
    second = Run(tmp_path, start=2)
    second.checkpointer.resume_or_load("", resume=True)
    with pytest.raises(ValueError, match="not trained with train.ema.enabled"):
        second.train(2, 3)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match="train.ema.decay"):
        ExponentialMovingAverage(Network(), decay)

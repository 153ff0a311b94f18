"""No step on what is not finite, in any precision, in one process or several."""

from __future__ import annotations

import copy
import json
import logging
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from aiparsing_d2.engine import (
    ConfigError,
    FiniteStepTrainer,
    NonFiniteError,
    build_trainer,
    create_ddp_model,
)
from aiparsing_d2.engine.finite_steps import MAX_SKIPS_IN_A_ROW
from aiparsing_d2.engine.launch import leave_process_group
from aiparsing_d2.engine.mixed_precision import FiniteStepAMPTrainer


class Network(nn.Module):
    """Two losses; in training, the batch normalisation remembers what it sees."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.linear = nn.Linear(4, 2)

    def forward(self, batch):
        x = self.linear(self.norm(torch.stack([item["x"] for item in batch])))
        zero = torch.stack([item["zero"] for item in batch])
        # A root of 0 is finite, its gradient is not.
        root = (zero * x[:, 0].float()).abs().sqrt()
        return {"loss_a": x[:, 0].float().square().mean(), "loss_b": root.sum()}


class Proposing(Network):
    """Detectron2's RPN on what the network is given."""

    def __init__(self):
        super().__init__()
        self.rpn = RPN(
            in_features=["p"],
            head=StandardRPNHead(in_channels=1, num_anchors=1),
            anchor_generator=DefaultAnchorGenerator(sizes=[[8]], aspect_ratios=[1.0], strides=[4]),
            anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
            box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
            batch_size_per_image=4,
            positive_fraction=0.5,
            pre_nms_topk=(4, 4),
            post_nms_topk=(4, 4),
        )

    def forward(self, batch):
        losses = super().forward(batch)
        features = torch.stack([item["x"].view(1, 2, 2) for item in batch])
        images = ImageList(features.new_zeros(len(batch), 3, 8, 8), [(8, 8)] * len(batch))
        people = Instances((8, 8), gt_boxes=Boxes([[0.0, 0, 8, 8]]), gt_classes=torch.tensor([0]))
        _, more = self.rpn(images, {"p": features}, [people] * len(batch))
        return {**losses, **more}


def batches(broken: dict[int, str], count: int):
    """Pairs of named items; "nan" breaks a loss, "root" the gradient alone."""
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        x = torch.randn(2, 4, generator=generator)
        if broken.get(number) == "nan":
            x[1, 2] = float("nan")
        zero = float(broken.get(number) != "root")
        yield [
            {"x": row, "zero": torch.tensor(zero), "file_name": f"{number}_{k}.jpg"}
            for k, row in enumerate(x)
        ]


@pytest.fixture(params=["float32", "bfloat16", "float16"])
def make_trainer(request, monkeypatch, tmp_path):
    """Return a function of batches and action; float16 as on a GPU, but computed on the CPU."""
    torch.manual_seed(0)
    network = Network()

    def make(data, nonfinite="stop") -> FiniteStepTrainer:
        model = copy.deepcopy(network)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if request.param != "float16":
            precision = None if request.param == "float32" else request.param
            return build_trainer(model, data, optimizer, precision, nonfinite, str(tmp_path))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        return FiniteStepAMPTrainer(
            model, data, optimizer, nonfinite, str(tmp_path), grad_scaler=scaler
        )

    return make


def train(trainer, iterations):
    with EventStorage() as storage:
        for trainer.iter in range(iterations):
            storage.iter = trainer.iter
            trainer.run_step()


def weights(trainer):
    return {name: value.clone() for name, value in trainer._plain_model().state_dict().items()}


def equal(a, b):
    return all(a[name].equal(b[name]) for name in a)


@pytest.mark.fault("a loss or a gradient is infinite or NaN")
def test_it_stops_before_the_step_and_leaves_the_batch(make_trainer, tmp_path):
    before = make_trainer(batches({}, 2))
    train(before, 2)
    trainer = make_trainer(batches({2: "nan"}, 3))
    with pytest.raises(NonFiniteError, match="iteration 2, before the step:\n") as error:
        train(trainer, 3)
    lines = [line.strip() for line in str(error.value).splitlines()]
    assert {"loss_a is nan", "image: 2_0.jpg", "image: 2_1.jpg"} <= set(lines)
    assert not any("image: 1_" in line for line in lines)
    parameters = {n for n, _ in before._plain_model().named_parameters()}
    assert all(weights(before)[n].equal(weights(trainer)[n]) for n in parameters)

    dump = torch.load(tmp_path / "nonfinite_0000002.pt", weights_only=False)
    assert f"batch, to replay: {tmp_path / 'nonfinite_0000002.pt'}" in lines
    replay = Network()
    replay.load_state_dict(dump["model"])
    assert dump["iteration"] == 2 and replay(dump["batch"])["loss_a"].isnan()


def test_the_terminal_tells_it_once(make_trainer, tmp_path):
    """Standard output has nothing of what the error says, the log's file all of it."""
    log = logging.getLogger("detectron2")
    terminal, shown = logging.StreamHandler(sys.stdout), []
    terminal.emit = lambda record: shown.append(record.getMessage())
    handlers = [terminal, logging.FileHandler(tmp_path / "log.txt")]
    for handler in handlers:
        log.addHandler(handler)
    try:
        with pytest.raises(NonFiniteError) as error:
            make_trainer(batches({2: "nan"}, 3)).train(0, 3)
        log.warning("something else")
    finally:
        for handler in handlers:
            log.removeHandler(handler)
    assert not any("not finite" in message for message in shown)
    assert "something else" in shown
    assert (tmp_path / "log.txt").read_text().count(str(error.value)) == 1


@pytest.mark.parametrize("kind", ["nan", "root"])
def test_a_skipped_batch_leaves_no_trace(make_trainer, kind, tmp_path):
    trainer = make_trainer(batches({1: kind}, 4), "skip")
    without = [batch for number, batch in enumerate(batches({}, 4)) if number != 1]
    expected = make_trainer(without)
    train(expected, 3)
    scaler = getattr(trainer, "grad_scaler", None)
    if scaler is not None and kind == "root":
        train(trainer, 4)  # the scaler's own business: it halves its scale and does not step
        assert scaler.get_scale() == 2.0
        assert all(value.isfinite().all() for value in weights(trainer).values())
        return
    train(trainer, 4)
    assert equal(weights(trainer), weights(expected))
    assert [file.name for file in tmp_path.iterdir()] == ["nonfinite_0000001.pt"]


@pytest.mark.fault("a loss or a gradient is infinite or NaN")
def test_gradients_that_no_scale_helps_are_named(make_trainer):
    trainer = make_trainer(batches(dict.fromkeys(range(8), "root"), 8))
    with pytest.raises(NonFiniteError, match="the gradient of .*weight.* is not finite"):
        train(trainer, 8)
    assert all(value.isfinite().all() for value in weights(trainer).values())


@pytest.mark.fault("more than 10 such batches in a row")
def test_skipping_has_an_end(make_trainer, tmp_path):
    count = 2 * MAX_SKIPS_IN_A_ROW + 2
    broken = dict.fromkeys(range(1, count), "nan")
    del broken[MAX_SKIPS_IN_A_ROW + 1]
    trainer = make_trainer(batches(broken, count), "skip")
    train(trainer, MAX_SKIPS_IN_A_ROW + 1)  # all but the last in a row, and one that is well
    trainer = make_trainer(batches(dict.fromkeys(range(count), "nan"), count), "skip")
    with pytest.raises(NonFiniteError, match="so were the 10 batches before"):
        train(trainer, count)
    assert trainer.iter == MAX_SKIPS_IN_A_ROW
    assert len(list(tmp_path.iterdir())) == MAX_SKIPS_IN_A_ROW + 1  # of both trainers


@pytest.mark.fault("a loss or a gradient is infinite or NaN")
def test_an_rpn_that_has_diverged_is_told_as_a_loss_is(tmp_path):
    """Detectron2's raises in the forward pass, before there is a loss."""

    def trainer(nonfinite):
        torch.manual_seed(0)
        model = Proposing()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        return build_trainer(model, batches({0: "nan"}, 1), optimizer, None, nonfinite, folder)

    folder = str(tmp_path)
    train(trainer("skip"), 1)
    assert [file.name for file in tmp_path.iterdir()] == ["nonfinite_0000000.pt"]
    with pytest.raises(NonFiniteError, match="(?s)contain Inf/NaN.*\n.*image: 0_0.jpg"):
        train(trainer("stop"), 1)


class Raising(Network):
    def forward(self, batch):
        losses = super().forward(batch)
        if losses["loss_a"].isnan():
            raise FloatingPointError("my own check")
        return losses


@pytest.mark.fault("a loss or a gradient is infinite or NaN")
def test_an_error_of_the_model_is_told_as_a_loss_is(tmp_path, monkeypatch):
    optimizer = torch.optim.SGD(Network().parameters(), lr=0.1)
    data = batches({1: "nan", 3: "nan"}, 4)
    trainer = build_trainer(Raising(), data, optimizer, None, "skip", str(tmp_path))
    train(trainer, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["nonfinite_0000001.pt"]
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())
    # Another process has gone on with its own batch.
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with pytest.raises(NonFiniteError, match="(?s)my own check\n.*image: 3_0.jpg"):
        trainer.run_step()


def test_another_action_is_refused():
    optimizer = torch.optim.SGD(Network().parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="train.nonfinite is 'go on'; choose one of stop, skip"):
        build_trainer(Network(), [], optimizer, nonfinite="go on")


@pytest.mark.fault(
    "the optimiser's state is of another optimiser, of other shapes or of another number of "
    "parameters"
)
def test_moments_of_another_shape_are_refused_before_anything_is_loaded():
    def trainer(width):
        model = nn.Linear(3, width)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        return build_trainer(model, [], optimizer)

    state = trainer(2).state_dict() | {"iteration": 7}
    other = trainer(5)
    with pytest.raises(ConfigError, match=r"exp_avg of parameter 0 is \(2, 3\).* \(5, 3\)"):
        other.load_state_dict(state)
    assert other.iter == 0
    assert other.optimizer.state[other.model.weight]["exp_avg"].shape == (5, 3)
    trainer(2).load_state_dict(state)

    fewer = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.AdamW(fewer.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="of 2 parameters, the model has 1 to train"):
        build_trainer(fewer, [], optimizer).load_state_dict(state)


@pytest.mark.fault(
    "the optimiser's state is of another optimiser, of other shapes or of another number of "
    "parameters"
)
def test_the_state_of_another_optimizer_is_refused():
    """Its moments have the parameters' shapes, but other names."""

    def trainer(optimizer_class, **kwargs):
        model = Network()
        optimizer = optimizer_class(model.parameters(), lr=0.1, **kwargs)
        return build_trainer(model, batches({}, 2), optimizer)

    before = trainer(torch.optim.SGD, momentum=0.9)
    train(before, 1)
    state = before.state_dict()
    with pytest.raises(ConfigError, match="is of SGD, the config's optimizer is AdamW: resume"):
        trainer(torch.optim.AdamW).load_state_dict(state)
    del state["optimizer_class"]  # as earlier versions left them
    trainer(torch.optim.SGD).load_state_dict(state)


def one_of_two(rank, folder):
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=5),
    )
    comm._LOCAL_PROCESS_GROUP = torch.distributed.group.WORLD
    torch.manual_seed(0)
    model = create_ddp_model(Network(), broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    broken = {1: "nan"} if rank == 1 else {}
    trainer = build_trainer(model, batches(broken, 3), optimizer, None, "skip", str(folder))
    train(trainer, 3)
    told = sorted(file.name for file in folder.glob("*.pt"))
    parameters = [p.flatten().tolist() for p in model.parameters()]
    (folder / f"{rank}.json").write_text(json.dumps([told, parameters]))
    torch.distributed.barrier()  # nobody leaves while another may still be receiving
    leave_process_group()


@pytest.mark.fault("a loss or a gradient is infinite or NaN")
def test_all_processes_skip_what_is_wrong_in_one(tmp_path: Path):
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first[0] == ["nonfinite_0000001_process_1.pt"]

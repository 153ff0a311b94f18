"""Runs that are interrupted anywhere, against the run that was not."""

from __future__ import annotations

import errno
import functools
import itertools
import json

import pytest
import torch
from detectron2.engine import hooks
from detectron2.utils.events import JSONWriter
from fvcore.common.param_scheduler import CosineParamScheduler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from aiparsing_d2.engine import (
    BoundedCheckpoints,
    ConfigError,
    ContinuedWriter,
    ExponentialMovingAverage,
    FiniteStepTrainer,
    FittingCheckpointer,
    PersistentBestCheckpointer,
    RecordedEvaluation,
    RestOfIteration,
    SeededIterations,
    open_writers,
)
from aiparsing_d2.engine.mixed_precision import FiniteStepAMPTrainer
from aiparsing_d2.engine.seeded_iterations import seed_of_run

# Checkpoints after iterations 1, 3, 5, ..., evaluations after 2, 5, 8, ..., metrics after 3, 7, ...
CHECKPOINTS, EVALUATIONS, METRICS = 2, 3, 4
# By the iteration that they count as; that after the last of 10 iterations is 10.
FIGURES = {2: 3.0, 5: 7.0, 8: 5.0, 10: 6.0, 11: 4.0, 14: 1.0}


PARTS = itertools.count()


class Killed(BaseException):
    pass


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return {"loss_a": (self.weight * x).square(), "loss_b": x * self.weight}


class Run:
    """A part of a run in a folder, with all the hooks that a training has."""

    def __init__(self, folder, max_iter=10, resume=False, evaluation=None, ema=False, best=True):
        """``evaluation``: called with the iteration before an evaluation; may kill."""
        self.folder, self.max_iter = folder, max_iter
        self.evaluated = []
        folder.mkdir(exist_ok=True)
        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        self.trainer = FiniteStepTrainer(model, self.batches(), optimizer)
        self.killed_before = None
        self.average = ExponentialMovingAverage(model) if ema else None
        self.checkpointer = FittingCheckpointer(model, str(folder), trainer=self.trainer)

        def evaluate():
            iteration = self.trainer.iter
            if evaluation is not None:
                evaluation(iteration)
            self.evaluated.append(iteration)
            return {"parsing": {"x": FIGURES.get(iteration, 0.0)}}

        self.best = PersistentBestCheckpointer(EVALUATIONS, self.checkpointer, "parsing/x")
        self.rest = [
            RecordedEvaluation(EVALUATIONS, evaluate, str(folder)),
            *([self.best] if best else []),
            ContinuedWriter(
                functools.partial(open_writers, str(folder), max_iter), str(folder), METRICS
            ),
        ]
        self.trainer.register_hooks(
            [
                hooks.IterationTimer(),
                hooks.LRScheduler(scheduler=CosineParamScheduler(1.0, 0.0)),
                self.average,
                BoundedCheckpoints(self.checkpointer, CHECKPOINTS, max_to_keep=2),
                *self.rest,
                RestOfIteration(self.rest),
            ]
        )
        self.start_iter = 0
        self.checkpointer.resume_or_load("", resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = self.trainer.iter + 1

    def batches(self):
        for i in itertools.count(self.start_iter):
            if i == self.killed_before:
                raise Killed
            yield torch.randn((), generator=torch.Generator().manual_seed(i))

    def train(self, killed_before=None):
        self.killed_before = killed_before
        try:
            self.trainer.train(self.start_iter, max(self.start_iter, self.max_iter))
        finally:
            # TensorBoard reads files by name, which does not order those of one second.
            for file in self.folder.glob("events.out.tfevents.*.*"):
                file.rename(self.folder / f"events.out.tfevents.{next(PARTS):010d}")
        return self


def killed(folder, before=None, **options):
    with pytest.raises(Killed):
        Run(folder, **options).train(before)


def resumed(folder, **options):
    return Run(folder, resume=True, **options).train()


def lines(folder):
    """The lines of metrics.json by iteration, without times."""
    found = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    for line in found:
        for name in ("time", "data_time", "eta_seconds"):
            line.pop(name, None)
    return sorted(found, key=lambda line: line["iteration"])


def points(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if not tag.endswith(("time", "seconds"))
    }


@pytest.fixture
def whole(tmp_path):
    run = Run(tmp_path / "whole").train()
    assert run.evaluated == [2, 5, 8, 10]
    assert [line["iteration"] for line in lines(run.folder)] == [2, 3, 5, 7, 8, 9, 10]
    return run.folder


def assert_same(folder, whole):
    assert lines(folder) == lines(whole)
    assert points(folder) == points(whole)
    names = [
        {file.name for file in x.iterdir() if "events" not in file.name} for x in (folder, whole)
    ]
    assert names[0] == names[1]
    for name in sorted(names[0] - {"metrics.json"}):
        if name.endswith(".pth"):
            one, other = (torch.load(x / name, weights_only=True) for x in (folder, whole))
            assert one["model"] == other["model"] and one["iteration"] == other["iteration"]
            assert one.get("best") == other.get("best")
        else:
            assert (folder / name).read_text() == (whole / name).read_text()


@pytest.mark.parametrize("iteration", range(10))
def test_a_run_killed_in_an_iteration(tmp_path, whole, iteration):
    folder = tmp_path / "run"
    killed(folder, before=iteration)
    resumed(folder)
    assert_same(folder, whole)


def test_a_run_killed_in_each_iteration(tmp_path, whole):
    folder = tmp_path / "run"
    for iteration in range(1, 10):
        killed(folder, before=iteration, resume=True)
    resumed(folder)
    assert_same(folder, whole)


@pytest.mark.fault("killed in an evaluation, or before one that was due")
@pytest.mark.parametrize("iteration", [2, 5, 8, 10])
def test_an_evaluation_that_was_due_is_made_up_for(tmp_path, whole, iteration):
    def kill(now):
        if now == iteration:
            raise Killed

    folder = tmp_path / "run"
    killed(folder, evaluation=kill)
    run = resumed(folder)
    assert run.evaluated == [i for i in (2, 5, 8, 10) if i >= iteration]
    assert_same(folder, whole)


@pytest.mark.fault("killed in an evaluation, or before one that was due")
def test_an_evaluation_is_not_repeated(tmp_path, whole):
    folder = tmp_path / "run"
    killed(folder, before=6)
    run = Run(folder, resume=True)
    assert run.start_iter == 6  # the evaluation came after the checkpoint
    assert run.train().evaluated == [8, 10]
    assert_same(folder, whole)


def test_figures_of_weights_that_are_made_again_do_not_count(tmp_path, whole):
    def kill(now):
        if now == 5:
            raise Killed

    folder = tmp_path / "run"
    killed(folder, before=5)
    # As of a run that was killed after iteration 5, and whose last checkpoint is damaged.
    (folder / "last_evaluation.json").write_text('{"iteration": 5, "results": {"parsing/x": 99}}')
    killed(folder, resume=True, evaluation=kill)
    assert resumed(folder).evaluated == [5, 8, 10]
    assert_same(folder, whole)


def test_a_finished_run_is_evaluated_again(tmp_path, whole):
    assert resumed(whole).evaluated == [10]
    assert [line["iteration"] for line in lines(whole)] == [2, 3, 5, 7, 8, 9, 10]
    shorter = resumed(whole, max_iter=5)
    assert shorter.trainer.iter == 10


def test_a_longer_run_keeps_the_last_evaluation_of_the_shorter(tmp_path, whole):
    shorter = lines(whole)
    killed(whole, before=13, resume=True, max_iter=15)
    resumed(whole, max_iter=15)
    found = lines(whole)
    assert found[:4] == shorter[:4]
    # Metrics of iteration 9 are not due in a run of 15, which holds 8's till 11 has its own.
    figures = [(line["iteration"], line.get("parsing/x")) for line in found[4:]]
    assert figures == [(10, 6.0), (11, 4.0), (14, None), (15, 0.0)]


def test_medians_go_on(tmp_path):
    """They are of 20 iterations, most of them before the kill."""
    whole, folder = tmp_path / "whole", tmp_path / "run"
    Run(whole, max_iter=30).train()
    killed(folder, before=27, max_iter=30)
    resumed(folder, max_iter=30)
    assert_same(folder, whole)


def test_what_a_killed_run_wrote_after_its_checkpoint_goes(tmp_path):
    """Of a run of an earlier version, whose checkpoints do not say what was written."""
    killed(tmp_path, before=2, max_iter=4)
    checkpoint = torch.load(tmp_path / "model_0000001.pth", weights_only=True)
    del checkpoint["trainer"]["hooks"]
    torch.save(checkpoint, tmp_path / "model_0000001.pth")
    written = [
        {"iteration": 0, "lr": 0.1},
        {"iteration": 1, "lr": 0.1, "parsing/x": 3.0},
        {"iteration": 2, "parsing/x": 4.0},  # after the last iteration of a shorter run
        {"iteration": 2, "lr": 0.1},
        {"iteration": 3, "parsing/x": 4.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in written)
    (tmp_path / "metrics.json").write_text(text + '{"iterat')
    resumed(tmp_path, max_iter=4, best=False)
    assert lines(tmp_path)[:3] == written[:3]
    assert [line["iteration"] for line in lines(tmp_path)[3:]] == [2, 3, 4]


def test_a_line_that_was_not_ended_is_written_again(tmp_path, whole):
    killed(tmp_path / "run", before=5)
    metrics = tmp_path / "run" / "metrics.json"
    metrics.write_text(metrics.read_text().rstrip())
    resumed(tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def test_a_new_run_does_not_go_on_in_the_metrics_of_one_that_left_no_checkpoint(tmp_path, whole):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.json").write_text('{"iteration": 0, "lr": 0.1}\n{"iteration": 1, "lr": 0.1}')
    Run(folder).train()
    assert lines(folder) == lines(whole)


def kill_at_once(*_):
    raise Killed


def test_the_best_model_and_its_record_belong_together(tmp_path, whole, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        # model_best.pth is there already.
        patch.setattr(PersistentBestCheckpointer, "_write_copy", kill_at_once)
        killed(folder)
    assert torch.load(folder / "model_best.pth", weights_only=True)["best"]["value"] == 3.0
    assert not (folder / "model_best.json").exists()
    resumed(folder)
    assert_same(folder, whole)


def test_the_record_beside_the_best_model_is_a_copy(tmp_path, whole):
    folder = tmp_path / "run"
    killed(folder, before=9)
    # As if it had been killed just before this was written.
    (folder / "model_best.json").write_text('{"metric": "parsing/x", "value": 3, "iteration": 2}')
    resumed(folder)
    assert_same(folder, whole)


def test_the_best_model_of_an_earlier_version(tmp_path):
    killed(tmp_path, before=7)
    content = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert content.pop("best") == {"metric": "parsing/x", "value": 7.0, "iteration": 5}
    torch.save(content, tmp_path / "model_best.pth")
    assert resumed(tmp_path).best.best_iter == 5


@pytest.mark.fault("`model_best.pth` is damaged")
def test_a_damaged_best_model_is_replaced(tmp_path, caplog):
    killed(tmp_path, before=9)
    best = tmp_path / "model_best.pth"
    best.write_bytes(best.read_bytes()[:-50])
    assert resumed(tmp_path).best.best_iter == 10  # the better one of iteration 5 is lost
    assert f"{best} is damaged" in caplog.text
    content = torch.load(best, weights_only=True)
    assert content["best"] == json.loads((tmp_path / "model_best.json").read_text())


def test_no_more_checkpoints_than_asked_for_over_all_parts(tmp_path):
    folder = tmp_path / "run"
    for iteration in range(1, 10, 2):
        killed(folder, before=iteration, resume=True)
        assert len(list(folder.glob("model_0*.pth"))) <= 2
    # As of a kill between a new checkpoint and the end of the oldest.
    (folder / "model_0000001.pth").write_bytes((folder / "model_0000005.pth").read_bytes())
    resumed(folder)
    names = sorted(file.name for file in folder.glob("model_*.pth"))
    assert names == ["model_0000007.pth", "model_0000009.pth", "model_best.pth", "model_final.pth"]


@pytest.mark.fault(
    "`--resume` with `train.ema.enabled` on where it was off, or off where it was on"
)
def test_an_average_is_neither_begun_nor_left_off_in_the_middle(tmp_path):
    with_average, without = tmp_path / "with", tmp_path / "without"
    killed(with_average, before=6, ema=True)
    killed(without, before=6)
    with pytest.raises(ConfigError, match="was trained with train.ema.enabled=True"):
        resumed(with_average)
    with pytest.raises(ConfigError, match="was not trained with train.ema.enabled"):
        resumed(without, ema=True)


def test_the_scale_of_the_gradients_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def trainer(scale):
        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        return FiniteStepAMPTrainer(model, [], optimizer, grad_scaler=scaler)

    first, second = trainer(8.0), trainer(2.0)
    state = first.state_dict()
    second.load_state_dict(state)
    assert second.grad_scaler.state_dict() == first.grad_scaler.state_dict()
    del state["grad_scaler"]  # as of a run in float32
    third = trainer(4.0)
    third.load_state_dict(state)
    assert third.grad_scaler.get_scale() == 4.0


def test_a_run_keeps_the_seed_that_it_has_drawn(tmp_path):
    assert seed_of_run(None) != seed_of_run(None)
    run = Run(tmp_path)
    run.trainer.register_hooks([SeededIterations(12)])
    run.train(None)
    assert seed_of_run(str(tmp_path)) == 12
    other = Run(tmp_path / "other", max_iter=2).train()  # of an earlier version: it kept none
    assert seed_of_run(str(other.folder)) != seed_of_run(str(other.folder))


def no_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.fault("the disk is full, or cannot be written")
@pytest.mark.parametrize(
    "full, named",
    [
        ((JSONWriter, "write"), "metrics.json or TensorBoard's file"),
        ((json, "dump"), "last_evaluation.json"),
        ((torch, "save"), "model_0000001.pth"),
    ],
)
def test_a_full_disk_is_told_with_the_file(tmp_path, whole, monkeypatch, full, named):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(*full, no_room)
        # A line of which a part is left in memory cannot be written when it is closed, either.
        patch.setattr(JSONWriter, "close", no_room)
        with pytest.raises(OSError, match=f"{named}.*No space left|No space left.*{named}"):
            Run(folder).train()
    resumed(folder)
    assert_same(folder, whole)

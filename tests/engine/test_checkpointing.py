"""What a run may start from."""

import logging

import pytest
import torch
from torch import nn

from aiparsing_d2.engine import (
    ConfigError,
    FittingCheckpointer,
    NonFiniteError,
    check_init_checkpoint,
    check_output_dir,
    remove_unfinished,
)


def test_missing_weights_are_named_with_what_to_do(tmp_path):
    missing = tmp_path / "model_final.pth"
    with pytest.raises(FileNotFoundError, match="convert-weights authors") as error:
        check_init_checkpoint(str(missing))
    assert str(missing) in str(error.value) and "train.init_checkpoint=" in str(error.value)
    with pytest.raises(FileNotFoundError):  # a folder is no file
        check_init_checkpoint(str(tmp_path))


def test_everything_else_passes(tmp_path):
    file = tmp_path / "model_final.pth"
    file.touch()
    for checkpoint in (
        "",
        str(file),
        f"{file}?matching_heuristics=True",
        "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
        "https://example.org/model_final.pth",
    ):
        check_init_checkpoint(checkpoint)


def body_and_head():
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.bottom_up = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model.head = nn.Linear(4, 2)
    return model


def saved(folder, change):
    """A file of the model's weights, changed; and the model's checkpointer."""
    model = body_and_head()
    weights = dict(model.state_dict())
    change(weights)
    torch.save({"model": weights}, folder / "weights.pth")
    return str(folder / "weights.pth"), FittingCheckpointer(body_and_head(), str(folder))


def without(*endings):
    def change(weights):
        for name in [name for name in weights if name.endswith(endings)]:
            del weights[name]

    return change


LINEAR = "backbone.bottom_up.0.weight"


@pytest.mark.parametrize(
    "change, whole, start",
    [
        (without(), None, None),
        (without("head.weight", "head.bias"), "not in the file: head.weight", None),
        (
            lambda weights: weights.update({"head.weight": torch.zeros(5, 4)}),
            r"head.weight: \(5, 4\) in the file, \(2, 4\) in the model",
            None,
        ),
        (lambda w: w.update({"fc.weight": torch.zeros(1)}), "not in the model: fc.weight", None),
        (without("running_mean"), "not in the file: backbone.bottom_up.1.running_mean", None),
        (without(LINEAR), f"not in the file: {LINEAR}", f"not in the file: {LINEAR}"),
        (
            lambda weights: weights.update({LINEAR: torch.zeros(6, 3)}),
            r"\(6, 3\) in the file, \(4, 3\) in the model",
            r"\(6, 3\) in the file, \(4, 3\) in the model",
        ),
        (
            lambda weights: (weights.clear(), weights.update(x=torch.zeros(1))),
            "not in the model: x",
            "fills no tensor of the model",
        ),
    ],
)
def test_weights_fit_the_model_or_a_start_fills_its_body(tmp_path, change, whole, start):
    file, checkpointer = saved(tmp_path, change)

    def load():
        checkpointer.load(file)

    def begin():
        checkpointer.resume_or_load(file, resume=True)  # nothing to resume

    for call, message in ((load, whole), (begin, start), (load, whole)):
        if message is None:
            call()
        else:
            with pytest.raises(ConfigError, match=f"(?s)weights.pth.*{message}"):
                call()
    FittingCheckpointer(body_and_head(), allow_unfitting=True).load(file)


HEADS = ("head.weight", "head.bias")


@pytest.mark.parametrize(
    "change, message",
    [
        (without(), None),
        (without(*HEADS), None),  # a body
        (without(*HEADS, "running_mean"), None),
        (lambda w: (without(*HEADS)(w), w.update({"fc.weight": torch.zeros(1)})), None),
        (without("head.bias"), "not in the file: head.bias"),
        (lambda w: w.update({"head.weight": torch.zeros(5, 4)}), r"head.weight: \(5, 4\)"),
        (lambda w: w.update({"fc.weight": torch.zeros(1)}), "not in the model: fc.weight"),
        (without(*HEADS, LINEAR), f"in 1 tensor\\..*not in the file: {LINEAR}"),
    ],
)
def test_between_a_body_and_a_whole_model_there_is_nothing(tmp_path, change, message):
    file, checkpointer = saved(tmp_path, change)
    if message is None:
        checkpointer.load_body_or_all(file)
    else:
        with pytest.raises(ConfigError, match=f"(?s)weights.pth.*{message}"):
            checkpointer.load_body_or_all(file)


@pytest.mark.fault("`--resume` with another model")
def test_what_is_resumed_is_compared_before_its_optimizer_is_touched(tmp_path):
    model = body_and_head()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    FittingCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_0")
    wider = body_and_head()
    wider.head = nn.Linear(4, 7)
    other = torch.optim.SGD(wider.parameters(), lr=5.0)
    with pytest.raises(ConfigError, match="model_0.pth does not fit the model in 2 tensors"):
        FittingCheckpointer(wider, str(tmp_path), optimizer=other).resume_or_load("")
    assert other.param_groups[0]["lr"] == 5.0


@pytest.fixture
def run(tmp_path):
    """A folder with the checkpoints of iterations 1, 3 and 5, the last one as model_final.pth."""
    model = body_and_head()
    checkpointer = FittingCheckpointer(model, str(tmp_path))
    for iteration in (1, 3, 5):
        torch.nn.init.constant_(model.head.bias, iteration)
        name = "model_final" if iteration == 5 else f"model_{iteration:07d}"
        checkpointer.save(name, iteration=iteration)
    with checkpointer.leaving_last_checkpoint():
        checkpointer.save("model_best", iteration=9)
    return tmp_path


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-100])


def change_a_byte(file):
    """Of a tensor: only the checksum tells."""
    content = bytearray(file.read_bytes())
    content[content.find(torch.tensor([5.0, 5.0]).numpy().tobytes())] ^= 1
    file.write_bytes(content)


def resumed(folder):
    """The iteration, and what was loaded."""
    checkpointer = FittingCheckpointer(body_and_head(), str(folder))
    iteration = checkpointer.resume_or_load("")["iteration"]
    return iteration, checkpointer.model.head.bias.tolist()


@pytest.mark.fault("the last checkpoint is damaged or missing")
@pytest.mark.parametrize(
    "damage",
    [cut_short, change_a_byte, lambda f: f.unlink(), lambda f: f.write_bytes(b"")],
    ids=["cut short", "changed", "missing", "empty"],
)
def test_a_damaged_last_checkpoint_is_replaced_by_the_newest_whole_one(run, caplog, damage):
    assert resumed(run) == (5, [5, 5]) and "instead" not in caplog.text
    damage(run / "model_final.pth")
    assert resumed(run) == (3, [3, 3])
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert f"{run / 'model_final.pth'} " in warning
    assert f"Resuming from {run / 'model_0000003.pth'}, after iteration 3" in warning
    cut_short(run / "model_0000003.pth")
    assert resumed(run) == (1, [1, 1])


@pytest.mark.fault("the last checkpoint is damaged or missing")
@pytest.mark.parametrize("record", [None, "", "model_0000007.pth"])
def test_a_record_that_names_no_checkpoint(run, caplog, record):
    if record is None:
        (run / "last_checkpoint").unlink()
    else:
        (run / "last_checkpoint").write_text(record)
    assert resumed(run) == (5, [5, 5])
    named = "model_0000007.pth does not exist" if record else "last_checkpoint is "
    assert named in caplog.text and f"Resuming from {run / 'model_final.pth'}" in caplog.text
    with pytest.raises(FileExistsError, match="--resume"):
        check_output_dir(str(run))


@pytest.mark.fault("a new run into the folder of another")
@pytest.mark.parametrize("prefix", ["model_best", "mine"])
def test_the_best_of_another_run_is_not_overwritten(run, prefix):
    """All that is left of a run, perhaps, and --resume has nothing to go on from."""
    (run / "model_best.pth").rename(run / f"{prefix}.pth")
    check_output_dir(str(run), resume=True, best_prefix=prefix)
    for file in run.iterdir():
        if file.name != f"{prefix}.pth":
            file.unlink()
    for resume in (False, True):
        with pytest.raises(FileExistsError, match=f"{prefix}.pth is of an earlier run, .* Move it"):
            check_output_dir(str(run), resume, prefix)
    (run / f"{prefix}.pth").unlink()
    check_output_dir(str(run), best_prefix=prefix)


@pytest.mark.fault("no checkpoint is whole")
def test_no_whole_checkpoint_is_an_error_that_names_all(run):
    names = ["model_0000001.pth", "model_0000003.pth", "model_final.pth"]
    for name in names:
        cut_short(run / name)
    with pytest.raises(ConfigError, match="no whole checkpoint to resume from") as error:
        resumed(run)
    assert all(f"{run / name} is damaged" in str(error.value) for name in names)


def test_a_new_folder_starts_anew(tmp_path):
    model = body_and_head()
    assert FittingCheckpointer(model, str(tmp_path)).resume_or_load("") == {}


@pytest.mark.fault("killed between the last periodic checkpoint and `model_final.pth`")
def test_a_run_stopped_before_its_last_file_gets_it(run):
    last = (run / "model_0000003.pth").read_bytes()
    (run / "last_checkpoint").write_text("model_0000003.pth")  # model_final.pth is of before
    checkpointer = FittingCheckpointer(body_and_head(), str(run))
    checkpointer.resume_or_load("")
    checkpointer.complete()
    assert (run / "model_final.pth").read_bytes() == last
    assert (run / "last_checkpoint").read_text() == "model_final.pth"


@pytest.mark.fault("weights became infinite or NaN in a step")
@pytest.mark.parametrize(
    "name, value, refused",
    [
        ("head.weight", float("nan"), True),
        ("head.weight", float("inf"), True),
        ("backbone.bottom_up.1.running_mean", float("nan"), True),
        ("backbone.bottom_up.1.running_mean", float("inf"), False),  # as bounds of ranges are
    ],
)
def test_weights_that_are_not_finite_are_not_written(run, name, value, refused):
    model = body_and_head()
    model.state_dict()[name].view(-1)[0] = value
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    checkpointer = FittingCheckpointer(model, str(run))
    if not refused:
        checkpointer.save("model_0000007")
        return
    with pytest.raises(NonFiniteError, match=f"model_0000007.pth is not written.*: {name}. "):
        checkpointer.save("model_0000007")
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


def test_what_a_kill_left_unfinished_goes(tmp_path):
    (tmp_path / "model_0000001.pth.123.part").write_bytes(b"half")
    (tmp_path / "my.part").write_bytes(b"somebody's own")
    remove_unfinished(str(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["my.part"]

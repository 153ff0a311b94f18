"""What a run may start from."""

import pytest
import torch
from torch import nn

from aiparsing_d2.engine import ConfigError, FittingCheckpointer, check_init_checkpoint


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


def test_what_is_resumed_is_compared_before_its_optimizer_is_touched(tmp_path):
    model = body_and_head()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    FittingCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_0")
    wider = body_and_head()
    wider.head = nn.Linear(4, 7)
    other = torch.optim.SGD(wider.parameters(), lr=5.0)
    with pytest.raises(ConfigError, match="model_0.pth does not fit the model; 2 tensors differ"):
        FittingCheckpointer(wider, str(tmp_path), optimizer=other).resume_or_load("")
    assert other.param_groups[0]["lr"] == 5.0

"""Overrides: what a person may type works, or is told in one line."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from aiparsing_d2 import model_zoo
from aiparsing_d2.engine import ConfigError, apply_overrides


@pytest.fixture(scope="module")
def demo():
    return model_zoo.get_config("demo/aiparsing_tiny_FPN_drawn_cihp")


@pytest.fixture
def config(demo):
    return copy.deepcopy(demo)


@pytest.mark.fault("a setting is misspelt, of another kind, or read by nothing")
@pytest.mark.parametrize(
    "override, message",
    [
        ("train.max_iters=3", "no key train.max_iters: did you mean train.max_iter?"),
        ("trainn.max_iter=3", "no key trainn: did you mean train?"),
        ("TRAIN.MAX_ITER=10", r"no key TRAIN: did you mean train\.max_iter\? \(\+TRAIN.MAX"),
        ("SOLVER.MAX_ITER=10", r"no key SOLVER: did you mean train\.max_iter\? "),
        ("MODEL.BACKBONE.FREEZE_AT=0", "no key MODEL: did you mean .*freeze_at"),
        (
            "DATALOADER.NUM_WORKERS=0",
            "did you mean dataloader.(train|test).num_workers or dataloader.(train|test).num_w",
        ),
        ("train.eval_perod=3", "no key train.eval_perod: did you mean train.eval_period?"),
        ("train.checkpointer={perod:3}", "train.checkpointer.perod: did you mean train.check"),
        ("train.output_dir=None", "train.output_dir=None: give a folder to write to, as train"),
        ("train.output_dir=null", "train.output_dir=null: give a folder to write to, as train"),
        ("train.device=None", "is written null: train.device=null; the text is quoted: "),
        ("train.clip_gradients = None", "is written null: train.clip_gradients=null"),
        ("train.max_iter.x=3", "train.max_iter is 1800, which has no key 'x'"),
        ("optimizer.learning=3", "no key optimizer.learning: "),
        ("dataloader.train.mapper.augmentations.7.prob=1", "augmentations.7: known are "),
        ("train.max_iter=abc", "'abc' is not a number, as 1800 is"),
        ("train.max_iter=", "'' is not a number, as 1800 is"),
        ("train.max_iter=true", "True is not a number, as 1800 is"),
        ("optimizer.lr=nan", "nan is not a number, as 0.002 is"),
        ("train.max_iter=inf", "inf is not a number, as 1800 is"),
        ("optimizer.lr=0,01", "a list is written in brackets"),
        ("train.max_iter=1/3", "'1/3' is not a number"),
        ("train.max_iter=" + "9" * 5000, "cannot read the value in 'train.max_iter=9"),
        (
            "train.max_iter=" + "[" * 5000,
            "cannot read the value in 'train.max_iter=.{40,60}: it is",
        ),
        ("train.amp.enabled=maybe", "'maybe' is not true or false"),
        ("train.amp.enabled=2", "2 is not true or false"),
        ("train.amp=true", "a group of keys, of which each has a value: enabled, precision"),
        ("train.output_dir=${nowhere}", "'nowhere' not found"),
        ("train.output_dir=${", "train.output_dir=..."),
        ("train.output_dir=\udcff", "no text in UTF-8"),
        ("train.scale_to_batch_size=(", "cannot read the value"),
        ("+train.max_iter.x=3", "train.max_iter is 1800, which has no keys"),
        ("train..max_iter=3", "'train..max_iter' in 'train..max_iter=3' is no key"),
        ("=3", "'' in '=3' is no key"),
        ("dataloader.train.mapper.augmentations[7].prob=1", "augmentations.7: known are "),
        ("dataloader.train.mapper.augmentations.-1.prob=1", "no key .*augmentations.-1"),
        ("SOLVER.MAX_ITER", "'SOLVER.MAX_ITER' is no override: write key=value"),
        ("SOLVER.BASE_LR 0.01", "no override: write key=value, here 'SOLVER.BASE_LR=0.01'"),
        ("SOLVER.BASE_LR=0.01", "no key SOLVER: "),
        ("~train.seed=1", "keys cannot be deleted"),
        ("~train.seed", "keys cannot be deleted"),
        ("''", "is no override"),
    ],
    ids=lambda text: text[:40],
)
def test_refused(config, override, message):
    before = OmegaConf.to_container(config)
    words = override.split() if "SOLVER" in override else [override]
    with pytest.raises(ConfigError, match=message) as error:
        apply_overrides(config, words)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert OmegaConf.to_container(config) == before


@pytest.mark.parametrize(
    "override, key, value",
    [
        ("train.max_iter=7", "train.max_iter", 7),
        ("train.max_iter=1e3", "train.max_iter", 1000),
        ("train.scale_to_batch_size=2", "train.scale_to_batch_size", 2),  # None before
        ("train.output_dir='None'", "train.output_dir", "None"),
        ("train.best_checkpointer=null", "train.best_checkpointer", None),
        ("train.checkpointer={period:3}", "train.checkpointer", {"period": 3, "max_to_keep": 2}),
        ("train.max_iter=1_000", "train.max_iter", 1000),
        ("train.max_iter=1e3 train.max_iter=7", "train.max_iter", 7),  # the last counts
        ("train.max_iter = 7", "train.max_iter", 7),
        ("train.max_iter =7", "train.max_iter", 7),
        ("train.max_iter= 7", "train.max_iter", 7),
        ("train.seed=-1", "train.seed", -1),
        ("train.seed = -1", "train.seed", -1),
        ("train.scale_to_batch_size=1e1", "train.scale_to_batch_size", 10),
        ("optimizer.lr=.5", "optimizer.lr", 0.5),
        ("train.amp.enabled=True", "train.amp.enabled", True),
        ("train.amp.enabled=yes", "train.amp.enabled", True),
        ("train.amp.enabled=OFF", "train.amp.enabled", False),
        ("train.amp.enabled=1", "train.amp.enabled", True),
        ("train.init_checkpoint=", "train.init_checkpoint", ""),
        ("train.output_dir=${train.device}", "train.output_dir", "cpu"),
        ("dataloader.test.dataset.names=[a,b]", "dataloader.test.dataset.names", ["a", "b"]),
        ("optimizer.lr=1", "optimizer.lr", 1),
        ("train.clip_gradients.norm_type=inf", "train.clip_gradients.norm_type", float("inf")),
        # An argument of what is built, at its default so far.
        ("optimizer.amsgrad=true", "optimizer.amsgrad", True),
        ("model.proposal_generator.nms_thresh=0.5", "model.proposal_generator.nms_thresh", 0.5),
        (
            "dataloader.train.mapper.augmentations.0.short_edge_length=[64,64]",
            "dataloader.train.mapper.augmentations.0.short_edge_length",
            [64, 64],
        ),
        (
            "dataloader.train.mapper.augmentations[0].short_edge_length=[1e2,64]",
            "dataloader.train.mapper.augmentations.0.short_edge_length",
            [100, 64],
        ),
        ("+train.ddp.static_graph=true", "train.ddp.static_graph", True),
    ],
)
def test_taken(config, override, key, value):
    config.train.device = "cpu"
    result = OmegaConf.select(apply_overrides(config, override.split()), key)
    assert result == value and type(result) is type(OmegaConf.create({"x": value}).x)


PATHS = (
    *("run(1)", "a,b", "a=b", "{x", "[x", "(", "a b/c", "é/日本", "a#b;c|d&e!<f>", "it's", "100%"),
    *(
        "2024",
        "1e3",
        "true",
        "-x",
        "C:\\x",
        "$HOME/x",
        "*.pth",
        "https://x/y?a=b&c=d",
        "a\nb",
        "@a",
    ),
)


@pytest.mark.parametrize("path", PATHS)
def test_any_text_is_taken_where_there_is_text(config, path):
    apply_overrides(config, [f"train.output_dir={path}", f'train.init_checkpoint="{path}"'])
    assert config.train.output_dir == path
    assert config.train.init_checkpoint == path


def test_the_home_folder(config, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of somebody")
    apply_overrides(config, ["train.output_dir=~/runs", "train.init_checkpoint=a~/b"])
    assert config.train.output_dir == "/home/of somebody/runs"
    assert config.train.init_checkpoint == "a~/b"


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.sampled_from(
        ["train.output_dir=", "train.max_iter=", "train.amp.enabled=", "train.ema=", ""]
    )
    | st.text(max_size=12),
    st.text(max_size=12) | st.text("[]{}()=,.:'\"\\$~+-#019aeé \n", max_size=12),
)
def test_whatever_is_typed_is_taken_or_told_in_one_line(key, value):
    config = OmegaConf.create(
        {"train": {"output_dir": "a", "max_iter": 3, "amp": {"enabled": True}, "ema": None}}
    )
    try:
        apply_overrides(config, [key + value])
    except ConfigError as error:
        assert "\n" not in str(error)

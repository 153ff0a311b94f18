"""Overrides: what a person may type works, or is told in one line."""

import pytest
from detectron2.engine import default_argument_parser
from omegaconf import OmegaConf

from aiparsing_d2 import model_zoo
from aiparsing_d2.engine import ConfigError, apply_overrides, parse_arguments


@pytest.fixture
def config():
    return model_zoo.get_config("demo/aiparsing_tiny_FPN_drawn_cihp")


@pytest.mark.parametrize(
    "override, message",
    [
        ("train.max_iters=3", "no key train.max_iters: did you mean train.max_iter?"),
        ("trainn.max_iter=3", "no key trainn: did you mean train?"),
        ("train.eval_perod=3", "no key train.eval_perod: did you mean train.eval_period?"),
        ("train.checkpointer={perod:3}", "train.checkpointer.perod: did you mean train.check"),
        ("train.max_iter.x=3", "train.max_iter is 2000, which has no key 'x'"),
        ("optimizer.learning=3", "no key optimizer.learning: "),
        ("dataloader.train.mapper.augmentations.7.prob=1", "augmentations.7: known are "),
        ("train.max_iter=abc", "'abc' is not a number, as 2000 is"),
        ("train.amp.enabled=yes", "'yes' is not true or false, as False is"),
        ("train.output_dir=run(1)", "cannot read the value in 'train.output_dir=run.1.'"),
        ("train.output_dir=a,b", "a list is written in brackets"),
        ("SOLVER.MAX_ITER", "'SOLVER.MAX_ITER' is no override: write key=value"),
        ("~train.seed=1", "keys cannot be deleted"),
    ],
)
def test_refused(config, override, message):
    before = OmegaConf.to_container(config)
    with pytest.raises(ConfigError, match=message) as error:
        apply_overrides(config, [override])
    assert "\n" not in str(error.value)
    assert OmegaConf.to_container(config) == before


@pytest.mark.parametrize(
    "override, key, value",
    [
        ("train.max_iter=7", "train.max_iter", 7),
        ("train.max_iter=1e3", "train.max_iter", 1000),
        ("train.scale_to_batch_size=2", "train.scale_to_batch_size", 2),  # None before
        ("train.best_checkpointer=null", "train.best_checkpointer", None),
        ("train.checkpointer={period:3}", "train.checkpointer", {"period": 3, "max_to_keep": 2}),
        ("train.output_dir='run(1)'", "train.output_dir", "run(1)"),
        ("optimizer.lr=1", "optimizer.lr", 1),
        # An argument of what is built, at its default so far.
        ("optimizer.amsgrad=true", "optimizer.amsgrad", True),
        ("model.proposal_generator.nms_thresh=0.5", "model.proposal_generator.nms_thresh", 0.5),
        (
            "dataloader.train.mapper.augmentations.0.short_edge_length=[64,64]",
            "dataloader.train.mapper.augmentations.0.short_edge_length",
            [64, 64],
        ),
        ("+train.ddp.static_graph=true", "train.ddp.static_graph", True),
    ],
)
def test_taken(config, override, key, value):
    result = OmegaConf.select(apply_overrides(config, [override]), key)
    assert result == value and type(result) is type(OmegaConf.create({"x": value}).x)


def test_flags_before_between_and_behind_overrides():
    words = ["--resume", "a=1", "--num-gpus", "2", "b=2", "--eval-only", "c=3"]
    args = parse_arguments(default_argument_parser(), words)
    assert (args.resume, args.eval_only, args.num_gpus) == (True, True, 2)
    assert args.opts == ["a=1", "b=2", "c=3"]
    assert parse_arguments(default_argument_parser(), ["--resume"]).opts == []
    with pytest.raises(SystemExit):
        parse_arguments(default_argument_parser(), ["a=1", "--no-such-flag"])

"""Linear scaling, against the figures of the paper's run worked out by hand."""

import copy

import pytest
from detectron2.config import instantiate

from aiparsing_d2 import model_zoo
from aiparsing_d2.engine import scale_to_batch_size


@pytest.fixture(scope="module")
def config():
    return model_zoo.get_config("cihp/aiparsing_R_50_FPN_cihp_75ep")


def figures(cfg):
    return (
        cfg.dataloader.train.total_batch_size,
        cfg.optimizer.lr,
        cfg.train.max_iter,
        cfg.train.eval_period,
        cfg.train.checkpointer.period,
    )


@pytest.mark.parametrize(
    "batch_size, expected",
    [
        (2, (2, 0.00125, 1_060_500, 70_700, 14_140)),
        (8, (8, 0.005, 265_125, 17_675, 3_535)),
        (16, (16, 0.01, 132_562, 8_838, 1_768)),
    ],
)
def test_the_cihp_run_at_other_batch_sizes(config, batch_size, expected):
    before = copy.deepcopy(config)
    scaled = scale_to_batch_size(config, batch_size)
    assert figures(scaled) == pytest.approx(expected, rel=1e-12)
    assert config == before
    # The optimiser's groups follow, and a second call changes nothing more.
    assert scaled.optimizer.params.base_lr == scaled.optimizer.lr
    assert scale_to_batch_size(scaled, batch_size) == scaled


def test_drops_and_warm_up_happen_after_as_many_images(config):
    """Batch 2: warm-up for 2,000 iterations, drops at 707,000 and 919,100."""
    scaled = scale_to_batch_size(config, 2)
    schedule = instantiate(scaled.lr_multiplier)
    rates = {
        i: schedule(i / scaled.train.max_iter)
        for i in (1_990, 2_000, 706_990, 707_000, 919_090, 919_100, 1_060_499)
    }
    assert list(rates.values()) == pytest.approx([1 / 3, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_periods_stay_possible():
    config = model_zoo.get_config("demo/aiparsing_tiny_FPN_drawn_cihp")
    config.train.eval_period = 0
    config.train.checkpointer.period = 1
    scaled = scale_to_batch_size(config, 64)
    assert (scaled.train.eval_period, scaled.train.checkpointer.period) == (0, 1)


@pytest.mark.parametrize("batch_size", [0, -8, 2.5, True, "8"])
def test_a_wrong_batch_size(config, batch_size):
    with pytest.raises(ValueError, match=r"positive integer, got"):
        scale_to_batch_size(config, batch_size)

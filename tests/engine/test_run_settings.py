"""Every setting of a run has an effect: what nothing reads is refused, with the nearest name."""

import copy
import dataclasses
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from aiparsing_d2 import model_zoo
from aiparsing_d2.engine import ConfigError, apply_overrides, load_lazy_config, training
from aiparsing_d2.engine.run_settings import TrainSettings, check_settings

DEMO = "demo/aiparsing_tiny_FPN_drawn_cihp"
EXPERIMENTS = [name for name in model_zoo.list_configs() if not name.endswith(".yaml")]


@pytest.fixture(scope="module")
def demo():
    return model_zoo.get_config(DEMO)


@pytest.fixture
def config(demo):
    return copy.deepcopy(demo)


@pytest.mark.parametrize("name", EXPERIMENTS[::4])
def test_configs_of_the_zoo_have_nothing_that_is_not_read(name):
    check_settings(model_zoo.get_config(name))


def test_the_device_chooses_the_precision_of_the_zoos_trainings():
    config = model_zoo.get_config("cihp/aiparsing_R_50_FPN_cihp_75ep")
    assert config.train.amp.enabled is None and TrainSettings().amp.enabled is None
    for wrong in ("maybe", "2", "bfloat16"):
        changed = apply_overrides(copy.deepcopy(config), [f"train.amp.enabled={wrong}"])
        with pytest.raises(ConfigError, match="train.amp.enabled"):
            check_settings(changed)


def test_train_has_the_keys_that_are_known_and_the_training_reads_them(config):
    fields = dataclasses.fields(TrainSettings)
    assert set(config.train) == {field.name for field in fields}
    code = Path(training.__file__).read_text("utf-8")
    for field in fields:
        assert re.search(rf"""(train\.{field.name}\b|train\.get\("{field.name}")""", code)


@pytest.mark.fault("a setting is misspelt, of another kind, or read by nothing")
@pytest.mark.fault("a setting is out of its range, or no GPU is there for `train.device=cuda`")
@pytest.mark.parametrize(
    "override, message",
    [
        ("+train.max_iters=5", "nothing reads train.max_iters; did you mean train.max_iter?"),
        ("+train.eval_perod=5", "nothing reads train.eval_perod; did you mean train.eval_period?"),
        ("+train.amp.enable=true", "nothing reads train.amp.enable; did you mean train.amp.ena"),
        ("+train.checkpointer.perod=3", "nothing reads train.checkpointer.perod; did you mean"),
        ("+train.ddp.find_unused=true", "nothing reads train.ddp.find_unused; "),
        ("+dataloader.tset=3", "nothing reads dataloader.tset; did you mean dataloader.test?"),
        ("+optimizer.weight_decy=3", "nothing reads optimizer.weight_decy; did you mean opt"),
        ("+dataloader.train.mapper.augmentations.1.probability=1", "augmentations.1.probability"),
        ("+test_time_augmentation.enable=true", "test_time_augmentation.enable; did you mean"),
        ("+lr_multiplyer=3", "nothing reads lr_multiplyer; did you mean lr_multiplier?"),
        ("train.max_iter=2.5", "train.max_iter: Value '2.5'"),
        ("train.max_iter=0", "train.max_iter is 0; it must be at least 1"),
        ("train.max_iter=-5", "train.max_iter is -5; it must be at least 1"),
        ("train.device=gpu", "train.device is 'gpu'; it must be a device of PyTorch, as cuda for"),
        ("train.device=", "train.device is ''; it must be a device"),
        ("train.device=cuda:x", "train.device is 'cuda:x'; it must be a device"),
        ("train.log_period=0", "train.log_period is 0; it must be at least 1"),
        ("train.checkpointer.max_to_keep=0", "max_to_keep is 0; it must be at least 1"),
        ("train.ema.decay=1", "train.ema.decay is 1.0; it must be from 0 to less than 1"),
        ("train.clip_gradients.max_norm=0", "max_norm is 0.0; it must be more than 0"),
        ("train.clip_gradients.norm_type=0", "norm_type is 0.0; it must be more than 0, or inf"),
        ("train.seed=12345678901", "train.seed is 12345678901; it must be less than 2**32"),
        ("optimizer.lr=-1", "optimizer.lr is -1; it must be a finite number, at least 0"),
        ("optimizer.lr=inf", "optimizer.lr is inf; it must be a finite number"),
        ("dataloader.train.total_batch_size=0", "total_batch_size is 0; it must be a whole num"),
        ("dataloader.train.total_batch_size=2.5", "total_batch_size is 2.5; it must be a whole"),
        ("train.max_iter=null", "a run needs train.max_iter"),
        ("train.output_dir=", "train.output_dir='': give a folder to write to, as train.output_"),
        ("train.output_dir='None'", "train.output_dir='None': give a folder to write to"),
        ("train.output_dir=[a]", "train.output_dir: Cannot convert"),
        ("train.nonfinite=ignore", "train.nonfinite is 'ignore'; it must be one of stop, skip"),
        ("train.best_checkpointer.mode=most", "mode is 'most'; it must be one of max, min"),
        ("train.ema=null", "train.ema"),
        ("train=null", "a run needs a group train"),
        ("optimizer=null", "a run needs a group optimizer"),
    ],
)
def test_refused(config, override, message):
    apply_overrides(config, [override])
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        check_settings(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.best_checkpointer=null", "train.clip_gradients=null"],
        ["train.checkpointer.max_to_keep=null", "+train.ddp.static_graph=true"],
        ["+train.my_batch=2", "dataloader.train.total_batch_size=${train.my_batch}"],
        ["+num_epochs=75"],
        ["train.device=cuda:1"],
        ["train.writers=null", "dataloader.test=null", "dataloader.evaluator=null"],
        ["train.clip_gradients.norm_type=inf", "train.ema.decay=0", "train.seed=4294967295"],
    ],
)
def test_taken(config, overrides):
    check_settings(apply_overrides(config, overrides))


def test_no_value_of_a_file_is_no_folder(config):
    config.train.output_dir = None
    with pytest.raises(ConfigError, match="train.output_dir=None: give a folder to write to"):
        check_settings(config)


def test_evaluation_needs_no_optimizer(config):
    for key in ("optimizer", "lr_multiplier"):
        del config[key]
    check_settings(config, evaluation_only=True)
    with pytest.raises(ConfigError, match="a run needs a group optimizer"):
        check_settings(config)


def test_numbers_and_texts_of_a_file_are_not_guessed(config):
    for key, value in (("output_dir", 2024), ("max_iter", "3"), ("channels_last", "yes")):
        changed = copy.deepcopy(config)
        changed.train[key] = value
        with pytest.raises(ConfigError, match=f"train.{key} is {value!r}; it must be"):
            check_settings(changed)


@pytest.mark.parametrize("content", ["train: 3", "model: {}\ntrain: []", "- 1", "3", "", "a: {"])
def test_a_yaml_file_of_another_shape(tmp_path, content):
    file = tmp_path / "config.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError):
        check_settings(load_lazy_config(str(file)))


def test_settings_are_those_of_the_config(config):
    """A default here is that of configs/common/train.py, which explains it."""
    common = OmegaConf.create(model_zoo.get_config("common/train.py")["train"])
    for field in ("nonfinite", "seed", "channels_last", "eval_period", "log_period", "max_iter"):
        assert getattr(TrainSettings(), field) == common[field]

"""Every file under configs/: it loads, saves to readable YAML and instantiates."""

import re
from pathlib import Path

import pytest
from built_configs import EXPERIMENTS, build_without_memory, built_model
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig, ListConfig
from torch import nn

from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.data.datasets import register_parsing_dataset
from aiparsing_d2.engine import training
from aiparsing_d2.evaluation import ParsingEvaluator
from aiparsing_d2.modeling import AIParsing
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

CONFIGS = Path(__file__).parents[2] / "configs"
ALL = sorted(CONFIGS.rglob("*.py"))
LEAVES = [path for path in ALL if path.relative_to(CONFIGS).parts[0] != "common"]
CIHP_75EP = CONFIGS / "cihp/aiparsing_R_50_FPN_cihp_75ep.py"


def name_of(path):
    return path.relative_to(CONFIGS).with_suffix("").as_posix()


def test_there_are_configs_of_both_kinds():
    assert CIHP_75EP in LEAVES
    assert len(ALL) > len(LEAVES) >= 2
    assert {name_of(path) for path in LEAVES} == set(EXPERIMENTS)


@pytest.mark.parametrize("path", sorted(set(ALL) - set(LEAVES)), ids=name_of)
def test_loads(path):
    config = LazyConfig.load(str(path))
    assert all(isinstance(value, (DictConfig, ListConfig)) for value in config.values())
    if "model" in config:
        assert isinstance(build_without_memory(config.model), AIParsing)


@pytest.mark.parametrize("path", LEAVES, ids=name_of)
def test_saves_to_yaml_and_loads_back(path, tmp_path):
    config = LazyConfig.load(str(path))
    assert all(isinstance(value, (DictConfig, ListConfig)) for value in config.values())
    saved = tmp_path / "config.yaml"
    LazyConfig.save(config, str(saved))
    # What YAML cannot hold (a lambda, a module) Detectron2 pickles instead.
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
    loaded = LazyConfig.load(str(saved))
    assert set(loaded) == set(config)
    assert loaded.train == config.train
    before, after = built_model(name_of(path)), build_without_memory(loaded.model)
    assert {k: v.shape for k, v in after.state_dict().items()} == {
        k: v.shape for k, v in before.state_dict().items()
    }
    assert str(after) == str(before)


@pytest.fixture
def empty_split():
    name = "configs_test_empty"
    register_parsing_dataset(name, lambda: [], CIHP_PART_LABELS)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.mark.parametrize("path", LEAVES, ids=name_of)
def test_a_run_can_be_built(path, empty_split, tmp_path):
    config = LazyConfig.load(str(path))
    assert set(config) >= {"model", "dataloader", "optimizer", "lr_multiplier", "train"}
    model = built_model(name_of(path))
    assert isinstance(model, AIParsing)

    config.optimizer.params.model = model
    if "fused" in config.optimizer:
        config.optimizer.fused = False  # torch 2.4 has no fused steps of tensors without data
    optimizer = instantiate(config.optimizer)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}

    schedule = instantiate(config.lr_multiplier)
    multipliers = [schedule(i / 1000) for i in range(1000)]
    assert 0 < multipliers[0] < max(multipliers) <= 1
    assert 0 <= multipliers[-1] < max(multipliers)

    assert isinstance(instantiate(config.dataloader.train.mapper), ParsingDatasetMapper)
    assert isinstance(instantiate(config.dataloader.test.mapper), ParsingDatasetMapper)
    for split in ("train", "test"):
        assert config.dataloader[split].dataset.names in DatasetCatalog
    # The evaluator reads its split's ground truth, so it is built for one without files.
    config.dataloader.test.dataset.names = empty_split
    config.train.output_dir = str(tmp_path)
    assert isinstance(instantiate(config.dataloader.evaluator), ParsingEvaluator)
    # Periodic hooks fire during the run, and the best checkpoint is of an evaluated figure.
    assert 0 < config.train.eval_period <= config.train.max_iter
    assert 0 < config.train.checkpointer.period <= config.train.max_iter
    assert config.train.best_checkpointer.val_metric.split("/")[0] in ("parsing", "bbox")


def test_all_that_a_training_reads_has_a_default():
    train = LazyConfig.load(str(CONFIGS / "common/train.py")).train
    source = Path(training.__file__).read_text()
    read = set(re.findall(r'cfg\.train\.(?:get\("(\w+)"|(?!get\b)(\w+))', source))
    names = {a or b for a, b in read}
    assert {"output_dir", "scale_to_batch_size"} <= names <= set(train)
    # What Detectron2's default_setup takes for none.
    assert train.seed < 0


def test_the_cihp_run_is_the_papers():
    """Sec. IV: batch 8, rate 0.005, 75 epochs with drops at 50 and 65, 16 RoIs, 50 boxes."""
    config = LazyConfig.load(str(CIHP_75EP))
    assert config.train.max_iter == 265_125  # 75 * 28,280 / 8
    assert config.dataloader.train.total_batch_size == 8
    assert config.optimizer.lr == 0.005
    assert config.optimizer.momentum == 0.9
    assert config.optimizer.weight_decay == 1e-4
    assert config.train.init_checkpoint.endswith("MSRA/R-50.pkl")
    model = build_without_memory(config.model)
    assert sum(p.numel() for p in model.parameters()) == 50_369_506
    assert model.roi_heads.parsing_batch_size_per_image == 16
    assert model.roi_heads.batch_size_per_image == 16
    assert model.roi_heads.proposal_append_gt
    assert model.proposal_generator.post_nms_topk == (100, 50)
    # What Detectron2's MSRA weights were trained with.
    assert model.backbone.bottom_up.res3[0].conv1.stride == (2, 2)
    assert type(model.backbone.bottom_up.res3[0].conv1.norm).__name__ == "FrozenBatchNorm2d"
    assert config.model.pixel_mean == [103.53, 116.28, 123.675]
    assert config.model.pixel_std == [1.0, 1.0, 1.0]
    assert model.input_format == config.dataloader.train.mapper.image_format == "BGR"
    train, test = config.dataloader.train.mapper, config.dataloader.test.mapper
    assert (train.augmentations[0].short_edge_length, train.augmentations[0].max_size) == (
        [640, 800],
        1333,
    )
    assert (test.augmentations[0].short_edge_length, test.augmentations[0].max_size) == (800, 1333)


@pytest.mark.parametrize(
    "iteration, multiplier",
    [
        (0, 1 / 3),
        (499, 1 / 3),
        (500, 1.0),
        (176_749, 1.0),
        (176_750, 0.1),
        (229_774, 0.1),
        (229_775, 0.01),
        (265_124, 0.01),
    ],
)
def test_the_cihp_runs_learning_rate(iteration, multiplier):
    config = LazyConfig.load(str(CIHP_75EP))
    schedule = instantiate(config.lr_multiplier)
    assert schedule(iteration / config.train.max_iter) == pytest.approx(multiplier, rel=1e-9)


def parameter_groups(optimizer_config, module):
    """(rate, weight decay) by parameter name."""
    optimizer_config.params.model = module
    groups = instantiate(optimizer_config).param_groups
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def test_biases_learn_twice_as_fast_and_with_norms_do_not_decay():
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))
    config = LazyConfig.load(str(CONFIGS / "common/optim.py"))
    assert parameter_groups(config.SGD, module) == {
        "0.weight": (0.005, 1e-4),
        "0.bias": (0.01, 0.0),
        "1.weight": (0.005, 0.0),
        "1.bias": (0.01, 0.0),
    }
    # Overriding the rate reaches every group.
    config.SGD.lr = 0.02
    assert parameter_groups(config.SGD, module)["0.bias"] == (0.04, 0.0)
    assert parameter_groups(config.AdamW, module) == {
        "0.weight": (1e-3, 0.05),
        "0.bias": (1e-3, 0.0),
        "1.weight": (1e-3, 0.0),
        "1.bias": (1e-3, 0.0),
    }


def test_cosine_schedule_by_hand():
    demo = LazyConfig.load(str(CONFIGS / "demo/aiparsing_tiny_FPN_drawn_cihp.py"))
    assert isinstance(demo.lr_multiplier, DictConfig)
    schedule = instantiate(demo.lr_multiplier)
    warmup = demo.lr_multiplier.warmup_length
    assert schedule(0.0) == pytest.approx(0.01)
    assert schedule(0.5) == pytest.approx(0.5)  # half a cosine is half-way down
    assert schedule(1.0) == pytest.approx(0.0, abs=1e-6)
    assert schedule(warmup / 2) == pytest.approx((0.01 + schedule(warmup)) / 2, rel=1e-3)

"""What a training is built of; its loader with a seed, with all that is random in a config."""

import argparse
import itertools
import uuid

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.env import seed_all_rng

from aiparsing_d2 import model_zoo
from aiparsing_d2.data.datasets import register_cihp
from aiparsing_d2.engine import ConfigError, apply_overrides, load_lazy_config
from aiparsing_d2.engine.training import (
    build_train_loader,
    do_test,
    prepare_training,
    read_config,
)
from aiparsing_d2.structures import PartMaps

BATCH_SIZE, NUM_BATCHES = 3, 5


@pytest.fixture
def mixed_config(cihp_folder):
    """Copy-paste, crops, mirroring and colours, on two data sets mixed by weights."""
    rng = np.random.default_rng(0)
    names = []
    for split in ("train", "val"):
        cihp_folder.split = split
        for i in range(4):
            human_map = np.zeros((64, 48), np.uint8)
            human_map[4 + 5 * i : 60, 6 + 4 * i : 36] = 1
            image = rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)
            cihp_folder.add(f"{split}{i}", 5 * human_map, human_map, image)
        names.append(f"mixed_{split}_{uuid.uuid4().hex}")
        register_cihp(names[-1], cihp_folder.root, split)
    cfg = model_zoo.get_config("photographs/aiparsing_lite0_FPN_ccp")
    cfg.dataloader = model_zoo.get_config("common/data/ccp_and_drawn").dataloader
    train = cfg.dataloader.train
    train.dataset.names, train.mapper.copy_paste.records.names = names, names[0]
    train.mapper.copy_paste.cache_size = 2
    train.total_batch_size = BATCH_SIZE
    yield cfg
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def first_batches(cfg, num_workers, seed=1):
    cfg.dataloader.train.num_workers, cfg.train.seed = num_workers, seed
    seed_all_rng(seed)  # as default_setup does
    return [
        [sample["image_id"], sample["image"], *sample["instances"].get_fields().values()]
        for batch in itertools.islice(build_train_loader(cfg), NUM_BATCHES)
        for sample in batch
    ]


def are_equal(one, other):
    """Whether two fields of a sample are the same, bit by bit."""
    if isinstance(one, str):
        return one == other
    if isinstance(one, PartMaps):
        one, other = one.to_full(), other.to_full()
    return torch.equal(*(getattr(x, "tensor", x) for x in (one, other)))


def test_one_seed_gives_the_same_bits_whatever_the_number_of_workers(mixed_config):
    expected = first_batches(mixed_config, 0)
    people = [len(sample[2]) for sample in expected]
    names = {sample[0] for sample in expected}
    # People were pasted, and both data sets are there.
    assert max(people) > 1 and {name.rstrip("0123456789") for name in names} == {"train", "val"}
    for num_workers in (1, 3):
        found = first_batches(mixed_config, num_workers)
        for one, other in zip(expected, found, strict=True):
            assert all(map(are_equal, one, other))
    # Another seed gives other images of the same records.
    other = first_batches(mixed_config, 0, seed=2)
    assert not any(torch.equal(a[1], b[1]) for a in expected for b in other)


def records_of(names, **_):
    return [{"width": 1, "height": 1}]


@pytest.mark.fault("a setting is out of its range, or no GPU is there for `train.device=cuda`")
@pytest.mark.parametrize(
    "override, message",
    [
        ("model.proposal_generator.box_loss_type=ciou", "^model: unknown box loss 'ciou'; choose"),
        (
            "model.backbone.out_channels=48",
            r"^model: num_channels \(48\) must be divisible by num_groups",
        ),
        ("model.part_box_weight=2", "^model: .*part_box_weight"),
        ("optimizer.lr=null", r"^optimizer: .*\(TypeError in \w+.py, line \d+\)$"),
        ("optimizer.params=null", "^optimizer: .*'NoneType'"),
        ("dataloader.train.num_workers=-1", "^dataloader.train: .*num_workers"),
        ("dataloader.test.num_workers=-1", "^dataloader.test: .*num_workers"),
        ("lr_multiplier.scheduler=null", "^lr_multiplier: .*TypeError in"),
    ],
)
def test_what_cannot_be_built_is_told_with_its_node(tmp_path, override, message):
    cfg = apply_overrides(model_zoo.get_config("demo/aiparsing_tiny_FPN_drawn_cihp"), [override])
    if not override.startswith("model"):
        cfg.model = L(torch.nn.Linear)(in_features=1, out_features=1)
    for loader in (cfg.dataloader.train, cfg.dataloader.test):
        loader.dataset._target_ = records_of
    cfg.train.output_dir, cfg.train.device = str(tmp_path), "cpu"
    with pytest.raises(ConfigError, match=message) as error:
        prepare_training(argparse.Namespace(resume=False), cfg)
    assert "\n" not in str(error.value)


def test_an_error_of_a_file_stays_what_it_is(tmp_path):
    cfg = model_zoo.get_config("demo/aiparsing_tiny_FPN_drawn_cihp")
    cfg.model = L(open)(file=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prepare_training(argparse.Namespace(resume=False), cfg)


def test_a_run_without_a_test_set_evaluates_nothing_and_leaves_its_config(tmp_path):
    cfg = read_config(
        argparse.Namespace(
            config_file=model_zoo.find_config_file("demo/aiparsing_tiny_FPN_drawn_cihp"),
            opts=["dataloader.test=null", "dataloader.evaluator=null"],
            eval_only=False,
        )
    )
    assert do_test(cfg, torch.nn.Linear(1, 1)) is None
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    assert load_lazy_config(str(tmp_path / "config.yaml")).dataloader.test is None

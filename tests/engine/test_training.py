"""The training loader of a run with a seed, with all that is random in a config."""

import itertools
import uuid

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.env import seed_all_rng

from aiparsing_d2 import model_zoo
from aiparsing_d2.data.datasets import register_cihp
from aiparsing_d2.engine.training import build_train_loader
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

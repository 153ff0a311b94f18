"""The full model learns a handful of images by heart: every part works together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import SimpleTrainer, hooks
from detectron2.evaluation import inference_on_dataset

from aiparsing_d2.data.datasets import register_cihp
from aiparsing_d2.data.drawn_scenes import DataSetRequest, write_data_set

CONFIG = Path(__file__).parents[1] / "configs/demo/aiparsing_tiny_FPN_drawn_cihp.py"
NUM_IMAGES = 4
NUM_ITERATIONS = 400


@pytest.fixture
def four_scenes(tmp_path):
    write_data_set(tmp_path / "drawn", DataSetRequest(num_train=NUM_IMAGES, num_val=1, seed=3))
    register_cihp("four_scenes", tmp_path / "drawn", "train")
    yield "four_scenes"
    DatasetCatalog.remove("four_scenes")
    MetadataCatalog.remove("four_scenes")


@pytest.mark.slow
def test_overfits_four_images(four_scenes):
    torch.manual_seed(0)
    cfg = LazyConfig.load(str(CONFIG))
    cfg.dataloader.train.dataset.names = cfg.dataloader.test.dataset.names = four_scenes
    # The images to learn are those to be asked for: same size, no flips.
    cfg.dataloader.train.mapper.augmentations = cfg.dataloader.test.mapper.augmentations
    cfg.dataloader.train.total_batch_size = NUM_IMAGES
    cfg.dataloader.train.num_workers = cfg.dataloader.test.num_workers = 0
    cfg.dataloader.evaluator.output_dir = None

    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, NUM_ITERATIONS)
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), optimizer)
    trainer.register_hooks([hooks.LRScheduler(optimizer, schedule)])
    trainer.train(0, NUM_ITERATIONS)

    results = inference_on_dataset(
        model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    )
    assert results["bbox"]["AP50"] >= 95
    assert results["parsing"]["mIoU"] >= 85

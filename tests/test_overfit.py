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
from aiparsing_d2.drawn_scenes import CIHPRequest, write_data_set

CONFIG = Path(__file__).parents[1] / "configs/demo/aiparsing_tiny_FPN_drawn_cihp.py"
NUM_IMAGES = 3
NUM_ITERATIONS = 500


@pytest.fixture
def few_scenes(tmp_path):
    write_data_set(tmp_path / "drawn", CIHPRequest(num_train=NUM_IMAGES, num_val=1, seed=3))
    register_cihp("few_scenes", tmp_path / "drawn", "train")
    yield "few_scenes"
    DatasetCatalog.remove("few_scenes")
    MetadataCatalog.remove("few_scenes")


@pytest.mark.slow
def test_overfits_few_images(few_scenes):
    torch.manual_seed(0)
    cfg = LazyConfig.load(str(CONFIG))
    cfg.dataloader.train.dataset.names = cfg.dataloader.test.dataset.names = few_scenes
    # The images to learn are those to be asked for: same size, no flips.
    cfg.dataloader.train.mapper.augmentations = cfg.dataloader.test.mapper.augmentations
    cfg.dataloader.train.total_batch_size = NUM_IMAGES
    cfg.dataloader.train.num_workers = cfg.dataloader.test.num_workers = 0
    cfg.dataloader.evaluator.output_dir = None
    # Logits of 128 x 128: with the demo's 48 x 48, even perfect ones would end below the mark.
    cfg.model.roi_heads.parsing_pooler.output_size = 32
    cfg.model.roi_heads.parsing_head.upsample_factor = 2

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

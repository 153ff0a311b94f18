"""The DefaultTrainer of docs/DETECTRON2.md, as it stands there."""

import json
import re
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from aiparsing_d2 import model_zoo
from aiparsing_d2.data.datasets import register_cihp

DOCUMENT = Path(__file__).parents[2] / "docs" / "DETECTRON2.md"


def shrunk(cfg):
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.FPN.OUT_CHANNELS = 64
    cfg.MODEL.FCOS_PROPOSALS.NUM_CONVS = 1
    head = cfg.MODEL.ROI_PARSING_HEAD
    head.POOLER_RESOLUTION, head.UPSAMPLE_FACTOR = 8, 2
    head.NUM_CONV, head.CONV_DIM, head.SCORE_CONV_DIM, head.SCORE_FC_DIM = 2, 32, 8, 8
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("yacs_train",), ("yacs_val",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (64, 64), 64
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 2, 2, ()
    return cfg


def test_it_trains_and_evaluates(cihp_folder, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    human_map = np.zeros((64, 96), np.uint8)
    human_map[8:60, 20:60] = 1
    for split in ("train", "val"):
        cihp_folder.split = split
        for name in ("a", "b"):
            image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            cihp_folder.add(name, 5 * human_map, human_map, image)
        register_cihp(f"yacs_{split}", cihp_folder.root, split)
    original = model_zoo.get_config
    monkeypatch.setattr(model_zoo, "get_config", lambda name: shrunk(original(name)))
    monkeypatch.chdir(tmp_path)
    section = DOCUMENT.read_text().partition("## A trainer for yacs configs\n")[2]
    section = section.partition("\n## ")[0]
    namespace = {"__name__": "document"}
    try:
        for block in re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
            exec(block, namespace)
    finally:
        for split in ("train", "val"):
            DatasetCatalog.remove(f"yacs_{split}")
            MetadataCatalog.remove(f"yacs_{split}")

    metrics = [json.loads(x) for x in Path("output/yacs/metrics.json").read_text().splitlines()]
    trained = [line for line in metrics if "total_loss" in line]
    assert trained[-1]["iteration"] == 1 and np.isfinite(trained[-1]["total_loss"])
    weights = torch.load("output/yacs/model_final.pth", weights_only=True)
    assert weights["iteration"] == 1
    written = json.loads(Path("output/yacs/parsing_results.json").read_text())
    assert written["num_images"] == 2
    assert written["results"]["parsing"]["mIoU"] == namespace["results"]["parsing"]["mIoU"]

"""A small model with random weights that finds people of many sizes in any picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from omegaconf import DictConfig

from aiparsing_d2 import model_zoo

CONFIG = "demo/aiparsing_tiny_FPN_drawn_cihp"


def tiny_config() -> DictConfig:
    """The demo's model, which keeps the six best of all candidates."""
    cfg = model_zoo.get_config(CONFIG)
    cfg.model.proposal_generator.score_thresh = 0.0
    cfg.model.proposal_generator.post_nms_topk = (10, 6)
    # Random weights have no likely parts.
    cfg.model.roi_heads.parsing_head.min_part_probability = 0.0
    return cfg


def save_tiny_weights(path: Path) -> Path:
    """Boxes have sides of about 60 pixels, scores differ, and so do the parts' probabilities."""
    torch.manual_seed(3)
    model = instantiate(tiny_config().model)
    head = model.proposal_generator.head
    with torch.no_grad():
        head.box_pred.bias.fill_(3.4)
        for layer in (head.box_pred, head.cls_logits, head.centerness):
            layer.weight.normal_(std=0.05)
        for layer in model.roi_heads.modules():
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                layer.weight.mul_(3)
    torch.save({"model": model.state_dict()}, path)
    return path


def random_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """RGB, with large and small structures."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    fine = generator.integers(-40, 41, (height, width, 3))
    pixels = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width] + fine
    return pixels.clip(0, 255).astype(np.uint8)

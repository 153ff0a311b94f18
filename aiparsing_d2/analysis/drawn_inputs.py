"""Pictures and people to measure models on, made without any data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from detectron2.structures import Instances, PolygonMasks
from torch import Tensor

from aiparsing_d2.drawn_scenes import draw_scene
from aiparsing_d2.structures import PartMaps

__all__ = ["draw_image", "people_boxes", "people_logits", "training_batch"]


@lru_cache
def draw_image(size: tuple[int, int], num_people: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """Draw a scene: uint8 BGR (3, H, W), and people's part maps uint8 (N, H, W)."""
    scene = draw_scene(np.random.default_rng(seed), *size, num_people)
    image = torch.as_tensor(np.ascontiguousarray(scene.image[:, :, ::-1].transpose(2, 0, 1)))
    numbers = np.arange(1, num_people + 1)[:, None, None]
    return image, scene.category_map * (scene.human_map == numbers)


def people_boxes(count: int, size: Sequence[int]) -> Tensor:
    """Boxes (N, 4) of upright people, XYXY in pixels; the first ones are the same for any N."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(count, 3, generator=generator)
    h = (0.3 + 0.6 * u[:, 0]) * height
    w = (0.4 * h).clamp(max=width)
    x0, y0 = u[:, 1] * (width - w), u[:, 2] * (height - h)
    return torch.stack([x0, y0, x0 + w, y0 + h], dim=1)


@lru_cache
def people_logits(count: int, num_classes: int, side: int) -> Tensor:
    """Logits (N, C, M, M) as a trained head gives them: sure of drawn parts, less so between them.

    The first people are the same for any N.
    """
    _, maps = draw_image((400, 500), 6, seed=1)
    part_maps = PartMaps.from_full(maps)
    labels = part_maps.crop_and_resize(part_maps.get_bounding_boxes().tensor, side).long()
    # From those of CIHP, on which the scenes are drawn, over all there are.
    labels = (labels > 0) * (1 + (labels - 1) * (num_classes - 1) // 19)
    drawn = F.one_hot(labels, num_classes).permute(0, 3, 1, 2).float()
    drawn = F.avg_pool2d(10 * drawn, 3, stride=1, padding=1, count_include_pad=False)
    generator = torch.Generator().manual_seed(0)
    people = [
        drawn[i % len(drawn)] + torch.randn(drawn.shape[1:], generator=generator)
        for i in range(count)
    ]
    return torch.stack(people)


def training_batch(
    key: str, batch_size: int, size: tuple[int, int], num_people: int, num_scenes: int = 2
) -> list[dict[str, Any]]:
    """Images with the targets that a model's mapper gives it; few scenes, over and over."""
    scenes = []
    for seed in range(min(num_scenes, batch_size)):
        image, maps = draw_image(size, num_people, seed)
        part_maps = PartMaps.from_full(maps)
        target = Instances(size, gt_boxes=part_maps.get_bounding_boxes())
        target.gt_classes = torch.zeros(num_people, dtype=torch.int64)
        if key == "mask-rcnn":
            target.gt_masks = PolygonMasks([outlines(person_map) for person_map in maps])
        else:
            target.gt_part_maps = part_maps
        scenes.append({"image": image, "instances": target})
    return [dict(scenes[i % len(scenes)]) for i in range(batch_size)]


def outlines(person_map: np.ndarray) -> list[np.ndarray]:
    """Polygons of a person, as Detectron2's Mask R-CNN takes them."""
    mask = (person_map > 0).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [c.reshape(-1).astype(np.float64) for c in contours if len(c) >= 3]

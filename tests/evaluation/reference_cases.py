"""Inputs and the numbers of the published reference evaluators, stored in ``cases``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CASE_FOLDER = Path(__file__).parent / "cases"
CASE_NAMES = sorted(path.stem for path in CASE_FOLDER.glob("*.json"))


@dataclass(frozen=True)
class CaseImage:
    """One image of a case; boxes are XYXY with exclusive ends."""

    name: str
    gt_maps: np.ndarray
    category_map: np.ndarray
    human_map: np.ndarray
    gt_boxes: np.ndarray
    maps: np.ndarray
    scores: np.ndarray
    part_scores: np.ndarray
    boxes: np.ndarray
    # The same people painted by the reference: what mIoU and AP^r are computed on.
    shown_category_map: np.ndarray
    region_map: np.ndarray
    region_classes: np.ndarray
    region_scores: np.ndarray


@dataclass(frozen=True)
class Case:
    num_classes: int
    settings: dict[str, float]
    images: list[CaseImage]
    expected: dict


def load_case(name: str) -> Case:
    description = json.loads((CASE_FOLDER / f"{name}.json").read_text())
    with np.load(CASE_FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    images = [
        CaseImage(
            name=str(image_name),
            gt_maps=arrays[f"{i}/gt"],
            category_map=arrays[f"{i}/gt_global"],
            human_map=arrays[f"{i}/human"],
            gt_boxes=_xywh_to_xyxy(arrays[f"{i}/gt_boxes"]),
            maps=arrays[f"{i}/pred"],
            scores=arrays[f"{i}/scores"],
            part_scores=arrays[f"{i}/part_scores"],
            boxes=_xywh_to_xyxy(arrays[f"{i}/pred_boxes"]),
            shown_category_map=arrays[f"{i}/pred_global"],
            region_map=arrays[f"{i}/pred_inst"],
            region_classes=arrays[f"{i}/pred_inst_cls"],
            region_scores=arrays[f"{i}/pred_inst_score"],
        )
        for i, image_name in enumerate(arrays["names"])
    ]
    keys = ("score_thresh", "semseg_thresh", "part_score_thresh")
    return Case(
        num_classes=description["num_classes"],
        settings={key: description[key] for key in keys},
        images=images,
        expected=description["expected"],
    )


def _xywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

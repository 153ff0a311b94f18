"""People in the format of COCO's instance annotations, for everybody here who writes it.

The only category, 1, is the person.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aiparsing_d2.structures.part_labels import PartLabels

from .annotations import PersonAnnotations

__all__ = [
    "COCO_PERSON_ID",
    "coco_content",
    "coco_person",
    "describe_people",
    "encode_rle",
]

COCO_PERSON_ID = 1
"""The category of people, as in COCO."""


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask as COCO's compressed run lengths.

    Args:
        mask: bool (H, W).

    Returns:
        "size" [H, W] and "counts", a string; JSON values.
    """
    from pycocotools import mask as coco_mask  # needed by few

    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(length) for length in rle["size"]], "counts": rle["counts"].decode()}


def describe_people(annotations: PersonAnnotations) -> list[dict[str, Any]]:
    """Describe the people of an image as COCO does.

    Args:
        annotations: the people.

    Returns:
        For each person "bbox" (x, y, width and height in pixels), "area" (number of labelled
        pixels, ignored ones among them) and "segmentation" (those pixels, see :func:`encode_rle`).
    """
    people = []
    for person_map, (x0, y0, x1, y1) in zip(
        annotations.person_maps, annotations.boxes.astype(int).tolist(), strict=True
    ):
        people.append(
            {
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(np.count_nonzero(person_map)),
                "segmentation": encode_rle(person_map != 0),
            }
        )
    return people


def coco_person(annotation_id: int, image_id: int | str, person: dict[str, Any]) -> dict[str, Any]:
    """Make an annotation of a person.

    Args:
        annotation_id: from 1 on; pycocotools takes 0 for "no match".
        image_id: "id" of the image.
        person: further entries, "bbox" and "area" among them.
    """
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": COCO_PERSON_ID,
        "iscrowd": 0,
        **person,
    }


def coco_content(
    description: str,
    part_labels: PartLabels,
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]] | None,
) -> dict[str, Any]:
    """Make the content of a JSON file.

    Args:
        description: what the file holds.
        part_labels: the label set, whose names become "parsing" of the only category.
        images: with "id", "file_name", "height" and "width".
        annotations: see :func:`coco_person`. None if there is no ground truth, which COCO's tools
            tell by the missing entry.
    """
    category = {"id": COCO_PERSON_ID, "name": "person", "supercategory": "person"}
    content = {
        "info": {"description": description},
        "categories": [{**category, "parsing": list(part_labels.names)}],
        "images": list(images),
    }
    if annotations is not None:
        content["annotations"] = list(annotations)
    return content

"""Records in Detectron2's standard format, people included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.structures import BoxMode

from .annotations import read_person_annotations
from .coco_format import describe_people

__all__ = ["to_standard_dataset_dict"]


def to_standard_dataset_dict(
    record: Mapping[str, Any], num_classes: int | None = None
) -> dict[str, Any]:
    """Read a record's people into the record, as Detectron2's own tools expect them.

    The records of the data sets here name annotation files and hold no people, since reading those
    of a whole data set takes minutes. This is for tools that look at one record, such as
    ``Visualizer.draw_dataset_dict``.

    Args:
        record: a data set record, which is left as it is.
        num_classes: number of labels; see
            :func:`~aiparsing_d2.data.annotations.read_person_annotations`, whose errors it raises.

    Returns:
        The record with "annotations", for each person "bbox" (XYWH in pixels), "bbox_mode",
        "category_id" 0, "iscrowd" 0, "area" and "segmentation" (compressed RLE), and with
        "sem_seg", the part label at every pixel, uint8 (H, W).
    """
    people = read_person_annotations(record, num_classes)
    annotations = [
        {"bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0, **person}
        for person in describe_people(people)
    ]
    return {**record, "annotations": annotations, "sem_seg": people.category_map}

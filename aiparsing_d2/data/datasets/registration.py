"""Registering parsing data sets with Detectron2."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..part_labels import IGNORE_LABEL, PartLabels

__all__ = ["datasets_root", "register_parsing_dataset"]


def datasets_root() -> str:
    """Folder that holds all data sets: ``$DETECTRON2_DATASETS``, or ``datasets`` if unset."""
    return os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets"))


def register_parsing_dataset(
    name: str,
    load: Callable[[], list[dict[str, Any]]],
    part_labels: PartLabels,
    *,
    semseg_thresh: float = 0.3,
    **metadata: Any,
) -> None:
    """Register a data set of people with part labels in Detectron2's catalogs.

    Args:
        name: name to register; it must be free.
        load: called without arguments when the data set is used first. Gives the records, which
            must have "file_name", "image_id" (a different string for each), "height", "width" and
            the keys of one of the layouts of
            :func:`~aiparsing_d2.data.annotations.read_person_annotations`.
        part_labels: the label set.
        semseg_thresh: people with a lower score are left out of the map that mIoU is computed on.
        metadata: further entries of the data set's metadata.

    Raises:
        ValueError: if the name is taken.
    """
    if name in DatasetCatalog:
        raise ValueError(f"A data set named '{name}' is registered already; choose another name.")
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        thing_classes=["person"],
        evaluator_type="human_parsing",
        ignore_label=IGNORE_LABEL,
        semseg_thresh=semseg_thresh,
        **part_labels.as_metadata(),
        **metadata,
    )

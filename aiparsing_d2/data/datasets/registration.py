"""Registering parsing data sets with Detectron2."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from aiparsing_d2.structures.part_labels import IGNORE_LABEL, PartLabels

from ..coco_format import COCO_PERSON_ID
from .generated_coco import coco_json_uri

__all__ = [
    "BuiltinSplit",
    "RegisteredLoader",
    "datasets_root",
    "register_builtin_split",
    "register_parsing_dataset",
]

# As Detectron2 draws the people of COCO.
_PERSON_COLOR = (220, 20, 60)

logger = logging.getLogger(__name__)


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
        name: name to register. It must be free, or registered with the same loader and metadata:
            a config file that registers its data sets is run each time it is read or imported.
        load: called without arguments when the data set is used first. Gives the records, which
            must have "file_name", "image_id" (a different string for each), "height", "width" and
            the keys of one of the layouts of
            :func:`~aiparsing_d2.data.annotations.read_person_annotations`. They may have
            "ignore_boxes", XYXY boxes in pixels of people without labels.
        part_labels: the label set.
        semseg_thresh: people with a lower score are left out of the map that mIoU is computed on.
        metadata: further entries of the data set's metadata, or others in place of those set here.
            "json_file", with the people in COCO's format, is made when it is first asked for, see
            :mod:`~aiparsing_d2.data.datasets.generated_coco`.

    The records that ``DatasetCatalog`` gives also have Detectron2's "sem_seg_file_name" where there
    is a "category_file_name".

    Raises:
        ValueError: the name is taken by another data set.
    """
    defaults = {
        "json_file": coco_json_uri(name),
        "thing_classes": ["person"],
        "thing_colors": [_PERSON_COLOR],
        "thing_dataset_id_to_contiguous_id": {COCO_PERSON_ID: 0},
        "evaluator_type": "human_parsing",
        "ignore_label": IGNORE_LABEL,
        "semseg_thresh": semseg_thresh,
        **part_labels.as_metadata(),
    }
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, RegisteredLoader(load))
    elif not _is_same(getattr(DatasetCatalog[name], "load", None), load):
        raise ValueError(
            f"Another data set named '{name}' is registered already; choose another name."
        )
    try:
        MetadataCatalog.get(name).set(**{**defaults, **metadata})
    except AssertionError as error:  # Detectron2's, for an entry that has another value
        raise ValueError(
            f"A data set named '{name}' is registered already, with other metadata; choose another "
            f"name. {error}"
        ) from error


def _is_same(known: Any, new: Any) -> bool:
    """Whether two loaders do the same, also if one is of the same code, executed again."""
    if isinstance(known, partial) and isinstance(new, partial):
        return (
            _is_same(known.func, new.func)
            and known.args == new.args
            and known.keywords == new.keywords
        )
    return known == new or _definition(known) == _definition(new) is not None


def _definition(function: Any) -> tuple | None:
    """Return a function's file, code and what its definition bound; None of anything else."""
    if not isinstance(function, FunctionType):
        return None
    bound = tuple(cell.cell_contents for cell in function.__closure__ or ())
    code = function.__code__
    return code.co_filename, code, function.__defaults__, function.__kwdefaults__, bound


@dataclass(frozen=True)
class RegisteredLoader:
    """Loads records and adds the name under which Detectron2's tools look for part labels.

    Attributes:
        load: gives the records.
    """

    load: Callable[[], list[dict[str, Any]]]

    def __call__(self) -> list[dict[str, Any]]:
        """Load the records; those with a "category_file_name" get it as "sem_seg_file_name" too."""
        return [
            {"sem_seg_file_name": record["category_file_name"], **record}
            if "category_file_name" in record
            else record
            for record in self.load()
        ]


@dataclass(frozen=True)
class BuiltinSplit:
    """Loads one split of a built-in data set from the first of its folders that exists.

    Attributes:
        load: called with the folder and the split, gives the records.
        folders: where the data set may be.
        split: name of the split.
    """

    load: Callable[[str, str], list[dict[str, Any]]]
    folders: Sequence[str]
    split: str

    def __call__(self) -> list[dict[str, Any]]:
        """Load the records from the first folder that exists.

        Raises:
            FileNotFoundError: none of the folders exists.
        """
        for folder in self.folders:
            if os.path.isdir(folder):
                return self.load(folder, self.split)
        places = " nor ".join(os.path.abspath(folder) for folder in self.folders)
        raise FileNotFoundError(
            f"There is no folder {places}. The built-in data sets are looked for under the folder "
            "that the environment variable DETECTRON2_DATASETS names (default: ./datasets); set it "
            "before Python starts. How to get the data there is described in datasets/README.md."
        )


def register_builtin_split(
    name: str, split: BuiltinSplit, part_labels: PartLabels, **metadata: Any
) -> None:
    """Register a split of a built-in data set, in place of an earlier one of the same name.

    A name that other code has registered is left to it, with a warning.

    Args:
        name: name to register.
        split: what loads it.
        part_labels: the label set.
        metadata: passed on to :func:`register_parsing_dataset`.
    """
    if name in DatasetCatalog:
        if not isinstance(getattr(DatasetCatalog[name], "load", None), BuiltinSplit):
            logger.warning(
                "Other code has registered a data set named '%s'; aiparsing_d2 leaves it as it is. "
                "To use the one of aiparsing_d2, register it under another name.",
                name,
            )
            return
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_parsing_dataset(name, split, part_labels, **metadata)

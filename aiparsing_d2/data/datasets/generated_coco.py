"""A COCO JSON file for every registered data set, made when somebody asks for it.

Records name annotation files and hold no people, so that a data set is registered and loaded
without reading any. Detectron2's ``COCOEvaluator`` and pycocotools want a JSON file with all of
them. The metadata's "json_file" of a data set is therefore a path of its own kind
(:func:`coco_json_uri`), which Detectron2's ``PathManager`` turns into a file: on first use the
people are read and written into the folder of the index cache, where the file is used until the
records or their annotation files change.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import file_lock
from tqdm import tqdm

from aiparsing_d2.structures.part_labels import PartLabels
from aiparsing_d2.whole_files import whole_file

from ..annotations import annotation_files, read_person_annotations
from ..coco_format import coco_content, coco_person, describe_people
from .index_cache import FileListing, cache_folder

__all__ = ["coco_json_file", "coco_json_uri"]

logger = logging.getLogger(__name__)

_PREFIX = "aiparsing_d2_coco://"

# To be raised whenever the same files give another JSON than before.
_VERSION = 1


def coco_json_uri(dataset_name: str) -> str:
    """Path under which ``PathManager`` gives a registered data set's COCO JSON file."""
    return f"{_PREFIX}{dataset_name}.json"


def coco_json_file(dataset_name: str) -> str:
    """Get the COCO JSON file of a registered data set; make it if there is none that is up to date.

    Reading the annotations of thousands of images takes minutes. Several processes may ask at once:
    one makes the file, the others wait for it.

    Args:
        dataset_name: name in Detectron2's catalogs, with the metadata of
            :func:`register_parsing_dataset`.

    Returns:
        A local file. An image's "id" is the "image_id" of its record, and "annotations" are missing
        if the records name no annotation files, as those of test splits.

    Raises:
        AnnotationError, FileNotFoundError: annotations are broken or missing.
    """
    records = DatasetCatalog.get(dataset_name)
    part_labels = PartLabels.from_metadata(MetadataCatalog.get(dataset_name))
    files = [file_name for record in records for file_name in annotation_files(record) or ()]
    listing = FileListing.scan(os.path.dirname(file_name) for file_name in files)
    more = [str(_VERSION), json.dumps(records, default=str), *part_labels.names]
    fingerprint = listing.fingerprint(more)[:16]
    # The same name may be another data set in another project.
    place = os.path.abspath(os.path.dirname(records[0]["file_name"])) if records else ""
    key = hashlib.sha256(json.dumps([dataset_name, place]).encode()).hexdigest()[:16]
    path = _writable_folder() / f"coco_{key}_{fingerprint}.json"
    with file_lock(os.fspath(path.with_name(f"coco_{key}"))):
        if not path.exists():
            content = _make_content(dataset_name, records, part_labels)
            with whole_file(path) as file:
                json.dump(content, file)
            for outdated in set(path.parent.glob(f"coco_{key}_*.json")) - {path}:
                outdated.unlink(missing_ok=True)
    return os.fspath(path)


def _make_content(
    dataset_name: str, records: Sequence[Mapping[str, Any]], part_labels: PartLabels
) -> dict[str, Any]:
    images = [
        {
            "id": record["image_id"],
            "file_name": os.fspath(record["file_name"]),
            "height": record["height"],
            "width": record["width"],
        }
        for record in records
    ]
    annotations = None
    if any(annotation_files(record) is not None for record in records):
        annotations = []
        # The bar appears only if this takes more than a moment.
        for record in tqdm(records, f"Reading the people of {dataset_name}", unit="image", delay=2):
            people = read_person_annotations(record, part_labels.num_classes)
            for person in describe_people(people):
                annotations.append(coco_person(len(annotations) + 1, record["image_id"], person))
    return coco_content(dataset_name, part_labels, images, annotations)


def _writable_folder() -> Path:
    """Return the cache's folder or, if there is none to write to, one until the end of the
    process.
    """
    folder = cache_folder()
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
        except OSError as e:
            logger.warning("The COCO JSON file cannot be kept for the next start: %s", e)
    folder = Path(tempfile.mkdtemp(prefix="aiparsing_d2_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class _GeneratedCocoHandler(PathHandler):
    """Lets ``PathManager`` open what :func:`coco_json_uri` names."""

    def _get_supported_prefixes(self) -> list[str]:
        return [_PREFIX]

    def _get_local_path(self, path: str, **kwargs: Any) -> str:
        return coco_json_file(path.removeprefix(_PREFIX).removesuffix(".json"))

    def _open(self, path: str, mode: str = "r", **kwargs: Any) -> IO:
        if mode not in ("r", "rb"):
            raise ValueError(f"{path} is generated and can only be read.")
        return open(self._get_local_path(path), mode)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return path.removeprefix(_PREFIX).removesuffix(".json") in DatasetCatalog

    _exists = _isfile


# Over an earlier one, if this module is imported anew.
PathManager.register_handler(_GeneratedCocoHandler(), allow_override=True)

"""People and part labels in the format of COCO's instance annotations.

As in COCO, with these additions, which
:func:`~aiparsing_d2.data.datasets.load_coco_parsing` reads:

* an annotation is a person; "human" is the person's number in the image;
* "parsing" is the file name of the label map of this person alone, as several projects have it for
  CIHP; or, if there are no such files, the image has "category_file_name" and "human_file_name",
  the maps of the part labels and of the people's numbers;
* "parsing" of the only category are the names of the labels;
* "segmentation", the run-length encoding of all of the person's labelled pixels, is optional.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiparsing_d2.data.coco_format import coco_content, coco_person
from aiparsing_d2.structures.part_labels import PartLabels

from .inventory import ImageFiles
from .verification import ImageReport

__all__ = ["coco_annotations"]


def coco_annotations(
    images: Iterable[tuple[ImageFiles, ImageReport]],
    part_labels: PartLabels,
    image_folder: str,
    person_maps: bool,
    description: str,
) -> dict[str, Any]:
    """Return the content of a JSON file.

    Args:
        images: files and reports of the images, all of which can be read.
        part_labels: the label set.
        image_folder: the folder that the images' "file_name" is to be relative to; a prefix of
            their paths.
        person_maps: whether each person has a label map of their own. If not, the images' label
            maps are named, relative to the data set's folder.
        description: what the file holds.

    Returns:
        JSON values: "info", "categories", "images" and, unless no image is labelled as in a test
        split, "annotations". An image's id is its place in the list of its split, from 1 on, and
        stays the same if other images are left out. Boxes are x, y, width, height.
    """
    image_entries, annotations = [], []
    is_labelled = False
    for files, report in images:
        is_labelled |= files.is_labelled
        entry = {
            "id": files.position,
            "file_name": files.image.removeprefix(f"{image_folder}/"),
            "height": report.height,
            "width": report.width,
        }
        if files.category_map is not None and not person_maps:
            entry["category_file_name"] = files.category_map
            entry["human_file_name"] = files.human_map
        image_entries.append(entry)
        for person in report.people:
            annotation: dict[str, Any] = {
                "bbox": list(person.bbox),
                "area": person.area,
                "human": person.number,
            }
            if person.parsing is not None:
                annotation["parsing"] = person.parsing
            if person.segmentation is not None:
                annotation["segmentation"] = person.segmentation
            annotations.append(coco_person(len(annotations) + 1, files.position, annotation))
    return coco_content(
        description, part_labels, image_entries, annotations if is_labelled else None
    )

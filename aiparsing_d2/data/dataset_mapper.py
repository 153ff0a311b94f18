"""From a data set record to what the model takes: an image and, for training, its people."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances

from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import IGNORE_LABEL, PartLabels, get_part_labels

from .annotations import PersonAnnotations, read_person_annotations
from .copy_paste import CopyPaste
from .image_files import read_image
from .transforms import FastAugInput, is_mirrored, transform_labels

__all__ = ["ParsingDatasetMapper", "person_annotations_to_instances"]

logger = logging.getLogger(__name__)


class ParsingDatasetMapper:
    """Callable that reads one record, augments it and converts it to tensors.

    1. Read the image and, for training, the people and part labels.
    2. For training, paste people of other images into it, if told so.
    3. Apply the augmentations to the image. Those that look at labels, as
       ``RandomCrop_CategoryAreaConstraint``, get the category map as "sem_seg".
    4. For training, transform the people alike. If the image ends up mirrored, the labels of left
       and right parts are swapped.

    Works for every data set whose records
    :func:`~aiparsing_d2.data.annotations.read_person_annotations` reads.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str = "BGR",
        part_labels: PartLabels | None = None,
        recompute_boxes: bool = False,
        use_instance_mask: bool = False,
        copy_paste: CopyPaste | None = None,
    ):
        """
        Args:
            is_train: whether to add the people as "instances".
            augmentations: augmentations or deterministic transforms, applied in turn.
            image_format: "BGR", "RGB" or "L", see
                :func:`~aiparsing_d2.data.image_files.read_image`.
            part_labels: label set of the data, for the range check of the labels and the
                left/right swap. Required for training.
            recompute_boxes: whether boxes shrink to what the augmentations left visible of a
                person, instead of being the transformed original boxes clipped to the image. To
                be set if the augmentations crop.
            use_instance_mask: whether the people also get ``gt_masks`` (:class:`BitMasks`, the
                pixels whose label is not 0), to train a mask head on.
            copy_paste: pastes people into the images before they are augmented; training only.

        Raises:
            ValueError: ``part_labels`` is missing in training.
        """
        if is_train and part_labels is None:
            raise ValueError("ParsingDatasetMapper needs part_labels for training.")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.part_labels = part_labels
        self.recompute_boxes = recompute_boxes
        self.use_instance_mask = use_instance_mask
        self.copy_paste = copy_paste if is_train else None
        mode = "training" if is_train else "inference"
        logger.info("Augmentations used in %s: %s", mode, augmentations)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        augmentations = utils.build_augmentation(cfg, is_train)
        crops = is_train and cfg.INPUT.CROP.ENABLED
        if crops:
            augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "part_labels": get_part_labels(cfg.DATASETS.TRAIN) if is_train else None,
            "recompute_boxes": crops,
            "use_instance_mask": cfg.MODEL.MASK_ON,
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            record: a data set record, which is left as it is.

        Returns:
            The record's entries, "height" and "width" of the original image among them, and:

            * "image": uint8 tensor (3, H, W), augmented;
            * "instances" (training only): :class:`Instances` of size (H, W) with ``gt_boxes``
              (:class:`Boxes`), ``gt_classes`` (int64, all 0) and ``gt_part_maps``
              (:class:`PartMaps`), and ``gt_masks`` if wanted. People of whom no pixel is left are
              dropped. What is left of the record's "ignore_boxes" follows, with class -1 and
              empty maps: people without labels, whom a detector may find or not.

        Raises:
            OSError: the image cannot be read.
            SizeMismatchError: its size is not the one in the record.
            AnnotationError, FileNotFoundError: the annotations are broken or missing.
        """
        record = copy.deepcopy(record)
        image = read_image(record["file_name"], self.image_format)
        utils.check_image_size(record, image)

        annotations = None
        if self.is_train:
            annotations = read_person_annotations(record, self.part_labels.num_classes)
        if self.copy_paste is not None:
            image, annotations = self.copy_paste(image, annotations, self.image_format)

        if self.is_train:
            aug_input = FastAugInput(image, sem_seg=annotations.category_map)
        else:  # exactly the pixels that Detectron2 gives
            aug_input = T.AugInput(image)
        transforms = self.augmentations(aug_input)
        record["image"] = _to_tensor(aug_input.image)

        if self.is_train:
            instances = person_annotations_to_instances(
                annotations,
                transforms,
                aug_input.image.shape[:2],
                self.part_labels,
                recompute_boxes=self.recompute_boxes,
                ignore_boxes=record.get("ignore_boxes", ()),
            )
            if self.use_instance_mask:
                instances.gt_masks = BitMasks(instances.gt_part_maps.to_full() != 0)
            record["instances"] = instances
        return record


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, C) to contiguous (C, H, W)."""
    planes = image.transpose(2, 0, 1)
    if planes.strides[2] < 0 and planes.flags.writeable:  # torch mirrors faster than numpy
        return torch.from_numpy(planes[:, :, ::-1]).flip(2).contiguous()
    return torch.from_numpy(np.ascontiguousarray(planes))


def person_annotations_to_instances(
    annotations: PersonAnnotations,
    transforms: T.TransformList,
    image_size: tuple[int, int],
    part_labels: PartLabels,
    *,
    recompute_boxes: bool = False,
    ignore_boxes: Sequence[Sequence[float]] = (),
) -> Instances:
    """Transform the people of an image into training targets.

    Args:
        annotations: the people, in coordinates of the original image.
        transforms: what was done to the image.
        image_size: (H, W) of the transformed image.
        part_labels: the label set, for the left/right swap.
        recompute_boxes: see :class:`ParsingDatasetMapper`.
        ignore_boxes: XYXY boxes of people without labels, in pixels of the original image.

    Returns:
        Instances of size ``image_size`` with ``gt_boxes``, ``gt_classes`` and
        ``gt_part_maps``, without the people of whom no pixel is left. Those of ``ignore_boxes``
        come last, with class -1, as Detectron2 marks what is neither person nor background.
    """
    part_maps = _transform_people(annotations, transforms, image_size, part_labels)

    if recompute_boxes:
        boxes = part_maps.get_bounding_boxes()
    else:
        # apply_box may work in place.
        boxes = Boxes(transforms.apply_box(annotations.boxes.copy()))
        boxes.clip(image_size)

    instances = Instances(image_size)
    instances.gt_boxes = boxes
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    instances.gt_part_maps = part_maps
    visible = part_maps.windows[:, 2] > part_maps.windows[:, 0]
    instances = instances[visible & boxes.nonempty()]
    if len(ignore_boxes):
        instances = Instances.cat([instances, _ignored(ignore_boxes, transforms, image_size)])
    return instances


@dataclass
class _Layer:
    """People who do not overlap, in two maps that are transformed in place of one for each person.

    Attributes:
        labels: uint8 (H, W), the people's labels; 0 where nobody is.
        numbers: uint8 (H, W), whose they are; 0 where nobody is.
        people: the numbers, and which person of the image each one is.
    """

    labels: np.ndarray
    numbers: np.ndarray
    people: dict[int, int]


def _layers(annotations: PersonAnnotations, num_classes: int) -> list[_Layer]:
    """Put each person into the first layer that has room.

    No pixel of a person has the same label as number: numbers are no labels.
    """
    layers: list[_Layer] = []
    windows = annotations.boxes.astype(int).tolist()
    for person, (x0, y0, x1, y1) in enumerate(windows):
        window = np.s_[y0:y1, x0:x1]
        labels = annotations.person_maps[person][window]
        is_person = labels != 0
        for layer in layers:
            number = num_classes + len(layer.people)
            if number < IGNORE_LABEL and not (layer.numbers[window] * is_person).any():
                break
        else:
            number = num_classes
            empty = np.zeros_like(annotations.category_map)
            layer = _Layer(empty, empty.copy(), {})
            layers.append(layer)
        layer.labels[window] |= labels
        layer.numbers[window] |= is_person * np.uint8(number)
        layer.people[number] = person
    return layers


def _transform_people(
    annotations: PersonAnnotations,
    transforms: T.TransformList,
    image_size: tuple[int, int],
    part_labels: PartLabels,
) -> PartMaps:
    mirrored = is_mirrored(transforms, annotations.category_map.shape)
    table = part_labels.flip_table() if mirrored else np.arange(256, dtype=np.uint8)
    count = len(annotations.boxes)
    maps, windows = [torch.zeros(0)] * count, np.zeros((count, 4), dtype=np.int64)
    for layer in _layers(annotations, part_labels.num_classes):
        labels = transform_labels(transforms, layer.labels)
        numbers = transform_labels(transforms, layer.numbers)
        # Some transforms pad label maps, often with 255: that is nobody's.
        numbers = numbers * (numbers != labels)
        for number, person in layer.people.items():
            is_person = numbers == number
            x, y, width, height = cv2.boundingRect(is_person.view(np.uint8))
            window = np.s_[y : y + height, x : x + width]
            maps[person] = torch.from_numpy(table[labels[window]] * is_person[window])
            windows[person] = x, y, x + width, y + height
    return PartMaps(maps, torch.from_numpy(windows), image_size)


def _ignored(
    ignore_boxes: Sequence[Sequence[float]],
    transforms: T.TransformList,
    image_size: tuple[int, int],
) -> Instances:
    boxes = Boxes(transforms.apply_box(np.array(ignore_boxes, dtype=np.float64)))
    boxes.clip(image_size)
    boxes = boxes[boxes.nonempty()]
    count = len(boxes)
    return Instances(
        image_size,
        gt_boxes=boxes,
        gt_classes=torch.full((count,), -1, dtype=torch.int64),
        gt_part_maps=PartMaps(
            [torch.zeros((0, 0), dtype=torch.uint8)] * count, torch.zeros((count, 4)), image_size
        ),
    )

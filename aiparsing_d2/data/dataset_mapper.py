"""From a data set record to what the model takes: an image and, for training, its people."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances

from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import PartLabels, get_part_labels

from .annotations import PersonAnnotations, read_person_annotations
from .copy_paste import CopyPaste
from .image_files import read_image
from .transforms import FastAugInput, is_mirrored

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

        aug_input = FastAugInput(image)
        if self.is_train:
            aug_input.sem_seg = annotations.category_map
        transforms = self.augmentations(aug_input)
        # Flips and crops leave views with negative or gapped strides, which torch cannot wrap.
        record["image"] = torch.as_tensor(np.ascontiguousarray(aug_input.image.transpose(2, 0, 1)))

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
    # One at a time: image operations know arrays of one or three channels only.
    maps = [transforms.apply_segmentation(person_map) for person_map in annotations.person_maps]
    maps = np.stack(maps) if maps else np.zeros((0, *image_size), dtype=np.uint8)
    # Some transforms pad label maps with 255, which is not to become a part of every person.
    is_image = transforms.apply_segmentation(np.ones_like(annotations.category_map)) == 1
    maps *= is_image
    part_maps = PartMaps.from_full(maps)
    if is_mirrored(transforms, annotations.category_map.shape):
        table = part_labels.flip_table()
        flipped = [torch.as_tensor(table[part_map.numpy()]) for part_map in part_maps.maps]
        part_maps = PartMaps(flipped, part_maps.windows, image_size)

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

#!/usr/bin/env python
"""Draw what a data set holds, or what training gets to see of it.

    python tools/visualize_data.py --source annotation --dataset cihp_val
    python tools/visualize_data.py --source dataloader --config-file configs/....py

    # people pasted into every image
    python tools/visualize_data.py --source dataloader \
        --config-file configs/photographs/aiparsing_lite0_FPN_ccp.py \
        dataloader.train.mapper.copy_paste.prob=1.0

Each picture shows an image beside its people: part colours, outlines and boxes. Dashed grey boxes
are of people without labels, whom training ignores.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import aiparsing_d2  # isort: skip  # noqa: F401  before Detectron2: ignores its deprecation warnings

import numpy as np
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.structures import Boxes
from detectron2.utils.logger import setup_logger
from PIL import Image

import aiparsing_d2.data.datasets  # noqa: F401  (registers the built-in data sets)
from aiparsing_d2.cli.argument_types import positive
from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.image_files import read_image
from aiparsing_d2.engine import ConfigError, apply_overrides, load_lazy_config
from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import PartLabels, get_part_labels
from aiparsing_d2.visualization import draw_parsing, image_grid, part_legend

# What to draw of an image: its record, RGB pixels, people, their boxes, and ignored boxes.
Sample = tuple[dict[str, Any], np.ndarray, PartMaps, Boxes, Boxes]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        choices=["annotation", "dataloader"],
        required=True,
        help="draw the annotations as they are, or the training loader's augmented samples",
    )
    parser.add_argument("--config-file", metavar="FILE", help="LazyConfig with dataloader.train")
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="data set to draw the annotations of; default: the config's",
    )
    parser.add_argument("--output-dir", default="visualized_data", help="default: %(default)s")
    parser.add_argument(
        "--num-images", type=positive, default=20, help="draw the first N; default: %(default)s"
    )
    parser.add_argument("overrides", nargs="*", help="config overrides, key=value")
    args = parser.parse_intermixed_args(argv)
    if args.source == "dataloader" and args.dataset:
        parser.error("the data loader is defined by a config: use --config-file, not --dataset")
    if not (args.config_file or args.dataset):
        parser.error("give --config-file, or --dataset to draw annotations without a config")
    return args


def annotated_samples(dataset_names: Sequence[str], part_labels: PartLabels) -> Iterator[Sample]:
    """Images and annotations as they are on disk."""
    for name in dataset_names:
        for record in DatasetCatalog.get(name):
            annotations = read_person_annotations(record, part_labels.num_classes)
            yield (
                record,
                read_image(record["file_name"], "RGB"),
                PartMaps.from_full(annotations.person_maps),
                Boxes(annotations.boxes),
                Boxes(record.get("ignore_boxes", [])),
            )


def training_samples(dataloader_cfg: Any) -> Iterator[Sample]:
    """Augmented images and targets, read in this process so that errors show where they occur."""
    dataloader_cfg.num_workers = 0
    image_format = dataloader_cfg.mapper.image_format
    for batch in instantiate(dataloader_cfg):
        for sample in batch:
            image = convert_image_to_rgb(sample["image"].permute(1, 2, 0), image_format)
            instances = sample["instances"]
            people = instances[instances.gt_classes >= 0]
            ignored = instances[instances.gt_classes < 0]
            yield sample, image, people.gt_part_maps, people.gt_boxes, ignored.gt_boxes


def draw_sample(sample: Sample, part_labels: PartLabels) -> np.ndarray:
    """Return the image, and beside it its people and their boxes, with a legend of the parts that
    occur.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    _, image, part_maps, boxes, ignore_boxes = sample
    drawing = draw_parsing(image, part_maps, part_labels, boxes=boxes, ignore_boxes=ignore_boxes)
    labels = {label for part_map in part_maps.maps for label in part_map.unique().tolist()}
    return image_grid([[image, drawing]], legend=part_legend(part_labels, labels))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    logger = setup_logger(name="visualize_data")
    try:
        visualize_data(args, logger)
    except (ConfigError, OSError, KeyError, ValueError) as error:
        # KeyError shows its message in quotes.
        message = error.args[0] if isinstance(error, KeyError) else error
        sys.exit(f"visualize_data: {message}")


def visualize_data(args: argparse.Namespace, logger: logging.Logger) -> None:
    if args.config_file:
        cfg = apply_overrides(load_lazy_config(args.config_file), args.overrides)
        names = cfg.dataloader.train.dataset.names
        dataset_names = [names] if isinstance(names, str) else list(names)
    if args.dataset:  # one that the config registers, if there is a config
        dataset_names = [args.dataset]
    part_labels = get_part_labels(dataset_names)
    if args.source == "annotation":
        samples = annotated_samples(dataset_names, part_labels)
    else:
        samples = training_samples(cfg.dataloader.train)

    os.makedirs(args.output_dir, exist_ok=True)
    for index, sample in enumerate(islice(samples, args.num_images)):
        # Ids may contain folders, and augmented images may come up more than once.
        image_id = re.sub(r"[^\w.-]", "_", str(sample[0]["image_id"]))
        path = os.path.join(args.output_dir, f"{index:04d}_{image_id}.png")
        Image.fromarray(draw_sample(sample, part_labels)).save(path)
        logger.info("Saved %s", path)


if __name__ == "__main__":
    main()

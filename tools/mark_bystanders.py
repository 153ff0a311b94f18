#!/usr/bin/env python
"""Find people without labels with a trained model, so that the next training can ignore them.

    python tools/mark_bystanders.py --config-file configs/photographs/aiparsing_lite0_FPN_ccp.py \
        --weights output/aiparsing_lite0_FPN_ccp/model_final.pth --dataset ccp_train

Writes ignore_boxes.json into the data set's folder, which must be in CIHP's layout, and beside it
ignore_boxes.png, a sheet of the marked images to look at. datasets/README.md says what training
makes of the boxes. A detection is marked if it overlaps no labelled person: its IoU with each is
below 0.3, and less than half of it lies inside any one's box.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiparsing_d2  # isort: skip  # noqa: F401  before Detectron2: ignores its deprecation warnings

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances, pairwise_ioa, pairwise_iou
from detectron2.utils.logger import setup_logger
from PIL import Image
from tqdm import tqdm

import aiparsing_d2.data.datasets  # noqa: F401  registers the built-in data sets
from aiparsing_d2.cli.argument_types import positive
from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.image_files import read_image
from aiparsing_d2.engine import (
    ConfigError,
    FittingCheckpointer,
    apply_overrides,
    load_lazy_config,
)
from aiparsing_d2.structures.part_labels import PartLabels, get_part_labels
from aiparsing_d2.visualization import draw_parsing, image_grid
from aiparsing_d2.whole_files import whole_file

MAX_IOU = 0.3
MAX_INSIDE = 0.5

SHEET_COLUMNS = 8
SHEET_HEIGHT = 240  # of each image, in pixels

logger = logging.getLogger("mark_bystanders")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the model")
    parser.add_argument("--weights", required=True, metavar="FILE", help="trained with it")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="registered and labelled")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.3,
        help="box score from which on a detection is a person; default: %(default)s",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="JSON to write, with a sheet of the same name; default: the data set's own",
    )
    parser.add_argument("--num-images", type=positive, help="look at the first N only, to try it")
    parser.add_argument(
        "--sheet-images",
        type=positive,
        default=64,
        help="most images to draw; default: %(default)s",
    )
    parser.add_argument("overrides", nargs="*", help="config overrides, key=value")
    args = parser.parse_intermixed_args(argv)
    if args.num_images and not args.output:
        parser.error("--num-images leaves images out: give it an --output of its own")
    return args


def default_output(record: dict[str, Any]) -> Path:
    """Return the file that the records' loader reads, beside the id lists of CIHP's layout.

    Raises:
        FileNotFoundError: the image is in no such layout.
    """
    # Folders of images may be links into another data set's.
    for folder in Path(os.path.abspath(record["file_name"])).parents:
        if any(folder.glob("*_id.txt")):
            return folder / "ignore_boxes.json"
    raise FileNotFoundError(
        f"{record['file_name']} is in no folder of CIHP's layout, which alone has an "
        "ignore_boxes.json: give --output, and read the boxes into the records yourself"
    )


def is_bystander(detected: Boxes, labelled: Boxes) -> torch.Tensor:
    """Which detections overlap no labelled person, as the module says.

    Returns:
        bool (number of detections,).
    """
    iou = pairwise_iou(detected, labelled)
    inside = pairwise_ioa(labelled, detected)  # share of the detection, (labelled, detected)
    return (iou < MAX_IOU).all(dim=1) & (inside < MAX_INSIDE).all(dim=0)


@torch.no_grad()
def detect(model: torch.nn.Module, sample: dict[str, Any]) -> Instances:
    """Find the people of an image; parsing them, which takes far longer, is not needed.

    Returns:
        On the CPU, with ``pred_boxes`` in pixels of the original image and ``scores``.
    """
    images = model.preprocess_image([sample])
    features = model.backbone(images.tensor)
    proposals, _ = model.proposal_generator(images, features)
    (detected,) = model.roi_heads.detect(features, proposals)
    return detector_postprocess(detected, sample["height"], sample["width"]).to("cpu")


def find_bystanders(
    model: torch.nn.Module, records: Sequence[dict[str, Any]], mapper: Any, threshold: float
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Give the records in which there are bystanders, and their boxes (M, 4) in pixels."""
    for record in tqdm(records, unit=" images"):
        detected = detect(model, mapper(record))
        boxes = detected.pred_boxes[detected.scores >= threshold]
        labelled = Boxes(read_person_annotations(record).boxes)
        # Boxes of less than a pixel could be empty once they are rounded.
        boxes = boxes[is_bystander(boxes, labelled) & boxes.nonempty(1)]
        if len(boxes):
            yield record, boxes.tensor.double().numpy().round(1)


def draw_record(
    record: dict[str, Any], ignore_boxes: np.ndarray, part_labels: PartLabels
) -> np.ndarray:
    """Return the image with its labelled people and, dashed, the others."""
    annotations = read_person_annotations(record, part_labels.num_classes)
    return draw_parsing(
        read_image(record["file_name"], "RGB"),
        annotations.person_maps,
        part_labels,
        boxes=annotations.boxes,
        ignore_boxes=ignore_boxes,
        alpha=0.4,
        scale=SHEET_HEIGHT / record["height"],
    )


def draw_sheet(
    found: Sequence[tuple[dict[str, Any], np.ndarray]], part_labels: PartLabels
) -> Image.Image:
    """Return a sheet of the marked images, with their ids below each row."""
    rows = [found[i : i + SHEET_COLUMNS] for i in range(0, len(found), SHEET_COLUMNS)]
    cells = [[draw_record(*pair, part_labels) for pair in row] for row in rows]
    cells[-1] += [None] * (len(cells[0]) - len(cells[-1]))
    names = ["   ".join(record["image_id"] for record, _ in row) for row in rows]
    return Image.fromarray(image_grid(cells, row_names=names))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger(name="mark_bystanders")
    try:
        mark_bystanders(args)
    except (ConfigError, OSError, KeyError, ValueError) as error:
        # KeyError shows its message in quotes.
        message = error.args[0] if isinstance(error, KeyError) else error
        sys.exit(f"mark_bystanders: {message}")


def mark_bystanders(args: argparse.Namespace) -> None:
    cfg = apply_overrides(load_lazy_config(args.config_file), args.overrides)
    part_labels = get_part_labels(args.dataset)
    records = DatasetCatalog.get(args.dataset)[: args.num_images]
    output = args.output or default_output(records[0])
    sheet_file = output.with_suffix(".png")
    for file in (output, sheet_file):
        if file.exists():
            raise FileExistsError(f"{file} exists; move it away, or give another --output")

    device = cfg.train.device if torch.cuda.is_available() else "cpu"
    model = instantiate(cfg.model).to(device).eval()
    FittingCheckpointer(model).load(args.weights)
    mapper = instantiate(cfg.dataloader.test.mapper)
    found = list(find_bystanders(model, records, mapper, args.threshold))

    with whole_file(output, overwrite=False) as file:
        json.dump({record["image_id"]: boxes.tolist() for record, boxes in found}, file)
    total = sum(len(boxes) for _, boxes in found)
    logger.info("%d people in %d of %d images: %s", total, len(found), len(records), output)
    if found:
        draw_sheet(found[: args.sheet_images], part_labels).save(sheet_file)
        logger.info("Look at them, and take out what is nobody: %s", sheet_file)


if __name__ == "__main__":
    main()

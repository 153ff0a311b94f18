#!/usr/bin/env python
"""Shows what a finished run has learned: its figures, a sheet of predictions, training curves.

    python tools/show_results.py output/train_demo --edges
    python tools/show_results.py output/train_demo --edges --tta

Reads the run's config.yaml, model_final.pth, parsing_results.json and metrics.json; writes
predictions.png, or predictions_tta.png, and training_curves.png beside them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Sequence

import aiparsing_d2  # isort: skip  # noqa: F401  before Detectron2: ignores its deprecation warnings

import torch
from detectron2.config import instantiate
from PIL import Image
from tabulate import tabulate

import aiparsing_d2.data.datasets  # noqa: F401  registers the splits: the saved config does not
from aiparsing_d2.checkpoint import WeightFileError
from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.image_files import read_image
from aiparsing_d2.engine import ConfigError, FittingCheckpointer, load_lazy_config
from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import get_part_labels
from aiparsing_d2.visualization import ParsingExample, plot_training_curves, result_sheet

MAIN_FIGURES = [
    ("mIoU", "parsing", "mIoU"),
    ("APp50", "parsing", "APp50"),
    ("APpvol", "parsing", "APpvol"),
    ("PCP50", "parsing", "PCP50"),
    ("box AP", "bbox", "AP"),
    ("box AP50", "bbox", "AP50"),
]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", help="output folder of train_net.py")
    parser.add_argument("--weights", help="checkpoint to show; default: the run's model_final.pth")
    parser.add_argument("--num-images", type=int, default=8, help="rows of the sheet")
    parser.add_argument("--edges", action="store_true", help="add a column of predicted edges")
    parser.add_argument(
        "--tta",
        action="store_true",
        help="predict with the config's test-time augmentation, into predictions_tta.png",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.3,
        help="of the people drawn, and of those whose edges are; default: %(default)s",
    )
    return parser.parse_args(argv)


def usable_device(device: str) -> str:
    """Return the run's device, or the CPU, saying so, where that is a GPU and this machine has
    none.
    """
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        print(f"The run's device {device} is not available: using the CPU")
        return "cpu"
    return device


def load_model(cfg, weights: str, with_edges: bool) -> torch.nn.Module:
    """Return the run's model with trained weights, in evaluation mode."""
    if with_edges:
        cfg.model.roi_heads.parsing_head.edges_at_test = True
    model = instantiate(cfg.model).to(usable_device(cfg.train.device)).eval()
    FittingCheckpointer(model).load(weights)
    return model


def with_test_time_augmentation(cfg, model: torch.nn.Module) -> torch.nn.Module:
    """Return the config's wrapper around the model; the test images keep their original size for
    it.
    """
    cfg.dataloader.test.mapper.augmentations = []
    cfg.test_time_augmentation.wrapper.model = model
    return instantiate(cfg.test_time_augmentation.wrapper)


@torch.no_grad()
def predict_examples(
    cfg, model: torch.nn.Module, num_images: int, score_threshold: float
) -> list[ParsingExample]:
    """Return the first test images with their ground truth and what the model makes of them.

    The edges, if it predicts them, are those of people with at least the given score.
    """
    examples = []
    loader = instantiate(cfg.dataloader.test)
    for inputs in itertools.islice(itertools.chain.from_iterable(loader), num_images):
        prediction = model([inputs])[0]["instances"].to("cpu")
        edges = None
        if prediction.has("pred_edges"):
            edges = torch.zeros(prediction.image_size)
            found = prediction[prediction.scores >= score_threshold].pred_edges
            for edge_map, (x0, y0, x1, y1) in zip(found.maps, found.windows.tolist()):
                edges[y0:y1, x0:x1][edge_map > 0] = 1
        examples.append(
            ParsingExample(
                image=read_image(inputs["file_name"], "RGB"),
                ground_truth=PartMaps.from_full(read_person_annotations(inputs).person_maps),
                prediction=prediction,
                edges=edges,
                name=inputs["image_id"],
            )
        )
    return examples


def figures_table(results: dict) -> str:
    """Return the main figures, in percent, as a Markdown table."""
    row = [results[group][name] for _, group, name in MAIN_FIGURES]
    headers = [title for title, _, _ in MAIN_FIGURES]
    return tabulate([row], headers=headers, floatfmt=".1f", tablefmt="github")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)

    def in_run(name: str) -> str:
        return os.path.join(args.run_dir, name)

    weights = args.weights or in_run("model_final.pth")
    needed = [
        in_run("config.yaml"),
        in_run("metrics.json"),
        in_run("parsing_results.json"),
        weights,
    ]
    for path in needed:
        if not os.path.isfile(path):
            sys.exit(f"{path} is missing: {args.run_dir} is not the folder of a finished run")

    cfg = load_lazy_config(in_run("config.yaml"))
    if args.tta and "wrapper" not in cfg.get("test_time_augmentation", {}):
        sys.exit(
            f"{in_run('config.yaml')} has no test_time_augmentation.wrapper: show the run without "
            "--tta, or add one of configs/common/tta.py there"
        )
    try:
        model = load_model(cfg, weights, args.edges)
    except (ConfigError, WeightFileError) as error:
        sys.exit(f"error: {error}")
    if args.tta:
        model = with_test_time_augmentation(cfg, model)
    examples = predict_examples(cfg, model, args.num_images, args.score_threshold)
    part_labels = get_part_labels(cfg.dataloader.test.dataset.names)
    sheet = result_sheet(examples, part_labels, score_threshold=args.score_threshold)
    predictions = in_run("predictions_tta.png" if args.tta else "predictions.png")
    Image.fromarray(sheet).save(predictions)
    plot_training_curves(in_run("metrics.json"), in_run("training_curves.png"))

    with open(in_run("parsing_results.json")) as f:
        results = json.load(f)["results"]
    print(figures_table(results))
    note = " (without test-time augmentation)" if args.tta else ""
    print(f"\nFigures:     {in_run('parsing_results.json')}{note}")
    print(f"Predictions: {predictions}")
    print(f"Curves:      {in_run('training_curves.png')}")


if __name__ == "__main__":
    main()

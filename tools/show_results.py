#!/usr/bin/env python
"""Shows what a finished run has learned: its figures, a sheet of predictions, training curves.

    python tools/show_results.py output/demo --edges

Reads the run's config.yaml, model_final.pth, parsing_results.json and metrics.json; writes
predictions.png and training_curves.png beside them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from PIL import Image
from tabulate import tabulate

import aiparsing_d2.data.datasets  # noqa: F401  registers the splits: the saved config does not
from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.dataset_mapper import read_image
from aiparsing_d2.data.part_labels import get_part_labels
from aiparsing_d2.structures import PartMaps
from aiparsing_d2.visualization import ParsingExample, plot_training_curves, result_sheet

MAIN_FIGURES = [
    ("mIoU", "parsing", "mIoU"),
    ("APp50", "parsing", "APp50"),
    ("APpvol", "parsing", "APpvol"),
    ("PCP50", "parsing", "PCP50"),
    ("box AP", "bbox", "AP"),
    ("box AP50", "bbox", "AP50"),
]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", help="output folder of train_net.py")
    parser.add_argument("--weights", help="checkpoint to show; default: the run's model_final.pth")
    parser.add_argument("--num-images", type=int, default=8, help="rows of the sheet")
    parser.add_argument("--edges", action="store_true", help="add a column of predicted edges")
    parser.add_argument("--score-threshold", type=float, default=0.3, help="of the people drawn")
    return parser.parse_args()


def load_model(cfg, weights: str, with_edges: bool) -> torch.nn.Module:
    """The run's model with trained weights, in evaluation mode."""
    if with_edges:
        cfg.model.roi_heads.parsing_head.edges_at_test = True
    model = instantiate(cfg.model).to(cfg.train.device).eval()
    DetectionCheckpointer(model).load(weights)
    return model


@torch.no_grad()
def predict_examples(cfg, model: torch.nn.Module, num_images: int) -> list[ParsingExample]:
    """The first test images with their ground truth and what the model makes of them."""
    examples = []
    loader = instantiate(cfg.dataloader.test)
    for inputs in itertools.islice(itertools.chain.from_iterable(loader), num_images):
        prediction = model([inputs])[0]["instances"].to("cpu")
        edges = None
        if prediction.has("pred_edges"):
            found = prediction[prediction.scores >= 0.3].pred_edges.to_full()
            edges = found.any(dim=0).float() if len(found) else torch.zeros(prediction.image_size)
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
    """The main figures, in percent, as a Markdown table."""
    row = [results[group][name] for _, group, name in MAIN_FIGURES]
    headers = [title for title, _, _ in MAIN_FIGURES]
    return tabulate([row], headers=headers, floatfmt=".1f", tablefmt="github")


def main() -> None:
    args = parse_args()

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

    cfg = LazyConfig.load(in_run("config.yaml"))
    model = load_model(cfg, weights, args.edges)
    examples = predict_examples(cfg, model, args.num_images)
    part_labels = get_part_labels(cfg.dataloader.test.dataset.names)
    sheet = result_sheet(examples, part_labels, score_threshold=args.score_threshold)
    Image.fromarray(sheet).save(in_run("predictions.png"))
    plot_training_curves(in_run("metrics.json"), in_run("training_curves.png"))

    with open(in_run("parsing_results.json")) as f:
        results = json.load(f)["results"]
    print(figures_table(results))
    print(f"\nFigures:     {in_run('parsing_results.json')}")
    print(f"Predictions: {in_run('predictions.png')}")
    print(f"Curves:      {in_run('training_curves.png')}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Shows what a finished run has learned: its figures, a sheet of predictions, training curves.

    python tools/show_results.py output/train_demo --edges
    python tools/show_results.py output/train_demo --edges --tta
    python tools/show_results.py output/train_demo --against output/other_run

Reads the run's config.yaml, model_final.pth, parsing_results.json and metrics.json; writes
predictions.png, or predictions_tta.png, and training_curves.png beside them. Below each prediction
stand the figures of that image alone. With another run beside it, whose model has the same parts,
the sheet is predictions_against_OTHER_RUN.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Sequence

import aiparsing_d2  # isort: skip  # noqa: F401  before Detectron2: ignores its deprecation warnings

import torch
from detectron2.config import instantiate
from detectron2.structures import Instances
from omegaconf import DictConfig
from PIL import Image
from tabulate import tabulate

import aiparsing_d2.data.datasets  # noqa: F401  registers the splits: the saved config does not
from aiparsing_d2.checkpoint import WeightFileError
from aiparsing_d2.cli.argument_types import positive
from aiparsing_d2.data.annotations import PersonAnnotations, read_person_annotations
from aiparsing_d2.data.image_files import read_image
from aiparsing_d2.engine import ConfigError, FittingCheckpointer, load_lazy_config
from aiparsing_d2.evaluation import GroundTruth, ParsingMetrics
from aiparsing_d2.evaluation.parsing_evaluator import to_prediction
from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import get_part_labels
from aiparsing_d2.visualization import ParsingExample, result_sheet
from aiparsing_d2.visualization.training_curves import plot_training_curves

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
    parser.add_argument("--num-images", type=positive, default=8, help="rows of the sheet")
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
    parser.add_argument(
        "--against",
        metavar="OTHER_RUN",
        help="folder of another run, whose predictions of the same images stand beside these",
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
    cfg, model: torch.nn.Module, num_images: int, score_threshold: float, title: str
) -> list[ParsingExample]:
    """Return the first test images with their ground truth and what the model makes of them.

    The figures below a prediction, and the edges, if the model predicts them, are those of people
    with at least the given score.
    """
    examples = []
    loader = instantiate(cfg.dataloader.test)
    for inputs in itertools.islice(itertools.chain.from_iterable(loader), num_images):
        prediction = model([inputs])[0]["instances"].to("cpu")
        found = prediction[prediction.scores >= score_threshold]
        edges = None
        if prediction.has("pred_edges"):
            edges = torch.zeros(prediction.image_size)
            for edge_map, (x0, y0, x1, y1) in zip(
                found.pred_edges.maps, found.pred_edges.windows.tolist()
            ):
                edges[y0:y1, x0:x1][edge_map > 0] = 1
        annotations = read_person_annotations(inputs)
        num_classes = get_part_labels(cfg.dataloader.test.dataset.names).num_classes
        examples.append(
            ParsingExample(
                image=read_image(inputs["file_name"], "RGB"),
                ground_truth=PartMaps.from_full(annotations.person_maps),
                prediction=prediction,
                edges=edges,
                name=inputs["image_id"],
                figures={title: image_figures(annotations, found, num_classes)},
            )
        )
    return examples


def image_figures(annotations: PersonAnnotations, found: Instances, num_classes: int) -> str:
    """Return the figures of one image alone, in percent."""
    metrics = ParsingMetrics(num_classes)
    truth = GroundTruth(annotations.person_maps, annotations.category_map, annotations.boxes)
    metrics.add_image("image", truth, to_prediction(found, found.image_size))
    figures = metrics.summarize()["parsing"]
    shown = [f"{name} {figures[name]:.1f}" for name in ("mIoU", "APp50", "PCP50")]
    return ", ".join([*shown, f"{len(found)} people"])


def load_run(
    run_dir: str, weights: str, *, edges: bool, tta: bool, dataset=None
) -> tuple[DictConfig, torch.nn.Module]:
    """Return a run's config and its trained model.

    Args:
        dataset: node of a config, of what to predict instead of the run's own test set.
    """
    config_file = os.path.join(run_dir, "config.yaml")
    cfg = load_lazy_config(config_file)
    if dataset is not None:
        part_labels = get_part_labels(cfg.dataloader.test.dataset.names)
        if part_labels != get_part_labels(dataset.names):
            sys.exit(f"{run_dir} has other parts than the run that it is set beside")
        cfg.dataloader.test.dataset = dataset
    if tta and "wrapper" not in cfg.get("test_time_augmentation", {}):
        sys.exit(
            f"{config_file} has no test_time_augmentation.wrapper: show the run without "
            "--tta, or add one of configs/common/tta.py there"
        )
    try:
        model = load_model(cfg, weights, edges)
    except (ConfigError, WeightFileError) as error:
        sys.exit(f"error: {error}")
    return cfg, with_test_time_augmentation(cfg, model) if tta else model


def name_of_run(run_dir: str) -> str:
    return os.path.basename(os.path.abspath(run_dir))


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
    if args.against:
        needed += [os.path.join(args.against, name) for name in ("config.yaml", "model_final.pth")]
    for path in needed:
        if not os.path.isfile(path):
            sys.exit(
                f"{path} is missing: {os.path.dirname(path)} is not the folder of a finished run"
            )

    title, sheet_name = "Prediction", "predictions_tta" if args.tta else "predictions"
    cfg, model = load_run(args.run_dir, weights, edges=args.edges, tta=args.tta)
    if args.against:
        title, other = name_of_run(args.run_dir), name_of_run(args.against)
        if title == other:
            title, other = args.run_dir, args.against
        sheet_name += f"_against_{name_of_run(args.against)}"
    examples = predict_examples(cfg, model, args.num_images, args.score_threshold, title)
    if args.against:
        other_cfg, other_model = load_run(
            args.against,
            os.path.join(args.against, "model_final.pth"),
            edges=False,
            tta=args.tta,
            dataset=cfg.dataloader.test.dataset,
        )
        others = predict_examples(
            other_cfg, other_model, args.num_images, args.score_threshold, other
        )
        examples = [
            dataclasses.replace(
                example,
                others={other: theirs.prediction},
                figures={**example.figures, **theirs.figures},
            )
            for example, theirs in zip(examples, others, strict=True)
        ]
    sheet = result_sheet(
        examples,
        get_part_labels(cfg.dataloader.test.dataset.names),
        score_threshold=args.score_threshold,
        prediction_title=title,
    )
    predictions = in_run(f"{sheet_name}.png")
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

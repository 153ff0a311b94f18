"""``evaluate``: score a folder of results, made by any system.

::

    # a registered data set, below $DETECTRON2_DATASETS
    python -m aiparsing_d2 evaluate --dataset cihp_val --predictions results/ --output scores/

    # any folder in the layout of CIHP, LV-MHP-v2 or VIP
    python -m aiparsing_d2 evaluate --root data/my_cihp --layout cihp --split val \
        --predictions results/

    # a data set that a module of yours registers
    python -m aiparsing_d2 evaluate --import my_project.datasets --dataset my_people_val \
        --predictions results/

The formats are described in :mod:`aiparsing_d2.submissions`.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aiparsing_d2.counted import counted

from .argument_types import positive

if TYPE_CHECKING:
    from aiparsing_d2.structures.part_labels import PartLabels
    from aiparsing_d2.submissions import ImageScores, Submission, SubmissionScores
    from aiparsing_d2.visualization import ParsingExample

__all__ = ["add_parser", "run"]

# Those of submissions, which is not imported for --help.
FORMATS = ("person_maps", "cihp", "vip", "lv_mhp_v2")
# The layout of a folder -> a registered data set with the same labels and settings.
_LAYOUTS = {"cihp": "cihp_val", "lv_mhp_v2": "lv_mhp_v2_val", "vip": "vip_val"}
_SHEET_FILE_NAME = "worst_images.png"

_EPILOG = """\
formats of PREDICTIONS:
  person_maps  <image id>.json and a label PNG per person; scored in every metric, boxes permitting
  cihp         global_parsing/, instance_parsing/ and, for APp, PCP and box AP,
               instance_segmentation/
  vip          these three folders for each video
  lv_mhp_v2    results.txt, global_seg/ and global_tag/
python -c "help('aiparsing_d2.submissions.person_maps')" shows how to write the first in
ten lines; the other modules of that package describe the other formats.

files in OUTPUT:
  scores.json, scores.csv, scores.md   every figure, in percent
  images.csv                           figures of each image, the worst first
  worst_images.png                     image, ground truth and prediction of the worst

example:
  aiparsing evaluate --dataset cihp_val --predictions results/ --output scores/
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser of ``aiparsing``."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score a folder of results, made by any system",
        description="Score a folder of results: mIoU, APp, PCP, APr and box AP.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = parser.add_argument_group("data set (--dataset, or --root with --layout and --split)")
    data.add_argument("--dataset", metavar="NAME", help="registered data set, such as cihp_val")
    data.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="Python module that registers data sets of your own",
    )
    data.add_argument("--root", type=Path, metavar="DIR", help="folder of an unregistered data set")
    data.add_argument("--layout", choices=list(_LAYOUTS), help="how the folder --root is built")
    data.add_argument("--split", help="split of the folder --root: train, val")

    results = parser.add_argument_group("results")
    results.add_argument("--predictions", type=Path, required=True, metavar="DIR")
    results.add_argument("--format", choices=FORMATS, help="default: what the folder looks like")
    results.add_argument(
        "--missing",
        choices=("raise", "empty"),
        default="raise",
        help="an image without a result is an error, or counts as an image without people "
        "(default: %(default)s)",
    )
    results.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="a broken result or annotation is an error, or its image is left out of all figures, "
        "and counted (default: %(default)s)",
    )

    metrics = parser.add_argument_group(
        "metrics (formats that hold a picture of all people are scored as they were painted)"
    )
    metrics.add_argument(
        "--score-thresh",
        type=float,
        default=0.001,
        metavar="S",
        help="lowest person score that counts for APp and PCP (default: %(default)s)",
    )
    metrics.add_argument(
        "--semseg-thresh",
        type=float,
        metavar="S",
        help="lowest person score that is painted for mIoU (default: the data set's)",
    )
    metrics.add_argument(
        "--part-score-thresh",
        type=float,
        default=0.01,
        metavar="S",
        help="lowest person score that is painted for APr (default: %(default)s)",
    )
    metrics.add_argument(
        "--part-regions-one-to-one",
        action="store_true",
        help="let an annotated part region be matched once only in APr; the published APr does not",
    )
    metrics.add_argument(
        "--part-regions-skip-ignored",
        action="store_true",
        help="leave ignored pixels (label 255) out of predicted part regions in APr; to the "
        "published APr they are background",
    )

    output = parser.add_argument_group("output")
    output.add_argument("--output", type=Path, metavar="DIR", help="folder to write figures to")
    output.add_argument(
        "--overwrite", action="store_true", help="replace the figures of an earlier call"
    )
    output.add_argument(
        "--worst",
        type=int,
        default=8,
        metavar="N",
        help="images on the sheet of the worst, 0 for no sheet (default: %(default)s)",
    )
    output.add_argument(
        "--person-thresh",
        type=float,
        default=0.3,
        metavar="S",
        help="lowest person score that counts in figures of single images and is drawn "
        "(default: %(default)s)",
    )
    output.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="processes"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from aiparsing_d2.parallel import WorkerDiedError

    try:
        _evaluate(args)
    except (ImportError, OSError, ValueError, WorkerDiedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _evaluate(args: argparse.Namespace) -> None:
    from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
    from aiparsing_d2.submissions import open_submission, score_submission
    from aiparsing_d2.submissions.score_report import (
        REPORT_FILE_NAMES,
        main_table,
        notes,
        write_report,
    )
    from aiparsing_d2.whole_files import check_writable

    if args.output is not None:
        check_writable(args.output)
    if args.output is not None and not args.overwrite:
        for name in (*REPORT_FILE_NAMES, _SHEET_FILE_NAME):
            if (args.output / name).exists():
                raise FileExistsError(
                    f"{args.output / name} exists; give another folder, or --overwrite"
                )
    records, part_labels, semseg_thresh = _load_data_set(args)
    submission = open_submission(args.predictions, part_labels.num_classes, args.format)
    result = score_submission(
        submission,
        records,
        part_labels.names,
        thresholds=ScoreThresholds(args.score_thresh, semseg_thresh, args.part_score_thresh),
        part_regions_one_to_one=args.part_regions_one_to_one,
        part_regions_skip_ignored=args.part_regions_skip_ignored,
        person_threshold=args.person_thresh,
        on_missing=args.missing,
        on_error=args.on_error,
        num_workers=args.workers,
    )

    data_set = args.dataset or f"{args.root} ({args.split})"
    heading = f"{args.predictions} ({submission.format_name}) on {data_set}"
    print(f"\n{heading}: {counted(len(result.images), 'image')}, in percent\n")
    print(main_table(result, part_labels.names))
    for note in notes(result):
        print(f"note: {note}")
    if args.output is None:
        return
    description = {
        "dataset": data_set,
        "predictions": str(args.predictions),
        "format": submission.format_name,
        "settings": {
            "score_thresh": args.score_thresh,
            "semseg_thresh": semseg_thresh,
            "part_score_thresh": args.part_score_thresh,
            "part_regions_one_to_one": args.part_regions_one_to_one,
            "part_regions_skip_ignored": args.part_regions_skip_ignored,
            "person_thresh": args.person_thresh,
        },
    }
    if args.overwrite:  # the sheet of an earlier call showed others
        (args.output / _SHEET_FILE_NAME).unlink(missing_ok=True)
    write_report(args.output, result, part_labels.names, description, overwrite=args.overwrite)
    if args.worst > 0:
        _write_sheet(args, result, submission, records, part_labels)
    print(f"\nFigures of the data set and of each image: {args.output}")


def _load_data_set(
    args: argparse.Namespace,
) -> tuple[Sequence[Mapping[str, Any]], PartLabels, float]:
    """Load records, labels and threshold of mIoU of what the arguments name.

    Raises:
        ValueError: they name no data set, or it has no part labels or threshold.
    """
    for module in args.modules:
        importlib.import_module(module)
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from aiparsing_d2.data import datasets
    from aiparsing_d2.structures.part_labels import get_part_labels

    folder = (args.root, args.layout, args.split)
    if args.dataset is not None and folder == (None, None, None):
        if args.dataset not in DatasetCatalog:
            known = [
                name
                for name in DatasetCatalog.list()
                if hasattr(MetadataCatalog.get(name), "part_names")
            ]
            raise ValueError(
                f"no data set {args.dataset!r} is registered; those with part labels are "
                f"{', '.join(known)}. --import names a module that registers others."
            )
        records, name = DatasetCatalog.get(args.dataset), args.dataset
    elif args.dataset is None and None not in folder:
        name = _LAYOUTS[args.layout]
        records = getattr(datasets, f"load_{args.layout}")(args.root, args.split)
    else:
        raise ValueError("give either --dataset, or --root with --layout and --split")
    part_labels = get_part_labels(name)
    threshold = args.semseg_thresh
    if threshold is None:
        threshold = MetadataCatalog.get(name).get("semseg_thresh")
    if threshold is None:
        raise ValueError(f"data set {name!r} has no semseg_thresh: give --semseg-thresh")
    return records, part_labels, threshold


def _write_sheet(
    args: argparse.Namespace,
    result: SubmissionScores,
    submission: Submission,
    records: Sequence[Mapping[str, Any]],
    part_labels: PartLabels,
) -> None:
    """Draw the worst images, their ground truth and their prediction."""
    from PIL import Image

    from aiparsing_d2.visualization import result_sheet
    from aiparsing_d2.whole_files import whole_file

    examples = _examples(result.images[: args.worst], submission, records, part_labels.num_classes)
    first = next(examples, None)
    if first is None:
        return
    sheet = result_sheet(
        itertools.chain([first], examples), part_labels, score_threshold=args.person_thresh
    )
    with whole_file(args.output / _SHEET_FILE_NAME, "wb", overwrite=args.overwrite) as file:
        Image.fromarray(sheet).save(file, format="PNG")


def _examples(
    images: Sequence[ImageScores],
    submission: Submission,
    records: Sequence[Mapping[str, Any]],
    num_classes: int,
) -> Iterator[ParsingExample]:
    """Read images with their ground truth and prediction; those that cannot be read are told."""
    from detectron2.structures import Boxes, Instances

    from aiparsing_d2.data.annotations import read_person_annotations
    from aiparsing_d2.data.image_files import read_image
    from aiparsing_d2.structures import PartMaps
    from aiparsing_d2.submissions.scoring import read_prediction
    from aiparsing_d2.visualization import ParsingExample

    by_id = {record["image_id"]: record for record in records}
    for scores in images:
        record = by_id[scores.image_id]
        try:
            image = read_image(record["file_name"], "RGB")
        except OSError as error:
            print(f"warning: left off the sheet: {error}", file=sys.stderr)
            continue
        prediction = read_prediction(submission, record, scores.missing)
        drawn = Instances((record["height"], record["width"]))
        if len(prediction.scores) == 0 and prediction.category_map is not None:
            drawn.pred_part_maps = PartMaps.from_full(prediction.category_map[None])
        else:
            drawn.pred_part_maps = PartMaps.from_full(cast(Any, prediction.person_maps))
            drawn.scores = prediction.scores
            if prediction.boxes is not None:
                drawn.pred_boxes = Boxes(prediction.boxes)
        truth = read_person_annotations(record, num_classes).person_maps
        yield ParsingExample(image, PartMaps.from_full(truth), drawn, name=_caption(scores))


def _caption(scores: ImageScores) -> str:
    """Say what is written below an image of the sheet."""
    words = [counted(scores.num_gt_persons, "person")]
    if not math.isnan(scores.miou):
        words.insert(0, f"mIoU {100 * scores.miou:.1f}")
    if scores.missing:
        words.append("no result")
    elif scores.missed_persons is not None:
        words.append(
            f"{scores.missed_persons} missed, {counted(scores.false_detections, 'false detection')}"
        )
    return f"{scores.image_id}: {', '.join(words)}"

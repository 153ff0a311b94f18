"""A scored submission as tables and files."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from aiparsing_d2.counted import counted
from aiparsing_d2.evaluation.average_precision import IOU_THRESHOLDS
from aiparsing_d2.evaluation.parsing_metrics import percentages
from aiparsing_d2.whole_files import whole_file

from .scoring import SubmissionScores

__all__ = ["REPORT_FILE_NAMES", "main_table", "notes", "write_report"]

_IMAGE_FIGURES = {
    "image_id": lambda image: image.image_id,
    "file_name": lambda image: image.file_name,
    "result": lambda image: "missing" if image.missing else "scored",
    "gt_persons": lambda image: image.num_gt_persons,
    "predicted_persons": lambda image: image.num_persons,
    "mIoU": lambda image: _cell(100 * image.miou),
    "mean_person_mIoU": lambda image: _cell(100 * image.mean_person_miou),
    "missed_persons": lambda image: image.missed_persons,
    "false_detections": lambda image: image.false_detections,
}


def main_table(result: SubmissionScores, class_names: Sequence[str]) -> str:
    """Return the main figures in percent, as a Markdown table of one row; "-" is undefined."""
    figures = {
        f"box {name}" if group == "bbox" else name: value
        for group, values in percentages(result.scores, class_names).items()
        for name, value in values.items()
        if "-" not in name
    }
    return _table([figures.values()], list(figures))


def notes(result: SubmissionScores) -> list[str]:
    """Return what must be known about the figures: what is undefined, left out or counted as
    empty.
    """
    lines = [f"{group.value}: undefined, {reason}" for group, reason in result.undefined.items()]
    num_images = len(result.images) + len(result.skipped)
    if result.missing:
        lines.append(
            f"without a result, counted as images without people: {len(result.missing)} of "
            f"{counted(num_images, 'image')}, {result.missing[0]!r} first"
        )
    if result.skipped:
        image_id, reason = next(iter(result.skipped.items()))
        lines.append(
            f"cannot be scored, left out of all figures: {len(result.skipped)} of "
            f"{counted(num_images, 'image')}; the first is {image_id!r}: {reason}"
        )
    if result.unknown:
        lines.append(
            f"of no image of the data set, ignored: {counted(len(result.unknown), 'result')}, "
            f"{result.unknown[0]!r} first"
        )
    return lines


def write_report(
    folder: str | os.PathLike,
    result: SubmissionScores,
    class_names: Sequence[str],
    description: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write the files :data:`REPORT_FILE_NAMES`; all figures are in percent.

    ===============  ===========================================================================
    ``scores.json``  everything but single images; undefined figures are null
    ``scores.csv``   group, metric, percent: one line for each figure
    ``scores.md``    tables: main figures, by IoU threshold, by class; and the notes
    ``images.csv``   a line for each image, see :class:`~.scoring.ImageScores`, the worst first
    ===============  ===========================================================================

    Args:
        folder: where to write; made if it does not exist.
        result: the scored submission.
        class_names: the C class names.
        description: what was scored and how, as JSON values; written along.
        overwrite: replace files of an earlier report.

    Raises:
        FileExistsError: there is an earlier report and it is not to be overwritten.
    """
    for name, render in _REPORT_FILES.items():
        with whole_file(Path(folder, name), overwrite=overwrite) as file:
            file.write(render(result, class_names, description))


def _json(
    result: SubmissionScores, class_names: Sequence[str], description: Mapping[str, Any]
) -> str:
    scores = result.scores
    content = {
        **description,
        "num_images": len(result.images),
        "iou_thresholds": list(IOU_THRESHOLDS),
        "results": {
            group: {name: _finite_or_none(value) for name, value in values.items()}
            for group, values in percentages(scores, class_names).items()
        },
        "per_class": {
            name: {
                "IoU": _finite_or_none(100 * iou),
                "APr": [_finite_or_none(100 * value) for value in apr],
            }
            for name, iou, apr in zip(class_names, scores.class_iou, scores.apr_per_class)
        },
        "undefined": {group.value: reason for group, reason in result.undefined.items()},
        "missing": result.missing,
        "skipped": dict(result.skipped),
        "unknown": result.unknown,
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _scores_csv(
    result: SubmissionScores, class_names: Sequence[str], description: Mapping[str, Any]
) -> str:
    rows = (
        (group, name, _cell(value))
        for group, values in percentages(result.scores, class_names).items()
        for name, value in values.items()
    )
    return _csv(("group", "metric", "percent"), rows)


def _images_csv(
    result: SubmissionScores, class_names: Sequence[str], description: Mapping[str, Any]
) -> str:
    rows = ([figure(image) for figure in _IMAGE_FIGURES.values()] for image in result.images)
    return _csv(list(_IMAGE_FIGURES), rows)


def _markdown(
    result: SubmissionScores, class_names: Sequence[str], description: Mapping[str, Any]
) -> str:
    scores = result.scores
    by_threshold = [
        [name, *(100 * values), 100 * values.mean()]
        for name, values in (("APp", scores.app), ("PCP", scores.pcp), ("APr", scores.apr))
    ]
    by_class = [
        [name, 100 * iou, 100 * apr[IOU_THRESHOLDS.index(0.5)], 100 * apr.mean()]
        for name, iou, apr in zip(class_names, scores.class_iou, scores.apr_per_class)
    ]
    sections = [
        f"# {description['predictions']} on {description['dataset']}",
        f"{counted(len(result.images), 'image')}. All figures in percent; - is undefined.",
        main_table(result, class_names),
        *(f"- {note}" for note in notes(result)),
        "## By IoU threshold",
        _table(by_threshold, ["metric", *(f"{t:.1f}" for t in IOU_THRESHOLDS), "mean"]),
        "## By class",
        _table(by_class, ["class", "IoU", "APr50", "APrvol"]),
    ]
    return "\n\n".join(sections) + "\n"


_REPORT_FILES: dict[str, Callable[[SubmissionScores, Sequence[str], Mapping[str, Any]], str]] = {
    "scores.json": _json,
    "scores.csv": _scores_csv,
    "scores.md": _markdown,
    "images.csv": _images_csv,
}

REPORT_FILE_NAMES = tuple(_REPORT_FILES)
"""The files that :func:`write_report` writes."""


def _table(rows: Iterable[Iterable[Any]], headers: Sequence[str]) -> str:
    defined = [
        [None if isinstance(value, float) and math.isnan(value) else value for value in row]
        for row in rows
    ]
    return tabulate(defined, headers, tablefmt="pipe", floatfmt=".2f", missingval="-")


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _cell(value: float) -> float | str:
    """Return the number, an empty cell where it is undefined."""
    return "" if math.isnan(value) else value


def _finite_or_none(value: float) -> float | None:
    """Return the plain number, None where it is undefined: JSON has no NaN."""
    return None if math.isnan(value) else float(value)

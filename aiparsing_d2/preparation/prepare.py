"""From a data set as downloaded to one that is checked, described and counted."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aiparsing_d2.counted import counted

from .coco_json import coco_annotations
from .findings import BadDataError, Finding, Kind, OnBadPolicy, Severity
from .inventory import ImageFiles, Inventory, find_splits, take_inventory
from .journal import Journal, JournalError, verify_images
from .output_files import write_csv, write_json, write_text
from .published import ONE_OF, SPLITS, DataSet
from .report import FINDINGS_HEADER, PreparationReport, SplitReport
from .statistics import PLOT_NAMES, collect_statistics
from .verification import ImageReport, ImageVerifier

__all__ = ["OutputExistsError", "PreparationRequest", "prepare_data_set"]

_JOURNAL_NAME = "unfinished.jsonl"
_REPORT_NAME, _FINDINGS_NAME, _STATISTICS_NAME = "report.md", "findings.csv", "statistics.json"
_NAMES = (_REPORT_NAME, _FINDINGS_NAME, _STATISTICS_NAME, *PLOT_NAMES)


class OutputExistsError(Exception):
    """The output folder holds files that would be overwritten."""


@dataclass(frozen=True)
class PreparationRequest:
    """What to prepare, and how.

    Attributes:
        data_set: the data set.
        root: its folder, as the archive unpacks.
        output: folder to write to; made if it is missing.
        splits: the splits; if there are none, all whose lists are there.
        on_bad: what to do about findings.
        num_workers: number of processes.
        with_rle: whether annotations have a "segmentation".
        write_person_maps: whether to write a label map for each person. Of no effect if the data
            set has such maps.
        overwrite: whether to replace files of an earlier run, and to give up an unfinished run of
            another request.
    """

    data_set: DataSet
    root: Path
    output: Path
    splits: tuple[str, ...] = ()
    on_bad: OnBadPolicy = field(default_factory=OnBadPolicy)
    num_workers: int = 1
    with_rle: bool = False
    write_person_maps: bool = False
    overwrite: bool = False

    @property
    def has_person_files(self) -> bool:
        """Whether each person has a label file of their own in the data set."""
        return self.data_set.layout(self.root)["train"].person_maps is not None

    def annotation_file(self, split: str) -> Path:
        """Return the JSON file of a split."""
        return self.output / "annotations" / f"{self.data_set.key}_{split}.json"

    def verifier(self) -> ImageVerifier:
        """Return what looks through the images, and writes people's label maps if that is
        wanted.
        """
        writes = self.write_person_maps and not self.has_person_files
        return ImageVerifier(
            root=self.root,
            num_classes=self.data_set.part_labels.num_classes,
            person_map_folder=self.output if writes else None,
            with_rle=self.with_rle,
        )

    def run_settings(self, splits: Sequence[str]) -> dict[str, Any]:
        """All that the reports on single images depend on besides their files, as JSON values."""
        return {
            "data_set": self.data_set.title,
            "root": str(self.root.absolute()),
            "splits": list(splits),
            "rle": self.with_rle,
            "person_maps": self.write_person_maps,
        }


def prepare_data_set(request: PreparationRequest) -> PreparationReport:
    """Look through a data set; write annotations in COCO's format, statistics and a report.

    An interrupted run leaves ``unfinished.jsonl`` in the output folder, and the same request goes
    on from there. The other files are written at the end.

    Args:
        request: what to do.

    Returns:
        What was found and written.

    Raises:
        FileNotFoundError, NotADirectoryError: the data set or a split is not there.
        OutputExistsError: files would be overwritten. Nothing is changed then.
        JournalError: the output folder holds an unfinished run of another request.
        BadDataError: something is found that the request calls fatal, or a split has no image
            that can be used.
    """
    splits, inventory = _take_inventory(request)
    request.on_bad.check(inventory.findings)
    journal_file = request.output / _JOURNAL_NAME
    if not request.overwrite and not journal_file.exists():
        _check_nothing_is_there(request, splits)

    reports = _verify(request, splits, inventory, journal_file)
    findings = list(inventory.findings)
    counts = {}
    for split in splits:
        of_split = [reports[split, files.image_id] for files in inventory.images[split]]
        counts[split] = _count(request.data_set, inventory.listed[split], of_split)
        findings += [finding for report in of_split for finding in report.findings]
        findings += _compare_counts(request, split, counts[split])
    request.on_bad.check(findings)
    used = _leave_out(request, inventory, reports, findings)

    split_reports = [
        _write_annotations(request, split, used[split], counts[split]) for split in splits
    ]
    report = PreparationReport(
        data_set=request.data_set,
        root=request.root,
        output=request.output,
        on_bad=request.on_bad,
        splits=split_reports,
        findings=findings,
    )
    _write_report(report)
    journal_file.unlink()
    return report


def _take_inventory(request: PreparationRequest) -> tuple[tuple[str, ...], Inventory]:
    """Return the splits to prepare, and what is there of them."""
    data_set, root = request.data_set, request.root
    found = find_splits(root, data_set)
    splits = request.splits or tuple(found)
    inventory = take_inventory(root, data_set, splits)
    if not request.splits:
        for split in SPLITS:
            if split not in found and data_set.is_published:
                list_file = data_set.layout(root)[split].id_lists[0]
                reason = f"does not exist; the {split} split is passed over"
                inventory.findings.append(Finding(Kind.MISSING_LIST, list_file, reason, split))
    return splits, inventory


def _check_nothing_is_there(request: PreparationRequest, splits: Sequence[str]) -> None:
    person_maps = map(request.verifier().person_maps, splits)
    outputs = [
        request.output / name
        for name in (_REPORT_NAME, _FINDINGS_NAME, _STATISTICS_NAME, *PLOT_NAMES)
    ]
    outputs += [request.annotation_file(split) for split in splits]
    outputs += [folder for folder in person_maps if folder is not None]
    existing = [str(path) for path in outputs if path.exists()]
    if existing:
        raise OutputExistsError(
            f"{len(existing)} of the files to write exist already, such as {existing[0]}. Give "
            "another output folder, or --overwrite to replace them."
        )


def _verify(
    request: PreparationRequest, splits: Sequence[str], inventory: Inventory, journal_file: Path
) -> dict[tuple[str, str], ImageReport]:
    """Return the reports on all images, by split and image id."""
    images = [files for split in splits for files in inventory.images[split]]
    reports = {}
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(_open_journal(request, splits, journal_file))
        verified = verify_images(request.verifier(), images, journal, request.num_workers)
        # Closed, so that the worker processes end at once if a finding is fatal.
        stack.enter_context(contextlib.closing(verified))
        title = f"Verifying {request.data_set.title}"
        for report in tqdm(verified, title, len(images), unit="image"):
            request.on_bad.check(report.findings)
            reports[report.split, report.image_id] = report
    return reports


def _open_journal(
    request: PreparationRequest, splits: Sequence[str], journal_file: Path
) -> Journal:
    settings = request.run_settings(splits)
    try:
        return Journal(journal_file, settings)
    except JournalError as e:
        if not request.overwrite:
            raise JournalError(
                f"{e} Finish that run, give another output folder, or --overwrite to give it up."
            ) from e
        journal_file.unlink()
        return Journal(journal_file, settings)


def _count(
    data_set: DataSet, image_ids: Sequence[str], reports: Sequence[ImageReport]
) -> dict[str, int]:
    """How many of what a split has, as far as it can be read."""
    counts = {"images": len(image_ids)}
    if data_set.frame_step is not None:
        counts["videos"] = len({image_id.rpartition("/")[0] for image_id in image_ids})
    people = sum(len(report.people) for report in reports)
    return {**counts, "people": people} if people else counts


def _compare_counts(
    request: PreparationRequest, split: str, counts: Mapping[str, int]
) -> list[Finding]:
    list_file = request.data_set.find_list(request.root, split)
    published = request.data_set.counts[split]
    return [
        Finding(
            Kind.COUNT,
            str(list_file),
            f"{counted(counts.get(what, 0), ONE_OF[what])}; published were {number:,}",
            split,
        )
        for what, number in published.items()
        if counts.get(what, 0) != number
    ]


def _leave_out(
    request: PreparationRequest,
    inventory: Inventory,
    reports: Mapping[tuple[str, str], ImageReport],
    findings: Sequence[Finding],
) -> dict[str, list[tuple[ImageFiles, ImageReport]]]:
    """Return the images of each split that are used."""
    by_image: dict[tuple[str | None, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.image_id is not None:
            by_image[finding.split, finding.image_id].append(finding)
    used = {}
    for split, images in inventory.images.items():
        used[split] = [
            (files, reports[split, files.image_id])
            for files in images
            if not request.on_bad.leaves_out(by_image[split, files.image_id])
        ]
        if not used[split]:
            relevant = [finding for finding in findings if finding.split in (split, None)]
            grave = [f for f in relevant if f.image_id or f.kind.severity is Severity.UNUSABLE]
            reason = f"{(grave or relevant)[0]}" if relevant else "its list is empty"
            raise BadDataError(f"No image of the {split} split can be used: {reason}.")
    return used


def _write_annotations(
    request: PreparationRequest,
    split: str,
    used: Sequence[tuple[ImageFiles, ImageReport]],
    counts: dict[str, int],
) -> SplitReport:
    """Write the JSON file of a split."""
    data_set, root = request.data_set, request.root
    folders = data_set.layout(root)[split]
    written_maps = request.verifier().person_maps(split)
    label_folder = category_folder = None
    if folders.person_maps is not None:
        label_folder = root / folders.person_maps
    elif folders.category_maps is not None and written_maps is not None:
        label_folder, category_folder = written_maps, root / folders.category_maps
    elif folders.category_maps is not None:
        label_folder = root
    content = coco_annotations(
        used,
        data_set.part_labels,
        image_folder=folders.images,
        person_maps=label_folder != root,
        description=f"{data_set.title} {split}",
    )
    write_json(request.annotation_file(split), content)
    return SplitReport(
        split=split,
        counts=counts,
        statistics=collect_statistics((report for _, report in used), data_set.part_labels),
        annotation_file=request.annotation_file(split),
        image_folder=root / folders.images,
        label_folder=label_folder,
        category_folder=category_folder,
    )


def _write_report(report: PreparationReport) -> None:
    """Write what is about all splits."""
    from .statistics_plots import plot_statistics  # matplotlib, which the processes do not need

    output = report.output
    statistics = {split.split: split.statistics for split in report.splits}
    figures = {split: of_split.to_json() for split, of_split in statistics.items()}
    write_json(output / _STATISTICS_NAME, figures, indent=2)
    with_people = {name: split for name, split in statistics.items() if split.num_people}
    if with_people:
        plot_statistics(with_people, output, report.data_set.title)
    write_csv(output / _FINDINGS_NAME, FINDINGS_HEADER, report.findings_table())
    write_text(output / _REPORT_NAME, report.markdown())

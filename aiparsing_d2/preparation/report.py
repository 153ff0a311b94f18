"""Telling a person what was found in a data set, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiparsing_d2.counted import counted

from .findings import Finding, Kind, OnBadPolicy, Severity
from .published import ONE_OF, DataSet
from .statistics import PLOT_NAMES, SplitStatistics

__all__ = ["FINDINGS_HEADER", "PreparationReport", "SplitReport"]

FINDINGS_HEADER = ("split", "kind", "severity", "action", "image_id", "file", "reason")

_SEVERITIES = (Severity.UNUSABLE, Severity.FLAWED, Severity.NOTE)
_EXAMPLES_IN_SUMMARY = 3
_EXAMPLES_IN_MARKDOWN = 10


@dataclass(frozen=True)
class SplitReport:
    """What became of a split.

    Attributes:
        split: its name.
        counts: how many "images", "people" and "videos" it has, those left out among them.
        statistics: figures of the images that are used.
        annotation_file: the JSON file.
        image_folder: what the file names of images in the JSON file are relative to.
        label_folder: what the names of label maps in it are relative to; None if it has none.
        category_folder: folder of the maps of all people's part labels, if the JSON file has a
            map for each person only, but there are such; else None.
    """

    split: str
    counts: dict[str, int]
    statistics: SplitStatistics
    annotation_file: Path
    image_folder: Path
    label_folder: Path | None
    category_folder: Path | None

    @property
    def num_left_out(self) -> int:
        """Number of listed images that are not used."""
        return self.counts["images"] - self.statistics.num_images


@dataclass(frozen=True)
class PreparationReport:
    """What was found and made.

    Attributes:
        data_set: the data set.
        root: its folder.
        output: the folder of the files that were written.
        on_bad: what was done about findings.
        splits: the splits.
        findings: everything that was found.
    """

    data_set: DataSet
    root: Path
    output: Path
    on_bad: OnBadPolicy
    splits: Sequence[SplitReport]
    findings: Sequence[Finding]

    def findings_table(self) -> list[tuple[str, ...]]:
        """Return the findings as rows under ``FINDINGS_HEADER``."""
        return [
            (
                finding.split or "",
                finding.kind.slug,
                finding.kind.severity.value,
                self._action(finding),
                finding.image_id or "",
                finding.file,
                finding.reason,
            )
            for _, findings in self._findings_by_kind()
            for finding in findings
        ]

    def summary(self) -> str:
        """Return the report for a terminal."""
        lines = [f"{self.data_set.title} in {self.root}"]
        for split in self.splits:
            counts = ", ".join(counted(n, ONE_OF[what]) for what, n in split.counts.items())
            used = "all are used" if not split.num_left_out else f"{split.num_left_out:,} left out"
            lines.append(f"  {split.split}: {counts}; {used}")
        for kind, findings in self._findings_by_kind():
            lines += ["", f"{kind.slug}: {self._number(findings)}"]
            lines.append(f"  {kind.meaning} {kind.remedy}")
            lines += [f"    {f.file}: {f.reason}" for f in findings[:_EXAMPLES_IN_SUMMARY]]
            more = len(findings) - _EXAMPLES_IN_SUMMARY
            if more > 0:
                lines.append(f"    and {more:,} more: see findings.csv")
        if not self.findings:
            lines.append("  Nothing is wrong.")
        lines += ["", f"Written to {self.output}; report.md tells what is there."]
        return "\n".join(lines)

    def markdown(self) -> str:
        """Return the report as a Markdown document that lies beside the other files."""
        lines = [f"# {self.data_set.title}", "", f"Folder: `{self.root}`", ""]
        lines += ["| split | | found | published |", "|---|---|---|---|"]
        for split in self.splits:
            published = self.data_set.counts[split.split]
            for what, count in split.counts.items():
                expected = f"{published[what]:,}" if what in published else ""
                lines.append(f"| {split.split} | {what} | {count:,} | {expected} |")
            lines.append(f"| {split.split} | images used | {split.statistics.num_images:,} | |")
        lines += ["", "## Findings", "", *self._markdown_findings()]
        lines += ["", "## Annotations", "", *self._markdown_annotations()]
        if any(split.statistics.num_people for split in self.splits):
            lines += ["", "## Statistics", "", "The figures are in `statistics.json`.", ""]
            lines += [f"![{name}]({name})" for name in PLOT_NAMES]
        return "\n".join(lines) + "\n"

    def _markdown_findings(self) -> Iterator[str]:
        if not self.findings:
            yield "Nothing is wrong."
            return
        yield "`findings.csv` has all of them. Files are named from the data set's folder."
        yield from ("", "| kind | severity | number |", "|---|---|---|")
        for kind, findings in self._findings_by_kind():
            yield f"| {kind.slug} | {kind.severity.value} | {self._number(findings)} |"
        for kind, findings in self._findings_by_kind():
            yield from ("", f"### {kind.slug}", "", f"{kind.meaning} {kind.remedy}", "")
            for finding in findings[:_EXAMPLES_IN_MARKDOWN]:
                yield f"* `{finding.file}`: {finding.reason}"
            if len(findings) > _EXAMPLES_IN_MARKDOWN:
                yield f"* and {len(findings) - _EXAMPLES_IN_MARKDOWN:,} more"

    def _markdown_annotations(self) -> Iterator[str]:
        for split in self.splits:
            yield f"* {split.split}: `{split.annotation_file.relative_to(self.output).as_posix()}`"
        trainable = [split for split in self.splits if split.label_folder is not None]
        if not trainable:
            return
        yield from ("", "To train and evaluate on them:", "", "```python")
        yield "from detectron2.data import MetadataCatalog"
        yield ""
        yield "from aiparsing_d2.data.datasets import register_coco_parsing"
        yield "from aiparsing_d2.structures.part_labels import get_part_labels"
        for split in trainable:
            builtin = f"{self.data_set.key.lower()}_{split.split}"
            yield ""
            yield "register_coco_parsing("
            yield f'    "prepared_{builtin}",'
            for path in (split.annotation_file, split.image_folder, split.label_folder):
                yield f'    "{path.absolute().as_posix()}",'
            yield f'    get_part_labels("{builtin}"),'
            if split.category_folder is not None:
                yield f'    category_folder="{split.category_folder.absolute().as_posix()}",'
            yield f'    semseg_thresh=MetadataCatalog.get("{builtin}").semseg_thresh,'
            yield ")"
        yield "```"

    def _findings_by_kind(self) -> Iterator[tuple[Kind, list[Finding]]]:
        """Return the findings of each kind, the gravest kinds first."""
        for severity in _SEVERITIES:
            for kind in Kind:
                findings = [finding for finding in self.findings if finding.kind is kind]
                if findings and kind.severity is severity:
                    yield kind, findings

    def _action(self, finding: Finding) -> str:
        is_left_out = finding.image_id is not None and self.on_bad.leaves_out([finding])
        return "left out" if is_left_out else "named"

    def _number(self, findings: Sequence[Finding]) -> str:
        images = {(f.split, f.image_id) for f in findings if self._action(f) == "left out"}
        return f"{len(findings):,}" + (
            f", {counted(len(images), 'image')} left out" if images else ""
        )

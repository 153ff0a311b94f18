"""Looking through the files of one image: what is wrong with them, and who is in the picture.

Unlike :func:`~aiparsing_d2.data.annotations.read_person_annotations`, which raises at the first
problem, this collects all of them. What it says about the people is what that function reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aiparsing_d2.data.annotations import (
    AnnotationError,
    LabelSizeError,
    read_label_png,
    read_person_annotations,
)
from aiparsing_d2.data.coco_format import encode_rle
from aiparsing_d2.data.image_files import is_sixteen_bit_grey, open_image, read_image
from aiparsing_d2.data.layouts import PersonFileName
from aiparsing_d2.structures.part_labels import IGNORE_LABEL

from .findings import Finding, Kind, Severity
from .inventory import ImageFiles
from .output_files import write_png

__all__ = ["ImageReport", "ImageVerifier", "Person", "file_stamps"]

_MAX_NAMED = 5
_NUMBER = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class Person:
    """An annotated person.

    Attributes:
        number: the person's number in the image.
        bbox: x, y, width and height in pixels of the tight box around the labelled pixels.
        area: number of labelled pixels, ignored ones among them.
        part_pixels: for each label but 0 that the person has, its number of pixels.
        parsing: the label map of this person alone, relative to the split's folder of such maps;
            None if there is no such file.
        segmentation: the labelled pixels as COCO run-length encoding, None if it was not wanted.
    """

    number: int
    bbox: tuple[int, int, int, int]
    area: int
    part_pixels: dict[int, int]
    parsing: str | None = None
    segmentation: dict[str, Any] | None = None


@dataclass(frozen=True)
class ImageReport:
    """What was found out about an image.

    Attributes:
        split, image_id: the image.
        height, width: its size in pixels after its EXIF orientation; None if it is unreadable.
        findings: what is wrong.
        people: the annotated people; none if labels cannot be read.
    """

    split: str
    image_id: str
    height: int | None = None
    width: int | None = None
    findings: list[Finding] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        findings = [{**asdict(finding), "kind": finding.kind.slug} for finding in self.findings]
        return {**asdict(self), "findings": findings}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ImageReport:
        """Return what :meth:`to_json` gave, also after a way through a file.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        findings = [
            Finding(**{**finding, "kind": Kind.from_slug(finding["kind"])})
            for finding in values["findings"]
        ]
        people = []
        for person in values["people"]:
            parts = {int(label): count for label, count in person["part_pixels"].items()}
            people.append(Person(**{**person, "bbox": tuple(person["bbox"]), "part_pixels": parts}))
        return cls(**{**values, "findings": findings, "people": people})


def file_stamps(root: Path, files: ImageFiles) -> list[list[str | int]]:
    """Name, size in bytes and time of last change in ns of each file of an image; the name alone
    if it is gone.
    """
    stamps: list[list[str | int]] = []
    for file in files.all_files():
        try:
            status = os.stat(root / file)
        except OSError:
            stamps.append([file])
        else:
            stamps.append([file, status.st_size, status.st_mtime_ns])
    return stamps


@dataclass(frozen=True)
class ImageVerifier:
    """Callable that looks through the files of an image.

    Args:
        root: the data set's folder.
        num_classes: number of labels.
        person_map_folder: where to write a label map for each person,
            ``<split>_parsing/<image id>-<number>.png``, with labels out of range as 255; None not
            to, as for data sets that have such maps.
        with_rle: whether to encode people's pixels.
    """

    root: Path
    num_classes: int
    person_map_folder: Path | None = None
    with_rle: bool = False

    def __call__(self, files: ImageFiles) -> ImageReport:
        return _Examination(self, files).report()

    def has_written(self, report: ImageReport) -> bool:
        """Whether the people's label maps that are to be written are there."""
        folder = self.person_maps(report.split)
        return folder is None or all((folder / p.parsing).is_file() for p in report.people)

    def person_maps(self, split: str) -> Path | None:
        """Folder of the label maps that are written for a split's people, None if none are."""
        folder = self.person_map_folder
        return None if folder is None else folder / f"{split}_parsing"


class _Examination:
    """What :class:`ImageVerifier` does for one image."""

    def __init__(self, verifier: ImageVerifier, files: ImageFiles) -> None:
        self._verifier = verifier
        self._files = files
        self._findings: list[Finding] = []

    def report(self) -> ImageReport:
        files = self._files
        size = self._check_image()
        people: list[Person] = []
        if files.is_labelled:
            names = self._check_person_files(size) if files.person_maps else self._check_maps(size)
            readable = all(f.kind.severity is not Severity.UNUSABLE for f in self._findings)
            if size is not None and readable:
                people = self._read_people(size, names)
                if not people:
                    self._found(Kind.NO_PEOPLE, files.image, "nobody is labelled")
        height, width = size or (None, None)
        return ImageReport(files.split, files.image_id, height, width, self._findings, people)

    def _found(self, kind: Kind, file: str, reason: object) -> None:
        # Messages of errors name files with the data set's folder, and end with a full stop.
        reason = str(reason).replace(str(self._verifier.root) + os.sep, "")
        reason = reason.removeprefix(f"{file} ").rstrip(".")
        finding = Finding(kind, file, reason, self._files.split, self._files.image_id)
        self._findings.append(finding)

    def _path(self, file: str) -> Path:
        return self._verifier.root / file

    def _check_image(self) -> tuple[int, int] | None:
        """Decode the image; gives its height and width."""
        file = self._files.image
        path = self._path(file)
        try:
            if not path.stat().st_size:
                self._found(Kind.UNREADABLE_IMAGE, file, "is empty (0 bytes)")
                return None
            with open_image(path) as image:
                is_sixteen_bit = is_sixteen_bit_grey(image)
            height, width, _ = read_image(path).shape
        except OSError as e:
            self._found(Kind.UNREADABLE_IMAGE, file, e)
            return None
        if is_sixteen_bit:
            self._found(Kind.SIXTEEN_BIT_IMAGE, file, "its grey values have 16 bits")
        return height, width

    def _check_person_files(self, size: tuple[int, int] | None) -> list[tuple[int, str]]:
        """LV-MHP-v2's way, one file a person; gives number and file of those with a part."""
        names = []
        for file in self._files.person_maps:
            person_map = self._read_label_map(file, size, allow_red=True)
            if person_map is None:
                continue
            self._check_labels(file, person_map)
            if person_map.any():
                name = PersonFileName.parse(os.path.splitext(file)[0])
                names.append((name.number, os.path.basename(file)))
            else:
                self._found(Kind.EMPTY_PERSON, file, "has no labelled pixel")
        return names

    def _check_maps(self, size: tuple[int, int] | None) -> list[tuple[int, str | None]]:
        """Return the way of CIHP and VIP, maps of labels and of people's numbers.

        Gives number and file, the one to be written if any, of the people with a part.
        """
        files = self._files
        category_map = self._read_label_map(files.category_map, size)
        human_map = self._read_label_map(files.human_map, size)
        if category_map is not None:
            self._check_labels(files.category_map, category_map)
        if category_map is None or human_map is None or category_map.shape != human_map.shape:
            return []
        self._check_instances(category_map, human_map)

        numbers = np.setdiff1d(human_map, (0, IGNORE_LABEL))
        labelled = np.intersect1d(numbers, human_map[category_map != 0])
        if len(labelled) < len(numbers):
            empty = _some(np.setdiff1d(numbers, labelled))
            reason = f"the people with the number(s) {empty} have no labelled pixel"
            self._found(Kind.EMPTY_PERSON, files.human_map, reason)
        writes = self._verifier.person_maps(files.split) is not None
        return [(k, f"{files.image_id}-{k}.png" if writes else None) for k in labelled.tolist()]

    def _read_people(
        self, size: tuple[int, int], names: list[tuple[int, str | None]]
    ) -> list[Person]:
        """Return the people as everybody reads them, in ascending order as ``names`` are."""
        verifier = self._verifier
        record = self._files.record(verifier.root, *size)
        record["ignore_unknown_labels"] = True
        annotations = read_person_annotations(record, verifier.num_classes)
        written_maps = verifier.person_maps(self._files.split)
        people = []
        for (number, parsing), person_map, (left, top, right, bottom) in zip(
            names, annotations.person_maps, annotations.boxes.astype(int).tolist(), strict=True
        ):
            if written_maps is not None:
                write_png(written_maps / parsing, person_map)
            pixels = np.bincount(person_map.ravel(), minlength=256).tolist()
            people.append(
                Person(
                    number=number,
                    bbox=(left, top, right - left, bottom - top),
                    area=sum(pixels[1:]),
                    part_pixels={label: n for label, n in enumerate(pixels) if label and n},
                    parsing=parsing,
                    segmentation=encode_rle(person_map != 0) if verifier.with_rle else None,
                )
            )
        return people

    def _read_label_map(
        self, file: str, image_size: tuple[int, int] | None, allow_red: bool = False
    ) -> np.ndarray | None:
        try:
            return read_label_png(self._path(file), allow_red=allow_red, image_size=image_size)
        except (AnnotationError, OSError) as e:
            is_size = isinstance(e, LabelSizeError)
            self._found(Kind.SIZE_MISMATCH if is_size else Kind.UNREADABLE_LABELS, file, e)
            return None

    def _check_labels(self, file: str, label_map: np.ndarray) -> None:
        num_classes = self._verifier.num_classes
        unknown = label_map[(label_map >= num_classes) & (label_map != IGNORE_LABEL)]
        if unknown.size:
            reason = (
                f"{unknown.size} pixels with label(s) {_some(np.unique(unknown))}; labels are "
                f"0..{num_classes - 1} and {IGNORE_LABEL} for 'ignore'"
            )
            self._found(Kind.LABEL_OUT_OF_RANGE, file, reason)

    def _check_instances(self, category_map: np.ndarray, human_map: np.ndarray) -> None:
        """Check the PNG and the txt in Instance_ids against the label maps and each other."""
        instance_map = None
        size = category_map.shape[0], category_map.shape[1]
        if self._files.instance_map is not None:
            instance_map = self._read_instance_map(self._files.instance_map, size)
        shown = set()
        if instance_map is not None:
            shown = set(np.unique(instance_map).tolist()) - {0}
            self._compare_instances(instance_map, category_map, human_map)
        table = self._files.instance_table
        if table is None:
            return
        try:
            lines = self._path(table).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            self._found(Kind.UNREADABLE_INSTANCES, table, e)
            return
        if not any(line.strip() for line in lines):
            if shown:
                self._found(Kind.UNREADABLE_INSTANCES, table, "is empty, but there are instances")
            return
        instances, problems = _parse_instances(lines, self._verifier.num_classes)
        if problems:
            self._found(Kind.MALFORMED_INSTANCE, table, _some(problems, "; "))
        if instance_map is None:
            return
        if instances - shown:
            reason = f"its PNG does not show the instance(s) {_some(sorted(instances - shown))}"
            self._found(Kind.LINE_WITHOUT_PIXELS, table, reason)
        # Pixels of a person without a part are the instance of label 0, which needs no line.
        parts = {instance for instance in shown if instance % self._verifier.num_classes}
        if parts - instances:
            reason = f"its txt does not have the instance(s) {_some(sorted(parts - instances))}"
            self._found(Kind.PIXELS_WITHOUT_LINE, self._files.instance_map, reason)

    def _read_instance_map(self, file: str, size: tuple[int, int]) -> np.ndarray | None:
        """Decode a PNG of instances, int64 (H, W). Unlike labels, these may have 16 bits."""
        try:
            with open_image(self._path(file), image_size=size) as image:
                if len(image.getbands()) != 1:
                    raise ValueError("it has several channels, no instances")
                return np.asarray(image).astype(np.int64)
        except OSError as e:
            self._found(Kind.UNREADABLE_INSTANCES, file, e)
            return None

    def _compare_instances(
        self, instance_map: np.ndarray, category_map: np.ndarray, human_map: np.ndarray
    ) -> None:
        # Nothing is said about pixels with only one of label and person, or to be ignored.
        part_of_person = (category_map != 0) & (human_map != 0)
        part_of_person &= (category_map != IGNORE_LABEL) & (human_map != IGNORE_LABEL)
        nothing = (category_map == 0) & (human_map == 0)
        expected = category_map + self._verifier.num_classes * (human_map.astype(np.int64) - 1)
        expected[nothing] = 0
        differs = (instance_map != expected) & (part_of_person | nothing)
        if differs.any():
            y, x = np.argwhere(differs)[0].tolist()
            reason = (
                f"{np.count_nonzero(differs)} pixels do not agree with Category_ids and Human_ids: "
                f"{instance_map[y, x]} instead of {expected[y, x]} at x {x}, y {y}"
            )
            self._found(Kind.INSTANCE_MISMATCH, self._files.instance_map, reason)


def _parse_instances(lines: list[str], num_classes: int) -> tuple[set[int], list[str]]:
    """Return the instances of an Instance_ids txt, and what is wrong with its lines."""
    instances: set[int] = set()
    problems = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not all(_NUMBER.fullmatch(word) for word in words):
            problems.append(f"line {number}, {line[:40]!r}, is not 'instance class human'")
            continue
        instance, category, human = map(int, words)
        if instance in instances:
            problems.append(f"line {number} repeats instance {instance}")
        elif category >= num_classes or instance != category + num_classes * (human - 1):
            problems.append(
                f"line {number}: instance {instance} is not class {category} + {num_classes} * "
                f"(human {human} - 1)"
            )
        instances.add(instance)
    return instances, problems


def _some(values: Iterable[Any], separator: str = ", ") -> str:
    """Return the first few values in words."""
    words = [str(value) for value in values]
    more = f" and {len(words) - _MAX_NAMED} more" if len(words) > _MAX_NAMED else ""
    return separator.join(words[:_MAX_NAMED]) + more

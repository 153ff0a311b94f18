"""Which files a data set folder holds, and which image each of them belongs to.

Nothing is opened here but the lists of the splits. The loaders in
:mod:`aiparsing_d2.data.datasets` stop at the first file that is missing; an inventory names all of
them, and what is there without being listed.
"""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiparsing_d2.counted import counted
from aiparsing_d2.data.id_lists import scan_id_list
from aiparsing_d2.data.layouts import (
    IMAGE_SUFFIXES,
    LABEL_MAP_SUFFIXES,
    PersonFileName,
    SplitLayout,
    choose_files,
    comparable_stem,
)

from .findings import Finding, Kind
from .published import SPLITS, DataSet

__all__ = ["ImageFiles", "Inventory", "find_splits", "take_inventory"]

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")


@dataclass(frozen=True)
class ImageFiles:
    """The files of one image, relative to the data set's folder. All of them exist.

    Attributes:
        split: the split whose list names the image.
        image_id: as in the list.
        position: place among the list's images, from 1 on.
        image: the image.
        category_map, human_map: part label and number of the person at every pixel; None for
            images without labels and for data sets with ``person_maps``.
        instance_map, instance_table: the PNG and the txt in Instance_ids, if they are there.
        person_maps: one label map for each person, in ascending order of the people's numbers.
    """

    split: str
    image_id: str
    position: int
    image: str
    category_map: str | None = None
    human_map: str | None = None
    instance_map: str | None = None
    instance_table: str | None = None
    person_maps: tuple[str, ...] = ()

    @property
    def is_labelled(self) -> bool:
        """Whether there are part labels."""
        return self.category_map is not None or bool(self.person_maps)

    def all_files(self) -> list[str]:
        """Every file of the image."""
        maps = self.category_map, self.human_map, self.instance_map, self.instance_table
        return [self.image, *(file for file in maps if file is not None), *self.person_maps]

    def record(self, root: Path, height: int, width: int) -> dict[str, Any]:
        """Return a data set record, as :mod:`aiparsing_d2.data.annotations` reads it."""
        record: dict[str, Any] = {
            "file_name": str(root / self.image),
            "image_id": self.image_id,
            "height": height,
            "width": width,
        }
        if self.person_maps:
            record["person_file_names"] = [str(root / file) for file in self.person_maps]
        elif self.category_map is not None:
            record["category_file_name"] = str(root / self.category_map)
            record["human_file_name"] = str(root / self.human_map)
        return record


@dataclass
class Inventory:
    """What a data set folder holds.

    Attributes:
        listed: for each split the ids in its list, each once.
        images: for each split its images that have all the files they need, in the list's order.
        findings: what is wrong with lists and folders.
    """

    listed: dict[str, list[str]] = field(default_factory=dict)
    images: dict[str, list[ImageFiles]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def find_splits(root: Path, data_set: DataSet) -> list[str]:
    """Return the splits whose list is there.

    Args:
        root: the data set's folder.
        data_set: the data set that it should hold.

    Raises:
        FileNotFoundError: the folder does not exist or holds no list, with what to do.
        NotADirectoryError: it is a file, such as the archive.
    """
    layout = data_set.layout(root)
    lists = ", ".join(layout[split].id_lists[0] for split in SPLITS)
    if root.is_file():
        advice = f"give the folder that holds {lists}"
        if root.suffix.lower() in _ARCHIVE_SUFFIXES:
            raise NotADirectoryError(f"{root} is an archive: unpack it first, then {advice}.")
        raise NotADirectoryError(f"{root} is no folder: {advice}.")
    if not root.is_dir():
        raise FileNotFoundError(f"{root} does not exist: {data_set.title} is expected there.")

    def splits_in(folder: Path) -> list[str]:
        """Return the splits whose list is in a folder."""
        return [split for split in SPLITS if data_set.find_list(folder, split) is not None]

    if splits_in(root):
        return splits_in(root)
    message = f"{root} does not hold {data_set.title}: it has none of {lists}."
    children = sorted(root.iterdir())
    for child in children:
        if splits_in(child):
            raise FileNotFoundError(f"{message} Did you mean {child}?")
    archives = [child.name for child in children if child.suffix.lower() in _ARCHIVE_SUFFIXES]
    if archives:
        message += f" Unpack what is in it first: {', '.join(archives)}."
    if (root / "annotations").is_dir():
        message += " It has COCO-style annotations already, which need no preparation."
    raise FileNotFoundError(message)


def take_inventory(root: Path, data_set: DataSet, splits: Sequence[str]) -> Inventory:
    """List the files of some splits, and find what is missing or left over.

    Args:
        root: the data set's folder.
        data_set: the data set that it holds.
        splits: the splits.

    Raises:
        FileNotFoundError: the list of one of them does not exist.
    """
    inventory = Inventory()
    listings: dict[SplitLayout, _Listing] = {}
    for split in splits:
        ids, findings = _read_list(root, data_set, split)
        folders = dataclasses.replace(data_set.layout(root)[split], id_lists=())
        if folders not in listings:
            listings[folders] = _Listing(root, folders, data_set.is_published)
            findings += listings[folders].missing_folders()
        files = []
        for position, image_id in enumerate(ids, start=1):
            image_files, image_findings = listings[folders].find(split, image_id, position)
            findings += image_findings
            if image_files is not None:
                files.append(image_files)
        inventory.listed[split] = ids
        inventory.images[split] = files
        inventory.findings += findings
    # Splits can share their folders, so that every list is needed to say what is unlisted.
    listed: dict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        if data_set.find_list(root, split) is not None:
            ids = inventory.listed.get(split) or _read_list(root, data_set, split)[0]
            listed[data_set.layout(root)[split].images].update(ids)
    for folders, listing in listings.items():
        inventory.findings += listing.find_unlisted(
            listed[folders.images], spare_images=data_set.frame_step is not None
        )
    return inventory


def _read_list(root: Path, data_set: DataSet, split: str) -> tuple[list[str], list[Finding]]:
    """Return the image ids of a split's list in its order, each once, and what is wrong with the
    list.
    """
    list_file = data_set.find_list(root, split)
    if list_file is None:
        places = " nor ".join(data_set.layout(root)[split].id_lists)
        raise FileNotFoundError(f"{root} has no {split} split: there is no {places}.")
    first_lines, problems = scan_id_list(root / list_file)
    findings = [
        Finding(
            Kind.REPEATED_LINE if problem.is_repetition else Kind.MALFORMED_LINE,
            list_file,
            str(problem),
            split,
        )
        for problem in problems
    ]
    if data_set.frame_step is not None and data_set.is_published:
        for image_id, number in list(first_lines.items()):
            video, _, frame = image_id.rpartition("/")
            if not video or not frame.isdecimal():
                del first_lines[image_id]
                reason = f"line {number} is no <video>/<frame>: '{image_id}'"
                findings.append(Finding(Kind.MALFORMED_LINE, list_file, reason, split))
            elif int(frame) % data_set.frame_step != 1:
                reason = f"line {number}: frame {int(frame)} in '{image_id}'"
                findings.append(Finding(Kind.UNEXPECTED_FRAME, list_file, reason, split))
    if not first_lines:
        findings.append(Finding(Kind.MALFORMED_LINE, list_file, "it lists no image", split))
    return list(first_lines), findings


class _Listing:
    """The files in the folders of a split, by image id."""

    def __init__(self, root: Path, folders: SplitLayout, expects_instances: bool) -> None:
        self._root = root
        self._folders = folders
        self._expects_instances = expects_instances
        self._images = _files_by_id(root, folders.images, IMAGE_SUFFIXES)
        self._labels = {
            folder: _files_by_id(root, folder, LABEL_MAP_SUFFIXES)
            for folder in (folders.category_maps, folders.human_maps)
            if folder is not None
        }
        # Folder -> comparable stem -> names, of folders from which a file is missing.
        self._names: dict[str, dict[str, list[str]]] = {}
        self._instance_maps: dict[str, str] = {}
        self._instance_tables: dict[str, str] = {}
        if folders.instances is not None:
            self._instance_maps = _files_by_id(root, folders.instances, LABEL_MAP_SUFFIXES)
            self._instance_tables = _files_by_id(root, folders.instances, (".txt",))
        # Image id -> (name, file) of each person, in the order of the people's numbers.
        self._people: dict[str, list[tuple[PersonFileName, str]]] = defaultdict(list)
        self._misnamed: list[str] = []
        if folders.person_maps is not None:
            for stem, file in _files_by_id(root, folders.person_maps, LABEL_MAP_SUFFIXES).items():
                name = PersonFileName.parse(stem)
                if name is None:
                    self._misnamed.append(file)
                else:
                    self._people[name.image_id].append((name, file))
        for people in self._people.values():
            people.sort(key=lambda person: (person[0].number, person[1]))

    def missing_folders(self) -> list[Finding]:
        """Return a finding for each folder that the split needs and that does not exist."""
        folders = self._folders
        needed = folders.images, folders.category_maps, folders.human_maps, folders.person_maps
        findings = [
            Finding(Kind.MISSING_FOLDER, folder, "the folder does not exist")
            for folder in needed
            if folder is not None and not self._has(folder)
        ]
        if folders.instances is not None and not self._has(folders.instances):
            if self._expects_instances:
                reason = "the folder does not exist; what it should hold is not checked"
                findings.append(Finding(Kind.NO_INSTANCES, folders.instances, reason))
        return findings

    def find(
        self, split: str, image_id: str, position: int
    ) -> tuple[ImageFiles | None, list[Finding]]:
        """Return the files of an image, None if it lacks one that it needs, and what is wrong."""
        findings = []

        def is_missing(kind: Kind, folder: str, file: str, reason: str) -> None:
            # What lies in a missing folder is not named file by file.
            if self._has(folder):
                file = f"{folder}/{file}"
                similar = self._similar(file)
                more = f"; there is {', '.join(similar)}, which does not fit" if similar else ""
                findings.append(Finding(kind, file, f"{reason}{more}", split, image_id))

        image = self._images.get(image_id)
        if image is None:
            reason = f"does not exist, but the {split} list has '{image_id}'"
            is_missing(Kind.MISSING_IMAGE, self._folders.images, f"{image_id}.jpg", reason)
            return None, findings
        files: dict[str, Any] = {
            "split": split,
            "image_id": image_id,
            "position": position,
            "image": image,
        }

        if self._folders.person_maps is not None:
            people = self._people.get(image_id, [])
            if not people:
                reason = "no person of the image has a label file"
                is_missing(
                    Kind.MISSING_LABELS, self._folders.person_maps, f"{image_id}_*.png", reason
                )
                return None, findings
            problem = _check_person_numbers(people)
            if problem is not None:
                findings.append(
                    Finding(Kind.WRONG_PERSON_COUNT, people[0][1], problem, split, image_id)
                )
            files["person_maps"] = tuple(file for _, file in people)
        elif self._labels:
            for folder, labels in self._labels.items():
                if image_id not in labels:
                    reason = f"does not exist, but its image is {image}"
                    is_missing(Kind.MISSING_LABELS, folder, f"{image_id}.png", reason)
            if not all(image_id in labels for labels in self._labels.values()):
                return None, findings
            files["category_map"], files["human_map"] = (
                labels[image_id] for labels in self._labels.values()
            )
            files["instance_map"] = self._instance_maps.get(image_id)
            files["instance_table"] = self._instance_tables.get(image_id)
            for key, suffix in (("instance_map", "png"), ("instance_table", "txt")):
                if files[key] is None and self._expects_instances:
                    reason = f"does not exist, but its image is {image}"
                    folder = self._folders.instances
                    is_missing(Kind.MISSING_INSTANCES, folder, f"{image_id}.{suffix}", reason)
        return ImageFiles(**files), findings

    def find_unlisted(self, listed: set[str], spare_images: bool) -> list[Finding]:
        """Files that no list names.

        Args:
            listed: ids of all images whose files belong here.
            spare_images: whether it is all right that an image has no labels and is not listed,
                as a frame between the annotated ones.
        """
        findings = [
            Finding(Kind.UNLISTED, file, "its name is not <image id>_<people>_<person>.png")
            for file in self._misnamed
        ]
        labels: dict[str, list[str]] = defaultdict(list)
        for files in (*self._labels.values(), self._instance_maps, self._instance_tables):
            for image_id, file in files.items():
                labels[image_id].append(file)
        for image_id, people in self._people.items():
            labels[image_id] += [file for _, file in people]

        for image_id, image in self._images.items():
            if image_id not in listed and not (spare_images and image_id not in labels):
                findings.append(Finding(Kind.UNLISTED, image, "no list has its id"))
        for image_id, files in labels.items():
            # Of a listed image without a file it is said that the image is missing.
            if self._images and image_id not in self._images and image_id not in listed:
                findings += [
                    Finding(
                        Kind.LABELS_WITHOUT_IMAGE,
                        file,
                        f"there is no image '{image_id}' in {self._folders.images}",
                    )
                    for file in files
                ]
        return findings

    def _similar(self, file: str) -> list[str]:
        """Names of files that differ from a missing one as :func:`comparable_stem` has it."""
        folder, name = os.path.split(file)
        if folder not in self._names:
            self._names[folder] = defaultdict(list)
            path = self._root / folder
            for found in sorted(os.listdir(path)) if path.is_dir() else ():
                self._names[folder][comparable_stem(found)].append(found)
        return self._names[folder].get(comparable_stem(name), [])

    def _has(self, folder: str | None) -> bool:
        return folder is not None and (self._root / folder).is_dir()


def _check_person_numbers(people: Sequence[tuple[PersonFileName, str]]) -> str | None:
    """Return what is wrong with the names of an image's label files."""
    counts = sorted({name.num_people for name, _ in people})
    numbers = [name.number for name, _ in people]
    if len(counts) > 1:
        return f"the names say {' and '.join(map(str, counts))} people"
    if numbers != list(range(1, counts[0] + 1)):
        found = ", ".join(map(str, numbers))
        return f"the names say {counted(counts[0], 'person')}, but the people there are {found}"
    return None


def _files_by_id(root: Path, folder: str, suffixes: Sequence[str]) -> dict[str, str]:
    """Files below a folder: path in the folder without suffix -> path below the root.

    Of files that differ only in their suffix, :func:`choose_files` chooses one.
    """
    files: dict[str, str] = {}
    base = os.path.join(root, folder)
    # The real folders on the way to each one that is yet to come: a link back to one of them would
    # be followed for ever.
    ways = {base: {os.path.realpath(base)}}
    for directory, subfolders, names in os.walk(base, followlinks=True):
        way = ways.pop(directory)
        real = {name: os.path.realpath(os.path.join(directory, name)) for name in subfolders}
        subfolders[:] = sorted(name for name in subfolders if real[name] not in way)
        ways.update((os.path.join(directory, name), {*way, real[name]}) for name in subfolders)
        inside = "" if directory == base else os.path.relpath(directory, base) + os.sep
        inside = inside.replace(os.sep, "/")
        for stem, name in choose_files(sorted(names), suffixes).items():
            files[inside + stem] = f"{folder}/{inside}{name}"
    return files

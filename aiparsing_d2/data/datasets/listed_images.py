"""Data sets that list the ids of a split's images in a text file: the part they share.

CIHP, LV-MHP-v2 and VIP differ in the names of their folders and in how the people of an image are
annotated. The rest is here: reading the id list, finding the images, their sizes, unreadable
images, and the cache.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from tqdm import tqdm

from ..image_files import IMAGE_SUFFIXES, UnreadableImageError, read_image_size
from .index_cache import FileListing, load_cached

__all__ = [
    "UnreadableImages",
    "check_split",
    "load_images_with_label_maps",
    "load_listed_images",
    "read_id_list",
]

logger = logging.getLogger(__name__)

UnreadableImages = Literal["error", "skip"]
"""What to do about listed images that cannot be read: refuse the split, or warn and go on."""

_LABEL_MAP_FOLDERS = {"category_file_name": "Category_ids", "human_file_name": "Human_ids"}

# Called with image ids and the files that exist, gives each image's annotation entries in turn.
_Annotate = Callable[[Sequence[str], FileListing], Iterable[Mapping[str, Any]]]


def check_split(split: str, known: Iterable[str]) -> None:
    """
    Raises:
        ValueError: if the split is not a known one.
    """
    if split not in known:
        raise ValueError(f"Unknown split '{split}': use one of {', '.join(known)}.")


def read_id_list(file_name: str | os.PathLike) -> list[str]:
    """Image ids of a text file, one a line; blank lines do not count.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the list is empty, repeats an id, or an id leads out of its folder.
    """
    if not os.path.isfile(file_name):
        raise FileNotFoundError(
            f"{file_name} does not exist. The expected folders are shown in datasets/README.md."
        )
    # A byte order mark, as Windows editors write it, would become part of the first id.
    with open(file_name, encoding="utf-8-sig") as file:
        ids = [line.strip() for line in file if line.strip()]
    if not ids:
        raise ValueError(f"{file_name} lists no image.")
    repeated = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{file_name} lists {len(repeated)} id(s) more than once, '{repeated[0]}' first."
        )
    for image_id in ids:
        if image_id.startswith("/") or ".." in image_id.split("/"):
            raise ValueError(f"{file_name} lists '{image_id}', which leads out of the data set.")
    return ids


def load_listed_images(
    id_list: str | os.PathLike,
    image_folder: str,
    annotation_folders: Sequence[str] = (),
    annotate: _Annotate | None = None,
    *,
    unreadable_images: UnreadableImages,
) -> list[dict[str, Any]]:
    """Records of the images of an id list, from the cache if no file has changed.

    An image id may have folders in it, separated by slashes, which are then folders in each of the
    given ones.

    Args:
        id_list: text file, see :func:`read_id_list`.
        image_folder: folder of ``<id>.jpg`` (or ``.jpeg``, ``.png``).
        annotation_folders: all folders in which ``annotate`` looks for files.
        annotate: finds the annotation files. Called with the ids of the readable images, gives the
            annotation entries of each one's record in the same order.
        unreadable_images: "error" or "skip", with a warning that names them.

    Returns:
        One record for each readable image, in the order of the list: "file_name", "image_id" (the
        line), "height" and "width" (after the image's EXIF orientation, as the image will be read)
        and what ``annotate`` gives. The files are those in the folders as given, absolute or not.

    Raises:
        FileNotFoundError: if the list, or an image that it names, is missing.
        ValueError: if the list is not valid, or images cannot be read and ``unreadable_images`` is
            "error".
    """
    if unreadable_images not in ("error", "skip"):
        raise ValueError(f"unreadable_images is 'error' or 'skip', got '{unreadable_images}'.")
    ids = read_id_list(id_list)
    listing = FileListing.scan(
        os.path.dirname(os.path.join(folder, image_id))
        for folder in (image_folder, *annotation_folders)
        for image_id in ids
    )

    def index() -> dict[str, Any]:
        images, unreadable = _read_image_sizes(ids, image_folder, listing)
        entries = annotate(list(images), listing) if annotate else ({} for _ in images)
        records = [
            {"file_name": file_name, "image_id": image_id, "height": height, "width": width, **more}
            for (image_id, (file_name, height, width)), more in zip(
                images.items(), entries, strict=True
            )
        ]
        return {"records": records, "unreadable": unreadable}

    key = [os.path.abspath(id_list), image_folder]
    indexed = load_cached(key, listing.fingerprint(ids), index)
    records, unreadable = indexed["records"], indexed["unreadable"]
    if unreadable:
        message = f"{len(unreadable)} of {len(ids)} images of {id_list} cannot be read:\n"
        message += "\n".join(f"  {reason}" for reason in unreadable)
        if unreadable_images == "error" or not records:
            raise ValueError(message)
        logger.warning("%s\nThey are left out.", message)
    logger.info("Loaded %d records of %s", len(records), id_list)
    return records


def load_images_with_label_maps(
    id_list: str | os.PathLike,
    image_folder: str,
    label_folder: str | None,
    *,
    unreadable_images: UnreadableImages,
) -> list[dict[str, Any]]:
    """Records of images annotated as in CIHP and VIP: by a map of parts and a map of people.

    Args:
        id_list, image_folder, unreadable_images: see :func:`load_listed_images`.
        label_folder: folder of ``Category_ids/<id>.png`` and ``Human_ids/<id>.png``, or None if
            there are no annotations.

    Returns:
        The records of :func:`load_listed_images`, with "category_file_name" and "human_file_name".

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: see :func:`load_listed_images`.
    """
    if label_folder is None:
        return load_listed_images(id_list, image_folder, unreadable_images=unreadable_images)
    folders = {key: os.path.join(label_folder, name) for key, name in _LABEL_MAP_FOLDERS.items()}
    return load_listed_images(
        id_list,
        image_folder,
        list(folders.values()),
        partial(_find_label_maps, folders),
        unreadable_images=unreadable_images,
    )


def _find_label_maps(
    folders: Mapping[str, str], ids: Sequence[str], listing: FileListing
) -> Iterator[dict[str, str]]:
    for image_id in ids:
        files = {key: os.path.join(folder, f"{image_id}.png") for key, folder in folders.items()}
        for file_name in files.values():
            if file_name not in listing:
                raise FileNotFoundError(
                    f"{file_name} does not exist, but the id list has '{image_id}'."
                )
        yield files


def _read_image_sizes(
    ids: Sequence[str], folder: str, listing: FileListing
) -> tuple[dict[str, tuple[str, int, int]], list[str]]:
    """File name, height and width by image id, and what is wrong with the other images."""
    images, unreadable = {}, []
    # The bar appears only if this takes more than a moment.
    for image_id in tqdm(ids, desc=f"Indexing {folder}", unit="image", delay=2):
        file_name = _find_image(folder, image_id, listing)
        try:
            images[image_id] = (file_name, *read_image_size(file_name))
        except UnreadableImageError as e:
            unreadable.append(str(e))
    return images, unreadable


def _find_image(folder: str, image_id: str, listing: FileListing) -> str:
    for suffix in IMAGE_SUFFIXES:
        file_name = os.path.join(folder, image_id + suffix)
        if file_name in listing:
            return file_name
    raise FileNotFoundError(
        f"{os.path.join(folder, image_id)}{{{','.join(IMAGE_SUFFIXES)}}} does not exist, but the "
        f"id list has '{image_id}'."
    )

"""Data sets that list the ids of a split's images in a text file: the part they share.

CIHP, LV-MHP-v2 and VIP differ in the names of their folders and in how the people of an image are
annotated. The rest is here: reading the id list, finding the images, their sizes, unreadable
images, and the cache.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from tqdm import tqdm

from ..id_lists import read_id_list
from ..image_files import UnreadableImageError, read_image_size
from ..layouts import IMAGE_SUFFIXES, LABEL_MAP_SUFFIXES, SplitLayout
from .index_cache import FileListing, load_cached

__all__ = [
    "UnreadableImages",
    "check_split",
    "load_images_with_label_maps",
    "load_listed_images",
]

logger = logging.getLogger(__name__)

UnreadableImages = Literal["error", "skip"]
"""What to do about listed images that cannot be read: refuse the split, or warn and go on."""

# Called with image ids and the files that exist, gives each image's annotation entries in turn.
_Annotate = Callable[[Sequence[str], FileListing], Iterable[Mapping[str, Any]]]


def check_split(split: str, known: Iterable[str]) -> None:
    """Refuse a split that a data set does not have.

    Raises:
        ValueError: the split is not a known one.
    """
    if split not in known:
        raise ValueError(f"Unknown split '{split}': use one of {', '.join(known)}.")


def load_listed_images(
    id_list: str | os.PathLike,
    image_folder: str,
    annotation_folders: Sequence[str] = (),
    annotate: _Annotate | None = None,
    *,
    unreadable_images: UnreadableImages,
) -> list[dict[str, Any]]:
    """Return the records of the images of an id list, from the cache if no file has changed.

    An image id may have folders in it, separated by slashes, which are then folders in each of the
    given ones.

    Args:
        id_list: text file, see :func:`~aiparsing_d2.data.id_lists.read_id_list`.
        image_folder: folder of ``<id>.jpg``, or with another of ``IMAGE_SUFFIXES``.
        annotation_folders: all folders in which ``annotate`` looks for files.
        annotate: finds the annotation files. Called with the ids of the readable images, gives the
            annotation entries of each one's record in the same order.
        unreadable_images: "error" or "skip", with a warning that names them.

    Returns:
        One record for each readable image, in the order of the list: "file_name", "image_id" (the
        line), "height" and "width" (after the image's EXIF orientation, as the image will be read)
        and what ``annotate`` gives. The files are those in the folders as given, absolute or not.

    Raises:
        FileNotFoundError: the list, or an image that it names, is missing.
        ValueError: the list is not valid, or images cannot be read and ``unreadable_images`` is
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
    indexed = load_cached(key, listing.fingerprint(ids), index, _still_unreadable)
    records, unreadable = indexed["records"], indexed["unreadable"].values()
    if unreadable:
        message = f"{len(unreadable)} of {len(ids)} images of {id_list} cannot be read:\n"
        message += "\n".join(f"  {reason}" for reason in unreadable)
        if unreadable_images == "error" or not records:
            raise ValueError(message)
        logger.warning("%s\nThey are left out.", message)
    logger.info("Loaded %d records of %s", len(records), id_list)
    return records


def load_images_with_label_maps(
    root: str | os.PathLike,
    id_list: str | os.PathLike,
    layout: SplitLayout,
    *,
    unreadable_images: UnreadableImages,
) -> list[dict[str, Any]]:
    """Return the records of images annotated as in CIHP and VIP: by a map of parts and a map of
    people.

    Args:
        root: the data set's folder.
        id_list, unreadable_images: see :func:`load_listed_images`.
        layout: where the files are. There may be no maps, as for a test split.

    Returns:
        The records of :func:`load_listed_images`, with "category_file_name" and "human_file_name".

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: see :func:`load_listed_images`.
    """
    image_folder = os.path.join(root, layout.images)
    if layout.category_maps is None:
        return load_listed_images(id_list, image_folder, unreadable_images=unreadable_images)
    folders = {
        "category_file_name": os.path.join(root, layout.category_maps),
        "human_file_name": os.path.join(root, layout.human_maps),
    }
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
        yield {
            key: _find_file(folder, image_id, LABEL_MAP_SUFFIXES, listing)
            for key, folder in folders.items()
        }


def _read_image_sizes(
    ids: Sequence[str], folder: str, listing: FileListing
) -> tuple[dict[str, tuple[str, int, int]], dict[str, str]]:
    """File name, height and width by image id; of the other images, what is wrong by file name."""
    images, unreadable = {}, {}
    # The bar appears only if this takes more than a moment.
    for image_id in tqdm(ids, desc=f"Indexing {folder}", unit="image", delay=2):
        file_name = _find_file(folder, image_id, IMAGE_SUFFIXES, listing)
        try:
            images[image_id] = (file_name, *read_image_size(file_name))
        except UnreadableImageError as e:
            unreadable[file_name] = str(e)
    return images, unreadable


def _still_unreadable(indexed: dict[str, Any]) -> bool:
    """Whether images that could not be read still cannot: another Pillow, or another limit of its
    ``MAX_IMAGE_PIXELS``, may read them.
    """
    for file_name in indexed["unreadable"]:
        try:
            read_image_size(file_name)
        except UnreadableImageError:
            continue
        return False
    return True


def _find_file(folder: str, image_id: str, suffixes: tuple[str, ...], listing: FileListing) -> str:
    path = os.path.join(folder, image_id)
    file_name = listing.find(path, suffixes)
    if file_name is None:
        wanted = suffixes[0] if len(suffixes) == 1 else f"{{{','.join(suffixes)}}}"
        similar = listing.similar(path)
        found = f" There is {', '.join(similar)}, which does not fit." if similar else ""
        raise FileNotFoundError(
            f"{path}{wanted} does not exist, but the id list has '{image_id}'.{found}"
        )
    return file_name

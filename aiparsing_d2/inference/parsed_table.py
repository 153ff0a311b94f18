"""People of many pictures as a table in Parquet files, one row a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from aiparsing_d2.whole_files import whole_file

from .parsed_image import ParsedImage

__all__ = ["TABLE_FOLDER", "DifferentSettingsError", "make_row", "names_in_table", "write_rows"]

TABLE_FOLDER = "people.parquet"
"""Name of the folder of the table's files, which readers of Parquet take as one table."""

_SETTINGS = b"aiparsing"
_SCORES = [(f"{kind}score", pa.float32()) for kind in ("", "detection_", "parsing_")]
_PART = [
    ("name", pa.string()),
    ("label", pa.uint8()),
    ("score", pa.float32()),
    ("area", pa.int32()),
    ("rle", pa.string()),
]
_PERSON = [
    ("box", pa.list_(pa.float32())),
    *_SCORES,
    ("rle", pa.string()),
    ("parts", pa.list_(pa.struct(_PART))),
]
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("source", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("people", pa.list_(pa.struct(_PERSON))),
    ]
)


class DifferentSettingsError(ValueError):
    """A table was made with other settings."""


def make_row(parsed: ParsedImage, name: str, source: str) -> dict[str, Any]:
    """Make the row of a picture.

    Args:
        parsed: the people.
        name: of the picture's results.
        source: where it was read.

    Returns:
        "name", "source", "height", "width" and "people", whose entries are those of
        :meth:`ParsedImage.to_dict` with the "counts" of COCO's run lengths as "rle", and with
        "parts" as a list.
    """
    content = parsed.to_dict()
    people = [
        {
            **person,
            "rle": person["segmentation"]["counts"],
            "parts": [
                {"name": part_name, **part, "rle": part["segmentation"]["counts"]}
                for part_name, part in person["parts"].items()
            ],
        }
        for person in content["people"]
    ]
    size = {side: content[side] for side in ("height", "width")}
    return {"name": name, "source": source, **size, "people": people}


def write_rows(rows: list[dict[str, Any]], output: str, settings: dict[str, Any]) -> None:
    """Write a file of the table; it is there whole or not at all.

    The same pictures make the same file, so writing them again changes nothing.

    Args:
        rows: of :func:`make_row`.
        output: path or URL of the folder of the results.
        settings: with which they were made; JSON values, kept in the file.
    """
    metadata = {_SETTINGS: json.dumps(settings, sort_keys=True)}
    table = pa.Table.from_pylist(rows, _SCHEMA.with_metadata(metadata))
    names = json.dumps([row["name"] for row in rows]).encode()
    file_name = f"{output}/{TABLE_FOLDER}/{hashlib.sha256(names).hexdigest()[:16]}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    file_system, path = fsspec.core.url_to_fs(file_name)
    if isinstance(file_system, LocalFileSystem):
        with whole_file(Path(path), "wb") as file:
            file.write(content)
    else:
        file_system.pipe_file(path, content)  # an object store shows whole objects only


def names_in_table(output: str, settings: dict[str, Any]) -> set[str]:
    """Read the names of the pictures that are in the table.

    Args:
        output: path or URL of the folder of the results.
        settings: that the table must have been made with.

    Raises:
        DifferentSettingsError: it was made with others.
        ValueError: a file of it cannot be read.
    """
    file_system, path = fsspec.core.url_to_fs(f"{output}/{TABLE_FOLDER}")
    names: set[str] = set()
    files: Iterable[str] = sorted(file_system.glob(f"{path}/*.parquet"))
    for file_name in files:
        try:
            with file_system.open(file_name, "rb") as file:
                table = pq.read_table(file, columns=["name"])
                found = json.loads(table.schema.metadata[_SETTINGS])
        except (pa.ArrowException, KeyError, TypeError) as error:
            raise ValueError(f"{file_name} is not a file of this table: {error}") from error
        for key, value in settings.items():
            if found.get(key) != value:
                raise DifferentSettingsError(
                    f"{output} was made with {key} {found.get(key)!r}, not {value!r}: give another "
                    "--output"
                )
        names.update(table["name"].to_pylist())
    return names

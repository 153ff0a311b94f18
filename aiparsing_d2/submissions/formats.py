"""The formats by name."""

from __future__ import annotations

import os
from pathlib import Path

from .cihp import CihpSubmission
from .files import SubmissionError
from .lv_mhp_v2 import LvMhpV2Submission
from .person_maps import PersonMapsSubmission
from .submission import Submission
from .vip import VipSubmission

__all__ = ["SUBMISSION_FORMATS", "find_format", "open_submission"]

SUBMISSION_FORMATS: dict[str, type[Submission]] = {
    submission.format_name: submission
    for submission in (PersonMapsSubmission, CihpSubmission, VipSubmission, LvMhpV2Submission)
}
"""The class of every format, by its name."""


def find_format(format_name: str) -> type[Submission]:
    """Return the class of a format.

    Raises:
        ValueError: there is no format of that name.
    """
    if format_name not in SUBMISSION_FORMATS:
        raise ValueError(
            f"unknown format {format_name!r}; there are {', '.join(SUBMISSION_FORMATS)}"
        )
    return SUBMISSION_FORMATS[format_name]


def open_submission(
    folder: str | os.PathLike, num_classes: int, format_name: str | None = None
) -> Submission:
    """Open existing results for reading.

    Args:
        folder: where they are.
        num_classes: number of classes of the data set, background included.
        format_name: a key of :data:`SUBMISSION_FORMATS`. None: what the folder looks like.

    Raises:
        SubmissionError: there is no such folder, or it does not look like exactly one format.
        ValueError: there is no format of that name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SubmissionError(f"{folder} is not a folder")
    if format_name is not None:
        return find_format(format_name)(folder, num_classes)
    likely = [name for name, kind in SUBMISSION_FORMATS.items() if kind.recognizes(folder)]
    if len(likely) != 1:
        looks = f"looks like {' and '.join(likely)}" if likely else "looks like none of the formats"
        raise SubmissionError(
            f"{folder} {looks}; name the format ({', '.join(SUBMISSION_FORMATS)})"
        )
    return SUBMISSION_FORMATS[likely[0]](folder, num_classes)

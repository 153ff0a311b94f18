"""Results on disk: formats, writers and readers, and the scoring of any system's folder.

=================  ===============================================================================
``person_maps``    every person alone: a JSON file and label PNGs per image. Holds everything; the
                   format to write in order to be scored fully. See :mod:`.person_maps`.
``cihp``           result folders of the LIP challenges, for CIHP. See :mod:`.cihp`.
``vip``            the same per video, for VIP. See :mod:`.vip`.
``lv_mhp_v2``      what LV-MHP-v2's public scoring script reads. See :mod:`.lv_mhp_v2`.
=================  ===============================================================================

Metrics that a format or a folder says nothing about are undefined, never estimated.
``python -m aiparsing_d2 evaluate`` scores a folder from the command line; in Python::

    submission = open_submission("predictions", num_classes=20)
    result = score_submission(submission, records, class_names)

To write, call :meth:`Submission.write` for each image and :meth:`Submission.write_index` at the
end, or let :class:`SubmissionWriter` do it while Detectron2 evaluates a model. All but that class
needs neither torch nor Detectron2.
"""

from typing import TYPE_CHECKING, Any

from .cihp import CihpSubmission
from .files import SubmissionError
from .formats import SUBMISSION_FORMATS, open_submission
from .lv_mhp_v2 import LvMhpV2Submission
from .person_maps import PersonMapsSubmission
from .scoring import ImageScores, SubmissionScores, score_submission
from .submission import MetricGroup, Submission
from .vip import VipSubmission

if TYPE_CHECKING:
    from .submission_writer import SubmissionWriter

__all__ = [
    "SUBMISSION_FORMATS",
    "CihpSubmission",
    "ImageScores",
    "LvMhpV2Submission",
    "MetricGroup",
    "PersonMapsSubmission",
    "Submission",
    "SubmissionError",
    "SubmissionScores",
    "SubmissionWriter",
    "VipSubmission",
    "open_submission",
    "score_submission",
]


def __getattr__(name: str) -> Any:
    # Detectron2 is imported only for those who ask for its evaluator.
    if name == "SubmissionWriter":
        from .submission_writer import SubmissionWriter

        return SubmissionWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""From a data set as downloaded to one that is checked, described and counted.

``python -m aiparsing_d2 prepare`` runs :func:`prepare_data_set`. The way of a data set:
``published`` knows how it unpacks, ``inventory`` lists its files, ``verification`` looks through
those of each image, in several processes and into a ``journal``, ``coco_json`` and ``statistics``
describe what is usable, and ``report`` tells what is wrong by the kinds in ``findings``.

Needs neither torch nor Detectron2.
"""

from .findings import BadDataError, Finding, Kind, OnBad, OnBadPolicy, Severity
from .journal import JournalError
from .prepare import OutputExistsError, PreparationRequest, prepare_data_set
from .published import DATA_SETS, DataSet
from .report import PreparationReport, SplitReport

__all__ = [
    "DATA_SETS",
    "BadDataError",
    "DataSet",
    "Finding",
    "JournalError",
    "Kind",
    "OnBad",
    "OnBadPolicy",
    "OutputExistsError",
    "PreparationReport",
    "PreparationRequest",
    "Severity",
    "SplitReport",
    "prepare_data_set",
]

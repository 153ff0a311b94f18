"""What can be wrong with a data set folder, and what is done about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["BadDataError", "Finding", "Kind", "OnBad", "OnBadPolicy", "Severity"]


class BadDataError(Exception):
    """Something is wrong with the data set that the user does not want to go on with."""


class Severity(enum.Enum):
    """How much a finding matters."""

    NOTE = "note"
    """Worth knowing; no image of the data set is bad."""

    FLAWED = "flawed"
    """The files can be used, but contradict each other or hold something that must not be."""

    UNUSABLE = "unusable"
    """The image or its labels cannot be read, so that it cannot be used in any case."""


class Kind(enum.Enum):
    """A kind of finding.

    Attributes:
        slug: its name in reports and on the command line.
        severity: how much it matters.
        meaning: what is wrong.
        remedy: what a person can do about it.
    """

    MISSING_FOLDER = (
        "missing-folder",
        Severity.UNUSABLE,
        "A folder of the data set does not exist.",
        "Unpack the archive again, completely.",
    )
    MISSING_IMAGE = (
        "missing-image",
        Severity.UNUSABLE,
        "An image is listed, but its file does not exist.",
        "Unpack the archive again, or remove the line from the list.",
    )
    MISSING_LABELS = (
        "missing-labels",
        Severity.UNUSABLE,
        "An image is listed, but has no label files.",
        "Unpack the archive again, or remove the line from the list.",
    )
    UNREADABLE_IMAGE = (
        "unreadable-image",
        Severity.UNUSABLE,
        "An image is empty, truncated or no picture.",
        "Copy the file from the archive again; if it is broken there too, leave the image out.",
    )
    UNREADABLE_LABELS = (
        "unreadable-labels",
        Severity.UNUSABLE,
        "A label file is empty, truncated or not a PNG of labels.",
        "Copy the file from the archive again. Colour renderings are not labels.",
    )
    SIZE_MISMATCH = (
        "size-mismatch",
        Severity.UNUSABLE,
        "A label file and its image differ in size.",
        "Undo any resizing or rotation of either. An image's size is the one after its EXIF "
        "orientation.",
    )
    MALFORMED_LINE = (
        "malformed-line",
        Severity.FLAWED,
        "A line of a list does not name an image.",
        "Correct the line; it is passed over here.",
    )
    REPEATED_LINE = (
        "repeated-line",
        Severity.FLAWED,
        "A list names an image more than once.",
        "Remove the repeated line; the image is used once here.",
    )
    LABEL_OUT_OF_RANGE = (
        "label-out-of-range",
        Severity.FLAWED,
        "A label map holds values that are no label of the data set.",
        "They are counted, and written to people's label maps, as 'ignore', but training refuses "
        "the file: skip a few such images. Many mean another data set, or colour renderings.",
    )
    WRONG_PERSON_COUNT = (
        "wrong-person-count",
        Severity.FLAWED,
        "An image has other label files than their names say.",
        "Unpack the archive again; the files that are there are used.",
    )
    MISSING_INSTANCES = (
        "missing-instances",
        Severity.FLAWED,
        "An image has no PNG or no txt in Instance_ids.",
        "Unpack the archive again if you need it. Training and evaluation do not.",
    )
    UNREADABLE_INSTANCES = (
        "unreadable-instances",
        Severity.FLAWED,
        "A file in Instance_ids is broken, empty or of another size than its image.",
        "Copy the file from the archive again if you need it. Training and evaluation do not.",
    )
    MALFORMED_INSTANCE = (
        "malformed-instance",
        Severity.FLAWED,
        "A line of an Instance_ids txt is not 'instance class human', with "
        "instance = class + 20 * (human - 1).",
        "Trust Category_ids and Human_ids, which are what is used.",
    )
    LINE_WITHOUT_PIXELS = (
        "line-without-pixels",
        Severity.FLAWED,
        "An Instance_ids txt has an instance that its PNG does not show.",
        "Trust Category_ids and Human_ids, which are what is used.",
    )
    PIXELS_WITHOUT_LINE = (
        "pixels-without-line",
        Severity.FLAWED,
        "An Instance_ids PNG shows an instance that its txt does not have.",
        "Trust Category_ids and Human_ids, which are what is used.",
    )
    INSTANCE_MISMATCH = (
        "instance-mismatch",
        Severity.FLAWED,
        "An Instance_ids PNG does not agree with Category_ids and Human_ids.",
        "Find out which of the three was changed; Category_ids and Human_ids are what is used.",
    )
    SIXTEEN_BIT_IMAGE = (
        "sixteen-bit-image",
        Severity.NOTE,
        "An image has grey values of 16 bits.",
        "Nothing: they are scaled to 8 bits. If it is too dark, its values do not use their range.",
    )
    NO_INSTANCES = (
        "no-instances",
        Severity.NOTE,
        "There is no folder Instance_ids.",
        "Unpack the archive again if you need it. Training and evaluation do not, and --own-data "
        "says that it is not expected.",
    )
    EMPTY_PERSON = (
        "empty-person",
        Severity.NOTE,
        "A person has no labelled pixel.",
        "Nothing: such a person is left out everywhere.",
    )
    NO_PEOPLE = (
        "no-people",
        Severity.NOTE,
        "An image has no labelled person.",
        "Nothing; training leaves such images out unless told otherwise.",
    )
    LABELS_WITHOUT_IMAGE = (
        "labels-without-image",
        Severity.NOTE,
        "A label file belongs to no image.",
        "Unpack the archive again if the image should be there.",
    )
    UNLISTED = (
        "unlisted",
        Severity.NOTE,
        "A file is there, but no list names it.",
        "Add it to the list if it should be used.",
    )
    UNEXPECTED_FRAME = (
        "unexpected-frame",
        Severity.NOTE,
        "A listed frame is not one of 1, 26, 51, ..., of which every 25th is annotated.",
        "Check that the list and the frames are those of the archive.",
    )
    MISSING_LIST = (
        "missing-list",
        Severity.NOTE,
        "The list of a split does not exist.",
        "Unpack the archive again if you need the split.",
    )
    COUNT = (
        "count",
        Severity.NOTE,
        "There are not as many as were published.",
        "Expected if this is a part of the data set; else unpack the archive again. Say --own-data "
        "if it is a data set of your own.",
    )

    def __init__(self, slug: str, severity: Severity, meaning: str, remedy: str) -> None:
        self.slug = slug
        self.severity = severity
        self.meaning = meaning
        self.remedy = remedy

    @classmethod
    def from_slug(cls, slug: str) -> Kind:
        """Return the kind of a name.

        Raises:
            ValueError: there is none.
        """
        for kind in cls:
            if kind.slug == slug:
                return kind
        raise ValueError(
            f"'{slug}' is no kind of finding; there are {', '.join(kind.slug for kind in cls)}."
        )


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or worth knowing.

    Attributes:
        kind: what kind of thing.
        file: the file or folder, relative to the data set's folder; for reading, what is no UTF-8
            is escaped.
        reason: what is wrong with it in particular.
        split: the split that it belongs to; None if to none in particular.
        image_id: the image that it spoils; None if it spoils none.
    """

    kind: Kind
    file: str
    reason: str
    split: str | None = None
    image_id: str | None = None

    def __post_init__(self) -> None:
        # Names of files that are no UTF-8 could be neither printed nor written.
        for name in ("file", "reason"):
            text = getattr(self, name).encode("utf-8", "backslashreplace").decode()
            object.__setattr__(self, name, text)

    def __str__(self) -> str:
        return f"{self.kind.slug}: {self.file}: {self.reason}"


class OnBad(enum.Enum):
    """What to do about a finding."""

    NAME = "name"
    """Report it; the image is used as far as it can be."""

    SKIP = "skip"
    """Report it and leave the image out."""

    RAISE = "raise"
    """End with an error."""


@dataclass(frozen=True)
class OnBadPolicy:
    """What to do about each kind of finding.

    Attributes:
        default: for the kinds that are flawed or unusable. Notes are named.
        by_kind: for single kinds, whatever their severity.
    """

    default: OnBad = OnBad.NAME
    by_kind: Mapping[Kind, OnBad] = field(default_factory=dict)

    @classmethod
    def parse(cls, words: Sequence[str]) -> OnBadPolicy:
        """Read a policy as given on the command line.

        Args:
            words: "name", "skip" or "raise" for the default; "KIND=name" and so on for one kind.

        Raises:
            ValueError: a word is not of this form, or two give different defaults.
        """
        defaults, by_kind = [], {}
        for word in words:
            slug, separator, action = word.rpartition("=")
            try:
                on_bad = OnBad(action)
            except ValueError:
                choices = ", ".join(choice.value for choice in OnBad)
                raise ValueError(
                    f"'{word}' is not one of {choices}, alone or after 'KIND='."
                ) from None
            if separator:
                by_kind[Kind.from_slug(slug)] = on_bad
            else:
                defaults.append(on_bad)
        if len(set(defaults)) > 1:
            raise ValueError("Give one of name, skip and raise, and exceptions as KIND=....")
        return cls(defaults[0] if defaults else OnBad.NAME, by_kind)

    def action(self, kind: Kind) -> OnBad:
        """Return what to do about a finding of a kind."""
        general = OnBad.NAME if kind.severity is Severity.NOTE else self.default
        return self.by_kind.get(kind, general)

    def leaves_out(self, findings: Iterable[Finding]) -> bool:
        """Whether an image with these findings is left out."""
        return any(
            finding.kind.severity is Severity.UNUSABLE or self.action(finding.kind) is OnBad.SKIP
            for finding in findings
        )

    def check(self, findings: Iterable[Finding]) -> None:
        """Stop at what is not to be put up with.

        Raises:
            BadDataError: at the first finding that is fatal.
        """
        for finding in findings:
            if self.action(finding.kind) is OnBad.RAISE:
                raise BadDataError(f"{finding}. {finding.kind.remedy}")

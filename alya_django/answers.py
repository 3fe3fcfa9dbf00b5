"""What Alya's verbs answer: frozen values, never models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from alya_django.status import Kind, Status
from alya_django.validation import JSON


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """
    One reason why a row failed, in the form web services use.

    Args:
        errcode: One word of lower-case letters, digits and underscores; what programs compare. Never data: rows are
            counted by it, and it is shown to people who may not see inputs.
        field: The part of the input that is at fault, if one is.
        vals: Texts to fill into the words that a person reads. Where anything is masked, those who may not see inputs
            see them only if ``field`` says what they are of, and that is not masked.
        msgid: The number of those words in the project's catalogue.

    Source: Alya's wscutils.ErrorMessage.
    """

    errcode: str
    field: str = ""
    vals: tuple[str, ...] = ()
    _: KW_ONLY
    msgid: int = 0

    def __post_init__(self) -> None:
        texts = (self.errcode, self.field, *self.vals)
        if isinstance(self.vals, str) or not all(isinstance(text, str) for text in texts) or not self.errcode:
            raise TypeError(f"{self!r}: errcode, field and vals are strings, errcode is not empty.")
        if not isinstance(self.msgid, int):
            raise TypeError(f"{self!r}: msgid is a number.")

    @classmethod
    def of(
        cls, *messages: ErrorMessage | str, field: str = "", vals: tuple[str, ...] = ()
    ) -> tuple[ErrorMessage, ...]:
        """Return messages given as such or by their errcodes, which get the field and vals."""
        return tuple(
            message if isinstance(message, ErrorMessage) else cls(message, field, vals) for message in messages
        )

    def as_json(self) -> dict[str, JSON]:
        """Return the message as it is stored: ``field`` and ``vals`` only where they say something."""
        stored: dict[str, JSON] = {"msgid": self.msgid, "errcode": self.errcode}
        if self.field:
            stored["field"] = self.field
        if self.vals:
            stored["vals"] = list(self.vals)
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ErrorMessage:
        """Return the message that ``as_json`` stored."""
        return cls(
            stored["errcode"],
            field=stored.get("field", ""),
            vals=tuple(stored.get("vals", ())),
            msgid=stored["msgid"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """
    An output file as it was saved.

    Args:
        object_name: The name of its object in the storage.
        size: In bytes; None for an object that a slow query's processor named, of which Alya knows no more.
        content_type: By its name, unless its format says otherwise.
        checksum: The SHA-256 of its bytes, in hexadecimal digits; empty where the size is None.
    """

    object_name: str
    size: int | None
    content_type: str
    checksum: str

    @property
    def is_own(self) -> bool:
        """Whether Alya has saved it, so that it goes with its batch."""
        return self.size is not None

    def as_json(self) -> dict[str, JSON]:
        """Return the file as it is stored."""
        return {
            "object": self.object_name,
            "size": self.size,
            "content_type": self.content_type,
            "sha256": self.checksum,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> OutputFile:
        """Return the file that ``as_json`` stored."""
        return cls(
            object_name=stored["object"],
            size=stored["size"],
            content_type=stored["content_type"],
            checksum=stored["sha256"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """
    A batch in figures.

    ``try_later`` is true until the state is final; until then the counts are those of the rows that have
    ended so far and ``output_files`` is empty. ``nput_off`` are those of the others that were put off: they wait for
    another try, or are at it. ``output_files`` maps a logical name to an object of the storage. ``totals_mismatch``
    says where the file's control totals are not those of the rows: while the batch waits, those received, and once it
    has ended, those that have succeeded.
    """

    status: Status
    kind: Kind
    nrows: int
    nsuccess: int
    nfailed: int
    naborted: int
    nput_off: int = 0
    held: bool = False
    output_files: Mapping[str, str] = field(default_factory=dict)
    parent: UUID | None = None
    totals_mismatch: str = ""

    @property
    def try_later(self) -> bool:
        return not self.status.is_final


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOutcome:
    """
    What became of one row; ``result``, ``messages`` and ``output_lines`` are empty until it has ended.

    ``output_lines`` maps a file's logical name to the text that the row gave to it. ``sequels`` says what became of
    its line in the batches that came of this one by retry or return file, by their ids and oldest first; only
    ``batches.line`` tells it.
    """

    line: int
    status: Status
    result: JSON
    messages: tuple[ErrorMessage, ...]
    output_lines: Mapping[str, str] = field(default_factory=dict)
    attempts: int
    done_by: str
    requested_at: datetime
    claimed_at: datetime | None
    done_at: datetime | None
    sequels: Mapping[UUID, RowOutcome] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult(Summary):
    """A batch's summary and, once its state is final, every row in the order of lines."""

    rows: tuple[RowOutcome, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswer:
    """What a slow query answered; while ``try_later`` is true, nothing yet."""

    status: Status
    result: JSON = None
    messages: tuple[ErrorMessage, ...] = ()
    output_files: Mapping[str, str] = field(default_factory=dict)

    @property
    def try_later(self) -> bool:
        return not self.status.is_final


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDetails:
    """All that is kept of a batch but its rows; ``init_block`` is set inside ``mark_done`` alone."""

    id: UUID
    app: str
    op: str
    kind: Kind
    context: Mapping[str, JSON]
    input_file: str
    requested_by: str
    status: Status
    requested_at: datetime
    started_at: datetime | None
    done_at: datetime | None
    nrows: int
    nsuccess: int
    nfailed: int
    naborted: int
    output_files: Mapping[str, str]
    parent: UUID | None
    totals_mismatch: str = ""
    init_block: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """
    What became of a file that was received.

    Args:
        file_id: The id of its record, a BatchFile.
        batch_id: The batch of its rows; None if it was rejected.
        reason: Why it was rejected, in words for who sent it.
        nrows, nfaulty: How many lines became rows, and how many did not.
        object_id: The object of the storage that holds its bytes; empty if it was too large to be kept.
        error_object_id: The object that names the faulty lines, each with its reason; empty if there are none.
        totals_mismatch: Where the rows are not as the file declares, so that its batch waits.
    """

    file_id: int
    batch_id: UUID | None
    accepted: bool
    reason: str = ""
    nrows: int = 0
    nfaulty: int = 0
    object_id: str = ""
    error_object_id: str = ""
    totals_mismatch: str = ""

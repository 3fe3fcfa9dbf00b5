"""What user code implements, gets and returns. No models here: a processor can be tested without a database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.core.files.base import File

from alya_django.answers import BatchDetails, ErrorMessage
from alya_django.exceptions import AlyaError
from alya_django.output_formats import OutputFormat
from alya_django.status import Status
from alya_django.validation import JSON

DELAY_SECONDS_MAX = 366 * 24 * 3_600


@dataclass(frozen=True, slots=True)
class BatchInput:
    """A row to submit with a line number of its own: the place in the file it came from."""

    line: int
    input: JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    What a processor gets: one row of a batch, or the only row of a slow query.

    ``line`` is 0 for a slow query. ``attempt`` is 1 the first time. ``key`` is the same at every attempt:
    an idempotency key for whatever the processor calls.

    Source: Alya's BatchJob_t and the arguments beside it.
    """

    batch_id: UUID
    app: str
    op: str
    line: int
    input: JSON
    context: Mapping[str, JSON]
    init_block: Any
    attempt: int
    key: str
    is_aborted: Callable[[], bool] = field(default=lambda: False, repr=False, compare=False)

    def aborted(self) -> bool:
        """Return whether somebody has aborted the batch meanwhile; long rows may ask, it is cheap."""
        return self.is_aborted()


class RowFailed(AlyaError):
    """
    Raise it, from however deep, to fail the row.

    Args:
        messages: ErrorMessages, or their errcodes.
        field: The part of the input at fault; for the errcodes among the messages.
        vals: Texts for them.
    """

    def __init__(self, *messages: ErrorMessage | str, field: str = "", vals: tuple[str, ...] = ()) -> None:
        self.messages = ErrorMessage.of(*messages, field=field, vals=vals)
        super().__init__(*self.messages)


class RetryLater(AlyaError):
    """
    Raise it to put the row off: it is processed again after ``delay`` seconds.

    A delay is a year at most. Without one the row waits for RETRY_SECONDS, twice as long each further time. A row that
    was put off, or lost its worker, ``max_attempts`` times fails instead.
    """

    def __init__(self, delay: float | None = None) -> None:
        self.delay = None if delay is None else check_delay(delay)
        super().__init__("The row was put off.")


def check_delay(delay: Any) -> float:
    """Return the seconds that a row is to wait; raise ValueError for what no row can wait for."""
    if not (isinstance(delay, int | float) and 0 <= delay <= DELAY_SECONDS_MAX):
        raise ValueError(f"RetryLater waits for a number of seconds, a year at most, not {delay!r}.")
    return float(delay)


@dataclass(frozen=True, slots=True)
class RowResult:
    """What a batch processor may return for a row; plain JSON means success with that result."""

    status: Status
    result: JSON = None
    messages: tuple[ErrorMessage, ...] = ()
    output_lines: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def success(cls, result: JSON = None, *, output_lines: Mapping[str, str] | None = None) -> RowResult:
        """
        Return a success.

        Args:
            output_lines: Logical file name to the text this row adds to that file, in the order of lines.
        """
        return cls(Status.SUCCESS, result, output_lines=output_lines or {})

    @classmethod
    def failed(
        cls,
        *messages: ErrorMessage | str,
        result: JSON = None,
        output_lines: Mapping[str, str] | None = None,
    ) -> RowResult:
        """Return a failure for the reasons given: ErrorMessages, or their errcodes."""
        return cls(Status.FAILED, result, ErrorMessage.of(*messages), output_lines or {})


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a slow-query processor may return; plain JSON means success with that result."""

    status: Status
    result: JSON = None
    messages: tuple[ErrorMessage, ...] = ()
    output_files: Mapping[str, File[Any] | str] = field(default_factory=dict)

    @classmethod
    def success(cls, result: JSON = None, *, output_files: Mapping[str, File[Any] | str] | None = None) -> QueryResult:
        """
        Return a success.

        Args:
            output_files: Logical file name to a File, which is saved, or to the name of an object that the
                storage has already.
        """
        return cls(Status.SUCCESS, result, output_files=output_files or {})

    @classmethod
    def failed(
        cls,
        *messages: ErrorMessage | str,
        result: JSON = None,
        output_files: Mapping[str, File[Any] | str] | None = None,
    ) -> QueryResult:
        """Return a failure for the reasons given: ErrorMessages, or their errcodes."""
        return cls(Status.FAILED, result, ErrorMessage.of(*messages), output_files or {})


class BatchProcessor:
    """
    Process the rows of batches of one app and op; one instance serves a whole process.

    Its attributes are options: see ``alya_django.options.Options``.
    """

    atomic: bool = False
    concurrency: int = 1
    max_attempts: int | None = None
    time_limit: float | None = None
    chunk_rows: int | None = None
    max_failed: float | None = None
    retry_on: tuple[type[Exception], ...] = ()
    output_formats: Mapping[str, OutputFormat] = MappingProxyType({})

    def do_batch_job(self, row: Row) -> RowResult | JSON | None:
        """
        Process one row.

        None or JSON is a success with that result. An exception fails this row alone.
        """
        raise TypeError(f"{type(self).__name__} does not say how to do_batch_job(row).")

    def mark_done(self, details: BatchDetails) -> None:
        """
        Act on a batch that has ended in any final state.

        Called after the state is committed, at least once: it may be called again after a crash, so it
        must bear that. An exception is logged and kept with the batch, and changes nothing else.
        """


class SlowQueryProcessor:
    """Answer the slow queries of one app and op; its attributes are options, as BatchProcessor's are."""

    atomic: bool = False
    max_attempts: int | None = None
    time_limit: float | None = None
    retry_on: tuple[type[Exception], ...] = ()

    def do_slow_query(self, row: Row) -> QueryResult | JSON | None:
        """Answer one slow query, whose ``row.line`` is 0."""
        raise TypeError(f"{type(self).__name__} does not say how to do_slow_query(row).")

    def mark_done(self, details: BatchDetails) -> None:
        """Act on a slow query that has ended, as BatchProcessor.mark_done does on a batch."""


class InitBlock:
    """
    What an app's rows need and share: connections, clients, tables.

    A worker makes one for an app before the app's first row, and keeps it as long as it is alive.
    """

    def is_alive(self) -> bool:
        """Return whether the block can go on serving; asked before every chunk."""
        return True

    def close(self) -> None:
        """Let go of what the block holds; called exactly once."""


class Initializer:
    """Make the init block of an app."""

    def init(self, app: str) -> Any:
        """Return an InitBlock, or anything else that rows need; None is a block too."""
        raise TypeError(f"{type(self).__name__} does not say how to init(app).")

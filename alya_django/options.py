"""What a processor may ask of the worker that runs it; checked when it is registered."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from alya_django.conf import settings
from alya_django.exceptions import InvalidInput
from alya_django.output_formats import OutputFormat
from alya_django.status import Kind

CONCURRENCY_MAX = 1_000

ONLY_BATCHES = frozenset({"chunk_rows", "concurrency", "max_failed", "output_formats"})
"""Options that say nothing of a slow query, which has one row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    The options of one processor.

    Args:
        atomic: Process rows in the transaction that records them, so that what the processor writes to the same
            database and what becomes of the row are committed together or not at all.
        concurrency: So many rows of a chunk are processed at once: in threads, or on an event loop where the method
            is ``async def``.
        max_attempts: A row that was put off or has lost its worker so many times fails; None leaves it to
            MAX_ATTEMPTS.
        time_limit: A row that takes more seconds ends its worker and fails; None leaves it to TIME_LIMIT_SECONDS,
            and ``math.inf`` lets it take as long as it likes.
        chunk_rows: At most so many rows are claimed at once; None leaves it to CHUNK_ROWS.
        max_failed: A batch with more failed rows, or with a larger share of them where it is below 1, is held.
        retry_on: These exceptions put a row off, as RetryLater does.
        output_formats: Output files by their logical names, or patterns such as ``*.csv``, each with its OutputFormat.
    """

    atomic: bool = False
    concurrency: int = 1
    max_attempts: int | None = None
    time_limit: float | None = None
    chunk_rows: int | None = None
    max_failed: float | None = None
    retry_on: tuple[type[Exception], ...] = ()
    output_formats: Mapping[str, OutputFormat] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        """How many times a row may be put off or lose its worker before it fails."""
        return int(settings.MAX_ATTEMPTS if self.max_attempts is None else self.max_attempts)

    @property
    def seconds(self) -> float | None:
        """How long a row may take, None for as long as it likes."""
        limit: float | None = settings.TIME_LIMIT_SECONDS if self.time_limit is None else self.time_limit
        return None if limit == math.inf else limit


def names(kind: Kind) -> list[str]:
    """Return the names of the options that a processor of a kind has."""
    return [field.name for field in fields(Options) if kind is Kind.BATCH or field.name not in ONLY_BATCHES]


def options_of(kind: Kind, processor: Any, method: Callable[[Any], Any]) -> Options:
    """Return the options that a processor has among its attributes; raise InvalidInput for what cannot be."""
    given = {name: getattr(processor, name) for name in names(kind) if hasattr(processor, name)}
    for name, value in given.items():
        if value is not None or name not in MAY_BE_NONE:
            _check(name, value)
    options = Options(**given)
    if options.atomic:
        _check_atomic(options, method)
    return options


def _check(name: str, value: Any) -> None:
    is_right, wanted = CHECKS[name]
    if not is_right(value):
        raise InvalidInput(f"must be {wanted}, not {value!r}.", field=name)


def _check_atomic(options: Options, method: Callable[[Any], Any]) -> None:
    """Refuse what one transaction cannot hold: it belongs to one thread."""
    if inspect.iscoroutinefunction(method):
        raise InvalidInput("a coroutine cannot run in the transaction that records its row.", field="atomic")
    if options.concurrency > 1:
        raise InvalidInput(
            "rows in one transaction are processed one after the other: concurrency is 1.", field="atomic"
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_retry_on(value: Any) -> bool:
    return isinstance(value, tuple) and all(inspect.isclass(one) and issubclass(one, Exception) for one in value)


def _is_output_formats(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(form, OutputFormat) for name, form in value.items()
    )


MAY_BE_NONE = frozenset(field.name for field in fields(Options) if field.default is None)
COUNT = (_is_count, "a whole number above 0")
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "atomic": (lambda value: isinstance(value, bool), "True or False"),
    "concurrency": (
        lambda value: _is_count(value) and value <= CONCURRENCY_MAX,
        f"a whole number from 1 to {CONCURRENCY_MAX}",
    ),
    "max_attempts": COUNT,
    "time_limit": (lambda value: _is_number(value) and value > 0, "a number of seconds above 0"),
    "chunk_rows": COUNT,
    "max_failed": (
        lambda value: _is_number(value) and value >= 0 and (isinstance(value, int) or value < 1),
        "a whole number of rows, or a share below 1",
    ),
    "retry_on": (_is_retry_on, "a tuple of exception classes"),
    "output_formats": (_is_output_formats, "a dict of logical names and OutputFormats"),
}

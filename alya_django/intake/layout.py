"""How a file is laid out, as its reader finds it, and which columns a return file has beside those of its source."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any

from alya_django.checkers import BadFile, FaultyLine
from alya_django.validation import JSON, LINE_MAX

LINE_COLUMN = "alya_line"
REASON_COLUMN = "alya_reason"
LINE_DIGITS_MAX = 10
DIALECT = (
    "delimiter",
    "doublequote",
    "escapechar",
    "lineterminator",
    "quotechar",
    "quoting",
    "skipinitialspace",
    "strict",
)

Record = tuple[int, list[str] | FaultyLine]


@dataclass(frozen=True, slots=True)
class Layout:
    """What must be known of a CSV file to read its records, or to write others that are read alike."""

    encoding: str = "utf-8"
    has_header: bool = True
    is_returned: bool = False
    dialect: Mapping[str, Any] = field(default_factory=lambda: dialect_of(csv.excel))

    def as_json(self) -> dict[str, JSON]:
        """Return the layout as it is stored with the record of its file."""
        return asdict(self)


def dialect_of(dialect: str | type[csv.Dialect], **options: Any) -> dict[str, Any]:
    """Return a dialect and the options that go over it as values that can be stored."""
    found = csv.reader([], dialect, **options).dialect
    return {name: getattr(found, name) for name in DIALECT}


@dataclass(slots=True)
class Reading:
    """
    What is said to the reader of a file, past its checker, and what the reader says: how the file is laid out.

    ``on_bytes`` is called with how many bytes are unpacked next, where the reader does so itself.
    """

    is_returned: bool
    on_bytes: Callable[[int], None] = lambda nbytes: None
    layout: Layout | None = None


_current: ContextVar[Reading] = ContextVar("alya_reading")


@contextmanager
def reading(*, is_returned: bool = False, on_bytes: Callable[[int], None] = lambda nbytes: None) -> Iterator[Reading]:
    """Have the reader that a checker calls say how the file is laid out, and read it as a returned one or not."""
    told = Reading(is_returned, on_bytes)
    token = _current.set(told)
    try:
        yield told
    finally:
        _current.reset(token)


def current() -> Reading:
    """Return what is said to a reader here; outside of a file that is received, nothing is."""
    return _current.get(Reading(is_returned=False))


def refuse_return_file(header: list[str]) -> None:
    """Raise BadFile for the header of a return file, where nobody has said whose lines it corrects."""
    if {LINE_COLUMN, REASON_COLUMN} <= {name.strip() for name in header}:
        raise BadFile(
            f"This is a return file: its header has {LINE_COLUMN!r} and {REASON_COLUMN!r}. "
            "It is received with the batch that it corrects as its parent."
        )


def source_records(records: Iterator[Record], *, has_header: bool) -> Iterator[Record]:
    """
    Yield the records of a returned file as those of its source, without the two columns, and with the lines they name.

    Raises:
        BadFile: The header does not name the line's column.
    """
    columns = None if has_header else _Columns.at_the_end()
    for line, record in records:
        if isinstance(record, FaultyLine):
            yield line, record
        elif columns is None:
            columns = _Columns.below(record)
            yield line, columns.without(record)
        else:
            yield columns.source_record(line, record)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where the two columns are, in the order in which they are taken out; no width where no header says it."""

    line: int
    both: list[int]
    width: int | None

    @classmethod
    def at_the_end(cls) -> _Columns:
        return cls(line=-2, both=[-1, -1], width=None)

    @classmethod
    def below(cls, header: list[str]) -> _Columns:
        # The last of that name: the source may have one itself.
        places = {name.strip(): place for place, name in enumerate(header)}
        if LINE_COLUMN not in places:
            raise BadFile(f"The header lacks {LINE_COLUMN!r}: this is no return file.")
        both = [places[name] for name in (LINE_COLUMN, REASON_COLUMN) if name in places]
        return cls(line=places[LINE_COLUMN], both=sorted(both, reverse=True), width=len(header))

    def without(self, record: list[str]) -> list[str]:
        rest = list(record)
        for place in self.both:
            del rest[place]
        return rest

    def source_record(self, line: int, record: list[str]) -> Record:
        if len(record) != (self.width or max(2, len(record))):
            return line, FaultyLine(line, f"of the returned file: has {len(record)} values, not {self.width or 2}")
        named = f"{record[self.line]}".strip()
        if not (named.isascii() and named.isdigit() and len(named) <= LINE_DIGITS_MAX and 0 < int(named) <= LINE_MAX):
            return line, FaultyLine(line, f"of the returned file: {named!r} in {LINE_COLUMN} is no line")
        return int(named), self.without(record)

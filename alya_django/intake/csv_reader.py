"""Read CSV files as a stream of rows and faulty lines, whatever their encoding and however they end."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

from alya_django.checkers import BadFile, FaultyLine
from alya_django.conf import settings
from alya_django.intake.columns import Columns, Make, below_header, by_kind, without_header
from alya_django.intake.layout import Layout, Record, current, dialect_of, refuse_return_file, source_records
from alya_django.processors import BatchInput

# The longer ones first: a mark of UTF-32 begins with one of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_csv(
    file: BinaryIO,
    *,
    columns: Columns = None,
    has_header: bool = True,
    encoding: str = "utf-8",
    dialect: str | type[csv.Dialect] = "excel",
    **options: Any,
) -> Iterator[BatchInput | FaultyLine]:
    """
    Yield the lines of a CSV file: a BatchInput of texts by column, or a FaultyLine.

    A row's line is the one it begins at in the file. Blank lines are passed over. A line that has more or fewer values
    than the header, or bytes that are no text, is faulty.

    Args:
        columns: Which columns are wanted, by the header's names, or a mapping of these to the names in the input;
            all, by default. Without a header, the names of the columns, in order; or, where records of several kinds
            begin with a value that tells which, such as a trailer's ``"T"``, a mapping of these values to such names.
        encoding: How text is encoded in a file that does not begin with a byte order mark of UTF-8, -16 or -32.
        dialect, options: Those of ``csv.reader``; a value in quotes that goes on after them is a fault, unless
            ``strict=False``.

    Raises:
        BadFile: There is no header, it lacks a column or has one twice, or it is that of a return file that comes
            without its parent; or a record is longer than RECORD_CHARS_MAX.
    """
    reading = current()
    chosen = dialect_of(dialect, **{"strict": True, **options})
    with _text_of(file, encoding) as text:
        reading.layout = layout = Layout(text.marked, has_header, reading.is_returned, chosen)
        records = _read(text, layout)
        kinds = {} if has_header else by_kind(columns)
        yield from _rows_of_kinds(records, kinds) if kinds else _rows(records, columns, layout)


def read_records(file: BinaryIO, layout: Layout) -> Iterator[Record]:
    """
    Yield the records of a CSV file that ``read_csv`` has read before, the header among them, each with its line.

    Those of a returned file are the records and lines of its source.

    Raises:
        BadFile: As ``read_csv``.
    """
    with _text_of(file, layout.encoding) as text:
        yield from _read(text, layout)


@contextmanager
def _text_of(file: BinaryIO, encoding: str) -> Iterator[_Text]:
    """Read a file as text and leave it open; what cannot be read of it refuses it."""
    text = _Text(file, encoding)
    try:
        yield text
    except _TooLong:
        raise BadFile(f"Line {text.first}: longer than {settings.RECORD_CHARS_MAX} characters, the limit.") from None
    except UnicodeError as error:
        what = getattr(error, "reason", f"{error}")
        raise BadFile(f"In line {text.first} or after it: this is no {text.encoding}: {what}.") from error
    finally:
        text.detach()


def _read(text: _Text, layout: Layout) -> Iterator[Record]:
    records = _records(text, csv.reader(text, **layout.dialect))
    return source_records(records, has_header=layout.has_header) if layout.is_returned else records


def _rows(records: Iterator[Record], columns: Columns, layout: Layout) -> Iterator[BatchInput | FaultyLine]:
    make, width = (None, 0) if layout.has_header else without_header(columns)
    for line, record in records:
        if isinstance(record, FaultyLine):
            if make is None:
                raise BadFile(f"Line {record.line}: the header {record.reason}.")
            yield record
        elif make is None:
            if not layout.is_returned:
                refuse_return_file(record)
            make, width = below_header(record, columns)
        elif len(record) != width:
            yield FaultyLine(line, f"has {len(record)} values, not {width}")
        else:
            yield BatchInput(line, make(record))
    if make is None:
        raise BadFile("The file is empty.")


def _rows_of_kinds(
    records: Iterator[Record], kinds: Mapping[str, tuple[Make, int]]
) -> Iterator[BatchInput | FaultyLine]:
    for line, record in records:
        if isinstance(record, FaultyLine):
            yield record
            continue
        # A returned file may have a record of nothing but the two columns that were taken out.
        kind = next(iter(record), "")
        make, width = kinds.get(kind, (None, 0))
        if make is None:
            yield FaultyLine(line, f"{kind!r} is none of {', '.join(map(repr, kinds))}, with which records begin")
        elif len(record) != width:
            yield FaultyLine(line, f"has {len(record)} values, not {width}")
        else:
            yield BatchInput(line, make(record))


def _records(text: _Text, records: Any) -> Iterator[Record]:
    """Yield the records that are not blank, each with the line at which it begins."""
    is_over = False
    while not is_over:
        try:
            for record in records:
                if text.is_garbled:
                    yield text.first, FaultyLine(text.first, f"has bytes that are no {text.encoding}")
                elif record:
                    yield text.first, record
                text.begin_record(records.line_num + 1)
            is_over = True
        except csv.Error as error:
            # The next line may be anything once a quote was not closed, so nothing after it can be trusted.
            if records.line_num > text.first:
                raise BadFile(f"Line {text.first}: a value in quotes does not end: {error}.") from error
            yield text.first, FaultyLine(text.first, f"{error}")
            text.begin_record(records.line_num + 1)


class _TooLong(Exception):
    """A record is longer than may be held in memory."""


class _Text:
    """The lines of a file, as text; ``is_garbled`` says that the record has some that is none."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self.first = 1
        self.is_garbled = False
        self._chars = 0
        self._buffer: Any = file if hasattr(file, "peek") else io.BufferedReader(file)
        start = self._buffer.peek(4)
        marked = next((name for mark, name in MARKS if start.startswith(mark)), encoding)
        self.marked = marked
        self.encoding = marked.removesuffix("-sig")
        self._text = io.TextIOWrapper(self._buffer, encoding=marked, errors="surrogateescape", newline="")
        self._file = file

    def begin_record(self, line: int) -> None:
        self.first, self._chars, self.is_garbled = line, 0, False

    def __iter__(self) -> Iterator[str]:
        limit: int = settings.RECORD_CHARS_MAX
        # Asked for with a limit: a line may be as long as the file.
        for line in iter(partial(self._text.readline, limit + 1), ""):
            self._chars += len(line)
            if self._chars > limit:
                raise _TooLong
            if not line.isascii() and _has_surrogate(line):
                self.is_garbled = True
            yield line

    def detach(self) -> None:
        """Leave the file open: it is the caller's."""
        self._text.detach()
        if self._buffer is not self._file:
            self._buffer.detach()


def _has_surrogate(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return True
    return False

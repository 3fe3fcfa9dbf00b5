"""The failed rows of a batch as a file that goes back to who sent them, to be corrected and sent again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from tempfile import TemporaryFile
from typing import Any, BinaryIO
from uuid import UUID

from django.core.files.base import File
from django.db.models import Exists, OuterRef

from alya_django.answers import ErrorMessage
from alya_django.checkers import FaultyLine
from alya_django.exceptions import InvalidState
from alya_django.intake.csv_reader import read_records
from alya_django.intake.layout import LINE_COLUMN, REASON_COLUMN, Layout, Record
from alya_django.intake.source import opened
from alya_django.models import Batch, BatchFile, BatchRow
from alya_django.querysets import BatchRowQuerySet
from alya_django.spreadsheets import harmless
from alya_django.status import Kind, Status
from alya_django.validation import JSON, check_id

BLOCK_ROWS = 1_000
INPUT_COLUMN = "input"


def return_file(batch_id: UUID | str) -> File[Any]:
    """
    Return the failed rows of a finished batch as a CSV file, open to be read; the caller closes it.

    Of a batch that came as a CSV file, which its checker has read with ``read_csv``, these are the header and the
    records of that file, in their order, dialect and encoding. Otherwise, or where the file is gone or lacks one of
    the rows, such as one that was appended, the columns are the fields of the inputs. Two more follow: ``alya_line``
    names the row, and is what makes the file the rows' own when it comes back with ``process(parent=...)``;
    ``alya_reason`` is for people.

    Rows that a retry has in hand, or has brought to success, are not among them.

    Raises:
        NotFound: There is no such batch.
        InvalidState: The batch has not ended, or has no failed row to return; carries its status.
    """
    batch = Batch.objects.primary().find(check_id(batch_id), Kind.BATCH)
    if not Status(batch.status).is_final:
        raise _wrong_state(batch, "has not ended")
    rows = BatchRow.objects.primary().to_retry(batch).filter(status=Status.FAILED)
    if not (nrows := rows.count()):
        raise _wrong_state(batch, "has no failed row to return")
    source = _source_of(batch)
    file = None if source is None or _are_appended(rows, source) else _from_source(source, rows, nrows)
    name = batch.input_file if source is None else source.file_name
    return File(_from_inputs(rows) if file is None else file, f"{name or batch.pk}.return.csv")


def _wrong_state(batch: Batch, what: str) -> InvalidState:
    state = Status(batch.status)
    return InvalidState(f"The batch {batch.id} {what}: its status is {state.label}.", status=state)


def _source_of(batch: Batch) -> BatchFile | None:
    """Return the CSV file that a batch came as, or the nearest one that it is a retry of; None if there is none."""
    ancestor: UUID | None = batch.pk
    while ancestor is not None:
        file = BatchFile.objects.primary().filter(batch=ancestor).first()
        if file is not None:
            return file if "layout" in file.metadata else None
        ancestor = Batch.objects.primary().values_list("parent", flat=True).get(pk=ancestor)
    return None


def _are_appended(rows: BatchRowQuerySet, source: BatchFile) -> bool:
    """Tell whether a row has the line of one that was appended: the file may have another record of that number."""
    appended = BatchRow.objects.primary().filter(
        batch=source.batch_id, line=OuterRef("line"), pk__gt=source.metadata["last_row"]
    )
    return bool(rows.filter(Exists(appended)).order_by("line").values_list("line")[:1])


def _from_source(source: BatchFile, rows: BatchRowQuerySet, nrows: int) -> BinaryIO | None:
    """Return the records of a file whose rows have failed; None if it is gone, or is not all that there is."""
    layout = Layout(**source.metadata["layout"])
    try:
        with opened(source.object_id) as file, _Written(layout) as written:
            records = _sound(read_records(file, layout))
            if layout.has_header:
                _, header = next(records)
                written.begin(header)
            for line, record, messages in _failed(records, rows):
                written.add(record, line, messages)
            return written.file() if written.nrows == nrows else None
    except (FileNotFoundError, csv.Error):
        # What a reader bears, such as a lone quote where quotes are not doubled, a writer may have no form for.
        return None


def _sound(records: Iterator[Record]) -> Iterator[tuple[int, list[str]]]:
    return ((line, record) for line, record in records if not isinstance(record, FaultyLine))


def _failed(records: Iterator[tuple[int, list[str]]], rows: BatchRowQuerySet) -> Iterator[tuple[int, list[str], Any]]:
    """Yield the records whose rows have failed, with their messages, asking the database once for each block."""
    while block := list(islice(records, BLOCK_ROWS)):
        failed = rows.filter(line__in=[line for line, _ in block])
        messages = dict(failed.values_list("line", "messages"))
        yield from ((line, record, messages[line]) for line, record in block if line in messages)


def _from_inputs(rows: BatchRowQuerySet) -> BinaryIO:
    """Return the inputs of rows, with the names of their fields as the header."""
    names = list(dict.fromkeys(name for _, input, _ in _pages(rows) for name in _fields(input)))
    with _Written(Layout()) as written:
        written.begin(names)
        for line, input, messages in _pages(rows):
            fields = _fields(input)
            written.add([_text(fields.get(name)) for name in names], line, messages)
        return written.file()


def _pages(rows: BatchRowQuerySet) -> Iterator[tuple[int, Any, Any]]:
    line = 0
    while page := list(
        rows.filter(line__gt=line).order_by("line").values_list("line", "input", "messages")[:BLOCK_ROWS]
    ):
        yield from page
        line = page[-1][0]


def _fields(input: JSON) -> Mapping[str, JSON]:
    return input if isinstance(input, dict) else {INPUT_COLUMN: input}


def _text(value: JSON) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


class _Written:
    """A return file as it is written, to the disk: there may be as many rows as the source has."""

    def __init__(self, layout: Layout) -> None:
        self.nrows = 0
        self._dialect = layout.dialect
        self._spool: Any = TemporaryFile()  # noqa: SIM115
        self._is_kept = False
        self._text = io.TextIOWrapper(self._spool, layout.encoding, errors="backslashreplace", newline="")
        self._writer = csv.writer(self._text, **_writing(layout.dialect))

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._is_kept:
            self._text.close()

    def begin(self, header: list[str]) -> None:
        self._writer.writerow([*header, LINE_COLUMN, REASON_COLUMN])

    def add(self, record: list[str], line: int, messages: list[dict[str, Any]] | None) -> None:
        reason = "; ".join(_words(ErrorMessage.from_json(message)) for message in messages or ())
        if self._dialect["quoting"] == csv.QUOTE_NONE:
            reason = reason.replace(self._dialect["delimiter"], " ")
        # In one line: the lines of a file are what people count.
        self._writer.writerow([*record, line, " ".join(harmless(reason).split())])
        self.nrows += 1

    def file(self) -> BinaryIO:
        """Return what was written, to be read from its beginning."""
        self._text.detach().seek(0)
        self._is_kept = True
        file: BinaryIO = self._spool
        return file


def _writing(dialect: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dialect in which what was read is written so that it is read alike."""
    if dialect["quoting"] == csv.QUOTE_NONE:
        return {**dialect, "quotechar": None}
    is_bare = dialect["skipinitialspace"] and dialect["quoting"] == csv.QUOTE_MINIMAL
    return {**dialect, "quoting": csv.QUOTE_ALL} if is_bare else dict(dialect)


def _words(error: ErrorMessage) -> str:
    about = ": ".join(filter(None, [error.field, ", ".join(error.vals)]))
    return f"{error.errcode} ({about})" if about else error.errcode

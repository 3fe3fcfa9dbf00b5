"""Read workbooks of Excel as rows of texts, in a process that they may take down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from alya_django.checkers import BadFile, FaultyLine
from alya_django.conf import settings
from alya_django.exceptions import AlyaError
from alya_django.intake import confined, workbook
from alya_django.intake.columns import Columns, below_header, without_header
from alya_django.intake.layout import current
from alya_django.intake.unpack import archive_of, refusing
from alya_django.processors import BatchInput

BUFFER_BYTES = 262_144
SLOW = "SIGXCPU"


def read_xlsx(
    file: BinaryIO, *, sheet: str | None = None, columns: Columns = None, has_header: bool = True
) -> Iterator[BatchInput | FaultyLine]:
    """
    Yield the rows of a workbook's first sheet, or of the one named: a BatchInput of texts by column, or a FaultyLine.

    A row's line is its number in the sheet. Empty rows are passed over. All values are texts, as from a CSV file:
    numbers as they are written with a point, days and times in ISO 8601. A workbook can only be read as a whole, so it
    may have no more than XLSX_CELLS_MAX cells and unpack to no more than XLSX_BYTES_MAX, a text that cells share being
    counted for each. That is done in a process of its own, which has XLSX_MEMORY_BYTES_MAX and XLSX_SECONDS_MAX.

    Args:
        columns, has_header: As for ``read_csv``.

    Raises:
        BadFile: The file is no workbook or too large, takes too long or ends the process that reads it; it lacks the
            sheet, or its header is none; or a row is longer than RECORD_CHARS_MAX.
        AlyaError: python-calamine is not installed, or no process can be started.
    """
    library = _library()
    with TemporaryFile() as copy:
        _copy(file, copy)
        _look_at(copy)
        yield from _rows(_records(copy, sheet, library), columns, has_header)


def _library() -> str:
    """Return the folder in which python_calamine is installed."""
    found = find_spec("python_calamine")
    if found is None or found.origin is None:
        raise AlyaError('read_xlsx needs python-calamine: pip install "alya-django[xlsx]"')
    return str(Path(found.origin).parents[1])


def _copy(file: BinaryIO, copy: BinaryIO) -> None:
    """Copy a workbook to the disk, where another process can read it."""
    left: int = settings.XLSX_BYTES_MAX
    while data := file.read(BUFFER_BYTES):
        left -= len(data)
        if left < 0:
            raise _too_large()
        copy.write(data)
    copy.flush()


def _look_at(copy: BinaryIO) -> None:
    """Refuse what is too large by its own account, and say how much will be unpacked, before anything is."""
    with refusing(workbook.BROKEN):
        unpacked = sum(member.file_size for member in archive_of(copy).infolist())
        copy.seek(0)
    current().on_bytes(unpacked)
    if unpacked > settings.XLSX_BYTES_MAX:
        raise _too_large()


def _too_large() -> BadFile:
    return BadFile(f"The workbook unpacks to more than {settings.XLSX_BYTES_MAX} bytes, the limit.")


def _records(copy: BinaryIO, sheet: str | None, library: str) -> Iterator[list[str]]:
    """Yield the texts of each row, from the process that reads them."""
    limits, on_bytes = _limits(), current().on_bytes
    process = confined.lines(
        Path(workbook.__file__),
        workbook.order_of(limits, sheet, library),
        copy,
        seconds=limits.seconds,
        # No bytes more, but whoever looks at a clock can stop.
        on_wait=lambda: on_bytes(0),
    )
    try:
        with closing(process) as lines:
            for record in map(json.loads, lines):
                if isinstance(record, str):
                    raise BadFile(record)
                if record is not None:
                    yield record
    except confined.TooSlow:
        raise _too_slow(limits) from None
    except confined.Died as died:
        if f"{died}" == SLOW:
            raise _too_slow(limits) from None
        raise BadFile(
            f"The workbook ended the process that read it ({died}): it breaks its reader, or needs more than "
            f"{limits.memory_bytes} bytes of memory, the limit."
        ) from None


def _limits() -> workbook.Limits:
    return workbook.Limits(
        memory_bytes=settings.XLSX_MEMORY_BYTES_MAX,
        seconds=settings.XLSX_SECONDS_MAX,
        unpacked_bytes=settings.XLSX_BYTES_MAX,
        cells=settings.XLSX_CELLS_MAX,
        row_chars=settings.RECORD_CHARS_MAX,
    )


def _too_slow(limits: workbook.Limits) -> BadFile:
    return BadFile(f"The workbook takes longer than {limits.seconds} seconds to be read, the limit.")


def _rows(records: Iterator[list[str]], columns: Columns, has_header: bool) -> Iterator[BatchInput | FaultyLine]:
    make, width = (None, 0) if has_header else without_header(columns)
    for line, values in enumerate(records, 1):
        if not values:
            continue
        if make is None:
            make, width = below_header(values, columns)
        elif len(values) > width:
            yield FaultyLine(line, f"has {len(values)} values, not {width}")
        else:
            yield BatchInput(line, make(values + [""] * (width - len(values))))
    if make is None:
        raise BadFile("The file is empty.")

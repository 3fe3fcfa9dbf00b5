"""Read workbooks of Excel as rows of texts, once it is sure that they fit into memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, BinaryIO
from xml.parsers.expat import ExpatError, ParserCreate
from zipfile import ZIP_STORED, ZipFile

from alya_django.checkers import BadFile, FaultyLine
from alya_django.conf import settings
from alya_django.exceptions import AlyaError
from alya_django.intake.columns import Columns, below_header, without_header
from alya_django.intake.layout import current
from alya_django.intake.unpack import refusing
from alya_django.processors import BatchInput

BROKEN = "The file is no workbook that can be read"


def read_xlsx(
    file: BinaryIO, *, sheet: str | None = None, columns: Columns = None, has_header: bool = True
) -> Iterator[BatchInput | FaultyLine]:
    """
    Yield the rows of a workbook's first sheet, or of the one named: a BatchInput of texts by column, or a FaultyLine.

    A row's line is its number in the sheet. Empty rows are passed over. All values are texts, as from a CSV file:
    numbers as they are written with a point, days and times in ISO 8601. A workbook can only be read as a whole, so it
    may have no more than XLSX_CELLS_MAX cells and unpack to no more than XLSX_BYTES_MAX.

    Args:
        columns, has_header: As for ``read_csv``.

    Raises:
        BadFile: The file is no workbook or too large, it lacks the sheet, or its header is none.
        AlyaError: python-calamine is not installed.
    """
    calamine = _calamine()
    content = file.read(settings.XLSX_BYTES_MAX + 1)
    if len(content) > settings.XLSX_BYTES_MAX:
        raise _too_large()
    yield from _rows(_records(calamine, content, sheet), columns, has_header)


def _calamine() -> Any:
    try:
        import python_calamine
    except ImportError:
        raise AlyaError('read_xlsx needs python-calamine: pip install "alya-django[xlsx]"') from None
    return python_calamine


def _records(calamine: Any, content: bytes, sheet: str | None) -> Iterator[list[Any]]:
    with refusing(BROKEN):
        workbook = calamine.load_workbook(_inspected(content))
        names = workbook.sheet_names
        if sheet is not None and sheet not in names:
            raise BadFile(f"The workbook has no sheet {sheet!r}.")
        yield from workbook.get_sheet_by_name(sheet or names[0]).iter_rows()


def _rows(records: Iterator[list[Any]], columns: Columns, has_header: bool) -> Iterator[BatchInput | FaultyLine]:
    make, width = (None, 0) if has_header else without_header(columns)
    for line, record in enumerate(records, 1):
        values = _trimmed([_text(value) for value in record])
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


def _trimmed(values: list[str]) -> list[str]:
    """Return values without the empty ones at the end: a sheet is as wide as its widest row."""
    while values and not values[-1]:
        values.pop()
    return values


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value}"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value)


def _inspected(content: bytes) -> BinaryIO:
    """
    Return an archive of those parts of a workbook that were looked at, which fit into memory.

    calamine holds a sheet as a rectangle around all cells that have a value: two cells in opposite corners are enough
    for it to ask for hundreds of gigabytes, and to take the process down when it does not get them. Any part may be a
    sheet, whatever it is called, and calamine reads what is half XML, so it gets nothing but what was parsed here.
    """
    left: int = settings.XLSX_BYTES_MAX
    inspected = io.BytesIO()
    with ZipFile(io.BytesIO(content)) as archive, ZipFile(inspected, "w", ZIP_STORED) as target:
        for member in {member.filename: member for member in archive.infolist()}.values():
            current().on_bytes(member.file_size)
            with archive.open(member) as part:
                text = part.read(left + 1)
            left -= len(text)
            if left < 0:
                raise _too_large()
            if _Area().is_xml(text):
                target.writestr(member.filename, text)
    inspected.seek(0)
    return inspected


def _too_large() -> BadFile:
    return BadFile(f"The workbook unpacks to more than {settings.XLSX_BYTES_MAX} bytes, the limit.")


class _Area:
    """How large a rectangle the cells of a part need that have a value; BadFile as soon as it is too large."""

    def __init__(self) -> None:
        self._row = self._column = 0
        self._rows = self._columns = 0
        self._limit: int = settings.XLSX_CELLS_MAX
        # What calamine takes every part for, whatever that says of itself.
        self._parser = ParserCreate("utf-8")
        self._parser.StartElementHandler = self._start
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype

    def is_xml(self, text: bytes) -> bool:
        """Read a part and return whether it is XML."""
        try:
            self._parser.Parse(text, True)
        except ExpatError:
            return False
        return True

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        if name == "row":
            self._row = int(attributes.get("r", self._row + 1))
            self._column = 0
        elif name == "c":
            self._go_to(attributes.get("r"))
        elif name in ("v", "is"):
            self._rows, self._columns = max(self._rows, self._row), max(self._columns, self._column)
            if self._rows * self._columns > self._limit:
                raise BadFile(f"The workbook has a sheet of more than {self._limit} cells, the limit.")

    def _go_to(self, reference: str | None) -> None:
        if reference is None:
            self._column += 1
            return
        letters = reference.rstrip("0123456789")
        self._row = int(reference[len(letters) :])
        self._column = 0
        for letter in letters.upper():
            self._column = 26 * self._column + int(letter, 36) - 9

    def _refuse_doctype(self, *declaration: object) -> None:
        raise BadFile("The workbook has a document type, which none has.")

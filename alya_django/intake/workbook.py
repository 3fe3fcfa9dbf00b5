"""
The program that a workbook is read by, in a process of its own with little memory and time: it may die of it.

It imports nothing of Alya and of Django, shares no connection, and is given the workbook as its standard input, which
is a file. It writes lines of JSON: ``true`` once it has begun, for each row of the sheet a list of its texts, and at
the end ``null``, or a text that says why the workbook is refused.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, datetime, time
from typing import Any, BinaryIO, NamedTuple
from xml.parsers.expat import ExpatError, ParserCreate, errors
from zipfile import ZIP_STORED, ZipFile

BROKEN = "The file is no workbook that can be read"
# Where the one library that reads it looks for them, in upper or lower case.
SHARED_STRINGS = "xl/sharedstrings.xml"
REFERENCE_CHARS_MAX = len("XFD1048576")
NO_MEMORY = errors.codes[errors.XML_ERROR_NO_MEMORY]
PR_SET_PDEATHSIG = 1
# Who is to stop is its parent; it ends with that.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Limits(NamedTuple):
    """How much a workbook may take."""

    memory_bytes: int
    seconds: int
    unpacked_bytes: int
    cells: int
    row_chars: int


class Refused(Exception):
    """The workbook is too large, or lacks the sheet; the text is for who sent it."""


def main(order: str) -> None:
    """Write the rows of the workbook that is the standard input, as a JSON object of ``order_of`` says."""
    told = json.loads(order)
    limits = Limits(*told["limits"])
    _end_with(told["parent"])
    _confine(limits)
    sys.path.append(told["library"])
    _load_library()
    # Whatever kept it from beginning was told there. What a library says of a stranger's file is of use to nobody.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    _write(sys.stdout.buffer, True)
    sys.stdout.flush()
    write_rows(sys.stdin.buffer, sys.stdout.buffer, limits, told["sheet"])
    sys.stdout.flush()


def order_of(limits: Limits, sheet: str | None, library: str) -> str:
    """Return what ``main`` is told; ``library`` is the folder from which python_calamine is imported."""
    return json.dumps({"limits": limits, "sheet": sheet, "library": library, "parent": os.getpid()})


def write_rows(file: BinaryIO, target: BinaryIO, limits: Limits, sheet: str | None = None) -> None:
    """Write the rows of a workbook and how it ends, whatever that is."""
    end = None
    try:
        for texts in rows(file, limits, sheet):
            _write(target, texts)
    except Refused as refused:
        end = f"{refused}"
    except MemoryError:
        end = f"The workbook needs more than {limits.memory_bytes} bytes of memory, the limit."
    except BaseException as error:
        # A panic in Rust is not even an Exception.
        end = f"{BROKEN}: {error}"
    _write(target, end)


def rows(file: BinaryIO, limits: Limits, sheet: str | None = None) -> Iterator[list[str]]:
    """
    Yield the rows of a sheet, of the first unless one is named, as texts without the empty ones at the end.

    Raises:
        Refused: The workbook exceeds a limit, or lacks the sheet.
        BaseException: Whatever a library raises that reads it; it is broken.
    """
    workbook = _load_library().load_workbook(_inspected(file, limits))
    names = workbook.sheet_names
    if sheet is not None and sheet not in names:
        raise Refused(f"The workbook has no sheet {sheet!r}.")
    for number, values in enumerate(workbook.get_sheet_by_name(sheet or names[0]).iter_rows(), 1):
        texts = _trimmed([_text(value) for value in values])
        if sum(map(len, texts)) > limits.row_chars:
            raise Refused(f"Row {number}: longer than {limits.row_chars} characters, the limit.")
        yield texts


def _end_with(parent: int) -> None:
    """Have this process ended when its parent ends, where the system can; at once, if that was before."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("The process that has started this one is gone.")


def _confine(limits: Limits) -> None:
    for signum in IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    for kind, wanted in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.seconds),
        # What is in memory is a stranger's file.
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(kind)
        resource.setrlimit(kind, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _load_library() -> Any:
    import python_calamine

    return python_calamine


def _write(target: BinaryIO, value: Any) -> None:
    target.write(json.dumps(value, ensure_ascii=False).encode(errors="replace") + b"\n")


def _trimmed(texts: list[str]) -> list[str]:
    """Return texts without the empty ones at the end: a sheet is as wide as its widest row."""
    while texts and not texts[-1]:
        texts.pop()
    return texts


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value}"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value)


def _inspected(file: BinaryIO, limits: Limits) -> BinaryIO:
    """
    Return an archive of those parts of a workbook that were looked at, which fit into memory.

    calamine holds a sheet as a rectangle around all cells that have a value, each with a copy of its text: two cells
    in opposite corners, or thousands that share a long text, are enough for it to ask for hundreds of gigabytes. Any
    part may be a sheet, whatever it is called, and calamine reads what is half XML, so it gets nothing but what was
    parsed here.
    """
    left = limits.unpacked_bytes
    inspected = io.BytesIO()
    shared: list[int] = []
    with ZipFile(file) as archive, ZipFile(inspected, "w", ZIP_STORED) as target:
        for member in _in_order(archive):
            with archive.open(member) as opened:
                text = opened.read(left + 1)
            left -= len(text)
            if left < 0:
                raise Refused(f"The workbook unpacks to more than {limits.unpacked_bytes} bytes, the limit.")
            part = _Part(limits, shared)
            if part.is_xml(text):
                target.writestr(member.filename, text)
            if member.filename.lower() == SHARED_STRINGS:
                shared = part.strings
    inspected.seek(0)
    return inspected


def _in_order(archive: ZipFile) -> list[Any]:
    """Return the members of an archive, the shared strings before the sheets, of those of one name the last."""
    members = {member.filename.lower(): member for member in archive.infolist()}
    return sorted(members.values(), key=lambda member: member.filename.lower() != SHARED_STRINGS)


class _Part:
    """
    A part of a workbook as it is parsed; Refused as soon as its cells are too many, or too long together.

    Args:
        shared: How many bytes each of the strings has that cells share.
    """

    def __init__(self, limits: Limits, shared: list[int]) -> None:
        self.strings: list[int] = []
        self._limits, self._shared = limits, shared
        self._row = self._column = 0
        self._rows = self._columns = 0
        self._bytes = 0
        self._shares = False
        self._texts: list[str] = []
        # What calamine takes every part for, whatever that says of itself.
        self._parser = ParserCreate("utf-8")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype

    def is_xml(self, text: bytes) -> bool:
        """Read a part and return whether it is XML."""
        try:
            self._parser.Parse(text, True)
        except ExpatError as error:
            if error.code != NO_MEMORY:
                return False
        except MemoryError:
            pass
        else:
            return True
        # All memory is the parser's. Python needs some to unwind its calls, and without it tries for ever.
        del self._parser
        raise MemoryError

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        if name == "row":
            self._row = int(attributes.get("r", self._row + 1))
            self._column = 0
        elif name == "c":
            self._go_to(attributes.get("r"))
            self._shares = attributes.get("t") == "s"
        elif name in ("v", "is"):
            self._take_place()
        if name == "si" or (name == "v" and self._shares):
            self._texts.clear()
            self._listen(self._texts.append, self._end)

    def _end(self, name: str) -> None:
        name = name.rpartition(":")[2]
        if name == "si":
            self.strings.append(len("".join(self._texts).encode()))
        elif name == "v" and self._shares:
            self._take_string("".join(self._texts))
        else:
            return
        self._listen(None, None)

    def _listen(self, on_text: Callable[[str], None] | None, on_end: Callable[[str], None] | None) -> None:
        """Have texts and the ends of elements told, which takes time, where they are wanted, or no longer."""
        self._parser.CharacterDataHandler, self._parser.EndElementHandler = on_text, on_end

    def _go_to(self, reference: str | None) -> None:
        if reference is None:
            self._column += 1
            return
        if len(reference) > REFERENCE_CHARS_MAX:
            raise Refused(f"{BROKEN}: a cell has no place.")
        letters = reference.rstrip("0123456789")
        self._row = int(reference[len(letters) :])
        self._column = 0
        for letter in letters.upper():
            self._column = 26 * self._column + int(letter, 36) - 9

    def _take_place(self) -> None:
        self._rows, self._columns = max(self._rows, self._row), max(self._columns, self._column)
        if self._rows * self._columns > self._limits.cells:
            raise Refused(f"The workbook has a sheet of more than {self._limits.cells} cells, the limit.")

    def _take_string(self, number: str) -> None:
        if not number:
            return
        # calamine takes what is none for the first.
        if not (number.isascii() and number.isdigit()):
            raise Refused(f"{BROKEN}: a cell has no text.")
        self._bytes += self._shared[int(number)]
        if self._bytes > self._limits.unpacked_bytes:
            limit = self._limits.unpacked_bytes
            raise Refused(f"The workbook has a sheet whose cells repeat more than {limit} bytes, the limit.")

    def _refuse_doctype(self, *declaration: object) -> None:
        raise Refused("The workbook has a document type, which none has.")


if __name__ == "__main__":
    main(sys.argv[1])

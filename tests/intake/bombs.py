"""Files that are small where they lie and huge where they are read: what each is, and how to write it."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from tests.intake.workbooks import SHEET, shared_strings, workbook

Write = Callable[[BinaryIO], None]

GIGABYTE = 1_000_000_000
BLOCK = 1_000_000


def names() -> Iterator[bytes]:
    """Yield a header of a million names."""
    for start in range(0, BLOCK, 10_000):
        yield b"".join(b"n%d," % number for number in range(start, start + 10_000))


def packed(pieces: Callable[[], Iterator[bytes]]) -> Write:
    """Return what writes a file that is packed with gzip."""

    def write(target: BinaryIO) -> None:
        with gzip.GzipFile(fileobj=target, mode="wb") as file:
            for piece in pieces():
                file.write(piece)

    return write


def archived(method: int, name: str = "payments.csv", nbytes: int = GIGABYTE) -> Write:
    """Return what writes an archive of one file of zeros."""

    def write(target: BinaryIO) -> None:
        with zipfile.ZipFile(target, "w", method) as archive, archive.open(name, "w", force_zip64=True) as file:
            for _ in range(nbytes // BLOCK):
                file.write(b"0" * BLOCK)

    return write


def nested(target: BinaryIO) -> None:
    """Write an archive in an archive in an archive."""
    write = archived(zipfile.ZIP_DEFLATED, nbytes=100 * BLOCK)
    for _ in range(2):
        inner = io.BytesIO()
        write(inner)
        write = _archive_of(inner.getvalue())
    write(target)


def _archive_of(content: bytes) -> Write:
    def write(target: BinaryIO) -> None:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.zip", content)

    return write


def sheet(rows: Callable[[], str], **parts: bytes) -> Write:
    """Return what writes a workbook of these rows."""
    return lambda target: target.write(workbook(rows(), parts=parts)) and None


def sharing_cells() -> str:
    """Return 30 000 cells that have one text."""
    return "".join(f'<row r="{row}"><c r="A{row}" t="s"><v>0</v></c></row>' for row in range(1, 30_001))


def far_cells() -> str:
    """Return two cells in opposite corners."""
    return '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'


def once(*pieces: bytes, times: int = 1) -> Callable[[], Iterator[bytes]]:
    """Return what yields pieces, the last of them so many times."""
    return lambda: (piece for piece in (*pieces[:-1], *(pieces[-1] for _ in range(times))))


BOMBS: dict[str, tuple[str, Write]] = {
    "deflate": ("plain", archived(zipfile.ZIP_DEFLATED)),
    "bzip2": ("plain", archived(zipfile.ZIP_BZIP2, nbytes=100 * BLOCK)),
    "lzma": ("plain", archived(zipfile.ZIP_LZMA, nbytes=100 * BLOCK)),
    "nested": ("plain", nested),
    "a gigabyte in one field": ("plain", packed(once(b"account,amount,reference\n", b"0" * BLOCK, times=1_000))),
    "two million columns": ("plain", packed(once(b"account,amount,reference\n", b"," * 2 * BLOCK))),
    "a million names": ("plain", packed(names)),
    "a million empty names": ("plain", packed(once(b"," * BLOCK))),
    "shared strings": (
        "sheets",
        sheet(sharing_cells, **{"xl/sharedStrings.xml": shared_strings("x" * 320_000)}),
    ),
    "empty cells": ("sheets", sheet(far_cells)),
    "many empty cells": ("sheets", sheet(lambda: "<row>" + "<c/>" * 5_000_000 + "</row>")),
    "deep elements": ("sheets", sheet(lambda: "<a>" * 5_000_000)),
    "workbook by bzip2": ("sheets", archived(zipfile.ZIP_BZIP2, SHEET, 100 * BLOCK)),
}
"""The file type of ``benchmarks.checkers`` that reads each, and what writes it."""

"""Read a file that is compressed as if it were not, up to a limit."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from gzip import GzipFile
from typing import IO, Any, BinaryIO, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from alya_django.checkers import BadFile
from alya_django.conf import settings

BUFFER_BYTES = 262_144
GZIP_START = b"\x1f\x8b"
ZIP_START = b"PK\x03\x04"
# What is inside every file of Office: it is a ZIP archive that is meant to be one.
OFFICE_MEMBER = "[Content_Types].xml"
BROKEN = "The file cannot be unpacked"
# What Python unpacks piece by piece. It asks bzip2 and LZMA for all that a piece becomes, be it gigabytes.
METHODS = frozenset({ZIP_STORED, ZIP_DEFLATED})
# The table of contents of an archive is read as a whole, into memory.
CONTENTS_BYTES_MAX = 1_000_000


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """
    Refuse the file for whatever a library raises that reads it.

    What that may be no library says: it is found by trying.
    """
    try:
        yield
    except BadFile:
        raise
    except Exception as error:
        raise BadFile(f"{what}: {error}") from error


def unpacked(file: io.BufferedReader, on_bytes: Callable[[int], None] | None = None) -> BinaryIO:
    """
    Return the content of a file: what was compressed with gzip, the only member of a ZIP archive, or the file itself.

    Its first bytes tell, not its name.

    Args:
        on_bytes: Called with how many bytes more have been unpacked.

    Raises:
        BadFile: The archive is broken, has several members, or is one that ``archive_of`` refuses; or, while it is
            read, it unpacks to more than UNPACKED_BYTES_MAX.
    """
    start = file.peek(4)
    if start.startswith(GZIP_START):
        return _limited(GzipFile(fileobj=file), on_bytes)
    if start.startswith(ZIP_START):
        return _only_member(file, on_bytes)
    return file


def archive_of(file: BinaryIO) -> ZipFile:
    """
    Open a ZIP archive that can be unpacked piece by piece.

    Raises:
        BadFile: A member is compressed otherwise than by deflate, or the table of contents is too long.
    """
    archive = ZipFile(cast("IO[bytes]", _Sparing(file)))
    for member in archive.infolist():
        if member.compress_type not in METHODS:
            raise BadFile(f"The archive is compressed by method {member.compress_type}; only deflate is read.")
    return archive


def _only_member(file: io.BufferedReader, on_bytes: Callable[[int], None] | None) -> BinaryIO:
    with refusing(BROKEN):
        archive = archive_of(file)
        members = [member for member in archive.infolist() if not member.is_dir()]
        if any(member.filename == OFFICE_MEMBER for member in members):
            file.seek(0)
            return file
        if len(members) != 1:
            raise BadFile(f"The archive has {len(members)} files; there must be one.")
        return _limited(archive.open(members[0]), on_bytes)


def _limited(file: Any, on_bytes: Callable[[int], None] | None) -> BinaryIO:
    return io.BufferedReader(_Limited(file, on_bytes), BUFFER_BYTES)


class _Sparing:
    """A file of which nobody reads much at a time; of an archive, only its table of contents could be so long."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(CONTENTS_BYTES_MAX + 1 if size < 0 else min(size, CONTENTS_BYTES_MAX + 1))
        if len(data) > CONTENTS_BYTES_MAX:
            raise BadFile(f"The archive has a table of contents of more than {CONTENTS_BYTES_MAX} bytes, the limit.")
        return data


class _Limited(io.RawIOBase):
    """What a compressed file unpacks to, as far as it may."""

    def __init__(self, file: Any, on_bytes: Callable[[int], None] | None) -> None:
        self._file = file
        self._on_bytes = on_bytes
        self._limit: int = settings.UNPACKED_BYTES_MAX

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with refusing(BROKEN):
            data = self._file.read(min(len(buffer), BUFFER_BYTES))
        if self._on_bytes is not None:
            self._on_bytes(len(data))
        self._limit -= len(data)
        if self._limit < 0:
            raise BadFile(f"The file unpacks to more than {settings.UNPACKED_BYTES_MAX} bytes, the limit.")
        buffer[: len(data)] = data
        return len(data)

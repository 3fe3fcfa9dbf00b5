"""Where received files lie in the storage, under names of their own, and how they get there."""

from __future__ import annotations

import hashlib
import io
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from django.core.files.base import File

from alya_django import outputs
from alya_django.checkers import BadFile
from alya_django.conf import settings
from alya_django.exceptions import InvalidInput

NAME_BYTES_MAX = 200
EXTENSION_BYTES_MAX = 20
BUFFER_BYTES = 262_144

_FORBIDDEN = str.maketrans(dict.fromkeys(' /\\:*?"<>|', "_"))


class Stored(NamedTuple):
    """An object of the storage, and what its bytes are."""

    object_id: str
    size: int
    checksum: str


def sanitise(file_name: str) -> str:
    """
    Return a file's name without the characters that mean something to a file system or a shell.

    Source: Alya's filexfr, sanitizeFilename.
    """
    return file_name.translate(_FORBIDDEN)


def plain_name(file_name: str) -> str:
    """
    Return the sanitised name of a file as one that can be given to a file in any folder, and does not hide there.

    It is cut to NAME_BYTES_MAX, its extension kept.
    """
    name = "".join(char if char.isprintable() else "_" for char in sanitise(file_name))
    if not name or name.startswith("."):
        name = f"_{name[1:]}"
    return _cut(name)


def object_name(prefix: str, file_name: str, token: UUID | None = None) -> str:
    """
    Return a name for an object: the prefix, a token that no other has, new unless given, and the file's plain name.

    Whatever the file's name is, the result stays below the prefix.
    """
    return f"{prefix.strip('/')}/{(token or uuid4()).hex}/{plain_name(file_name)}".lstrip("/")


def save(name: str, source: Any) -> Stored:
    """
    Store what a file has to be read, from its beginning if it can be rewound, and return where and what it is.

    What was stored before an error is deleted.

    Raises:
        BadFile: It is larger than FILE_BYTES_MAX.
    """
    counted = _Counted(source, settings.FILE_BYTES_MAX)
    try:
        object_id = outputs.store(name, File(io.BufferedReader(counted, BUFFER_BYTES), name))
    except BaseException:
        outputs.delete([name])
        raise
    return Stored(object_id, counted.size, counted.digest.hexdigest())


def replace(name: str, file: File[Any]) -> str:
    """Store a file in place of what an attempt that was not completed has left, and return the name of its object."""
    outputs.delete([name])
    return outputs.store(name, file)


def measure(name: str) -> Stored:
    """Read an object through and return what its bytes are."""
    with outputs.open(name) as file:
        counted = _Counted(file, float("inf"))
        buffer = bytearray(BUFFER_BYTES)
        while counted.readinto(buffer):
            pass
    return Stored(name, counted.size, counted.digest.hexdigest())


def too_large() -> BadFile:
    """Return what refuses a file of more than FILE_BYTES_MAX bytes."""
    return BadFile(f"The file is larger than {settings.FILE_BYTES_MAX} bytes, the limit.")


def copy_to_failed(object_id: str, name: str) -> str:
    """Copy an object to a name where rejected files lie and return the copy's; its own, if it lies there already."""
    if object_id == name or object_id.startswith(f"{settings.FAILED_PREFIX.strip('/')}/"):
        return object_id
    with outputs.open(object_id) as file:
        return replace(name, file)


def _cut(name: str) -> str:
    """Cut a name to NAME_BYTES_MAX between characters, keeping its extension unless that is none."""
    if len(name.encode()) <= NAME_BYTES_MAX:
        return name
    stem, dot, extension = name.rpartition(".")
    ending = f"{dot}{extension}" if dot and len(extension.encode()) <= EXTENSION_BYTES_MAX else ""
    cut = (stem if ending else name).encode()[: NAME_BYTES_MAX - len(ending.encode())]
    return cut.decode(errors="ignore") + ending


class _Counted(io.RawIOBase):
    """The bytes of a file, counted and digested as they are read."""

    def __init__(self, source: Any, bytes_max: float) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self._source = source
        self._bytes_max = bytes_max
        if getattr(source, "seekable", lambda: False)():
            source.seek(0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        if isinstance(data, str):
            raise InvalidInput("is open as text; open it to be read as bytes.", field="file")
        self.size += len(data)
        if self.size > self._bytes_max:
            raise too_large()
        self.digest.update(data)
        buffer[: len(data)] = data
        return len(data)

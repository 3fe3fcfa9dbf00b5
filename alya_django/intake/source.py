"""How a received file is opened to be read, and whose fault it is where it cannot be."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from alya_django import outputs
from alya_django.intake.unpack import unpacked

BUFFER_BYTES = 262_144


@contextmanager
def opened(
    object_id: str, on_read: Callable[[int], None] | None = None, on_bytes: Callable[[int], None] | None = None
) -> Iterator[BinaryIO]:
    """
    Open an object to be read, unpacked; what the storage fails to give is an error, not the fault of the file.

    Args:
        on_read: Called with how many bytes of the object have been read so far.
        on_bytes: Called with how many bytes more have been read, or have been unpacked.
    """
    with outputs.open(object_id) as file:
        source = _Source(file, on_read, on_bytes)
        try:
            yield unpacked(io.BufferedReader(source, BUFFER_BYTES), on_bytes)
        except Exception:
            if source.failure is not None:
                raise source.failure from None
            raise


class _Source(io.RawIOBase):
    """What is read of an object; ``failure`` is the storage's, whatever the checker makes of it."""

    def __init__(
        self, file: Any, on_read: Callable[[int], None] | None, on_bytes: Callable[[int], None] | None
    ) -> None:
        self.failure: Exception | None = None
        self._file = file
        self._on_read = on_read
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            self._file.seek(offset, whence)
        except OSError as error:
            # Nothing is asked of the storage: the file points to before its own beginning.
            raise ValueError(f"{error}") from error
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        try:
            # Piece by piece, whatever is asked for: who counts the bytes can stop in time.
            data = self._file.read(min(len(buffer), BUFFER_BYTES))
        except Exception as error:
            self.failure = error
            raise
        buffer[: len(data)] = data
        if self._on_read is not None:
            self._on_read(self._file.tell())
        if self._on_bytes is not None:
            self._on_bytes(len(data))
        return len(data)

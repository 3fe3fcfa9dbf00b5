"""Output files in the project's storage: their names, how they are saved, read back and deleted."""

from __future__ import annotations

import copy
import hashlib
import logging
import mimetypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any, cast
from urllib.parse import quote
from uuid import UUID

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, Storage, storages

from alya_django import log_words, s3_streams
from alya_django.answers import OutputFile
from alya_django.conf import settings
from alya_django.faults import describe, spare_ctrl_c

logger = logging.getLogger("alya_django")

NAME_BYTES_MAX = 200
UNKNOWN_TYPE = "application/octet-stream"
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
ENCODED_TYPES = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


class Unreadable(ValueError):
    """A file that a processor has given cannot be read."""


def storage() -> Storage:
    """Return the storage that holds output files."""
    return storages[settings.STORAGE]


def object_name(batch_id: UUID, attempt: UUID, logical_name: str) -> str:
    """
    Return the name to store a logical file under: prefix, batch, attempt and the percent-encoded name.

    Whatever the logical name is, the result stays below the prefix: no '/' survives the encoding, and a leading
    dot is encoded too. Over 200 bytes it is cut and ends in "=", which no other has, and 8 hex digits of its SHA-256.
    """
    encoded = quote(logical_name, safe="")
    if encoded.startswith("."):
        encoded = f"%2E{encoded[1:]}"
    if len(encoded) > NAME_BYTES_MAX:
        ending = f"={hashlib.sha256(logical_name.encode()).hexdigest()[:8]}"
        encoded = encoded[: NAME_BYTES_MAX - len(ending)] + ending
    return f"{_folder(batch_id)}/{attempt.hex}/{encoded}"


def content_type(logical_name: str) -> str:
    """Return what a file of this name is."""
    guess, encoding = mimetypes.guess_type(logical_name)
    if encoding is not None:
        return ENCODED_TYPES.get(encoding, UNKNOWN_TYPE)
    return guess or UNKNOWN_TYPE


def save(batch_id: UUID, attempt: UUID, logical_name: str, file: File[Any], content_type: str = "") -> str:
    """
    Store a file and return the name of its object, which the storage may have changed.

    A storage that keeps content types guesses this one's by its name, unless it is given.
    """
    if content_type:
        file.content_type = content_type  # type: ignore[attr-defined]
    return store(object_name(batch_id, attempt, logical_name), file)


def store(name: str, file: File[Any]) -> str:
    """
    Store a file and return the name of its object, which the storage may have changed.

    In a local directory nobody else may read it, unless the options of the storage say otherwise.
    """
    return _private(storage()).save(name, file)


def save_given(batch_id: UUID, attempt: UUID, logical_name: str, file: File[Any] | str) -> OutputFile:
    """Store a file that a processor has made, and measure it; an object that it only names is left as it is."""
    kind = content_type(logical_name)
    if isinstance(file, str):
        return OutputFile(object_name=file, size=None, content_type=kind, checksum="")
    with TemporaryFile() as spool:
        # What can be read once only is spooled: it is read to be measured, and again to be saved.
        with _blaming_processor(file):
            source = file if file.seekable() else File(spool)
        digest, size = hashlib.sha256(), 0
        for piece in _read(file):
            content = piece.encode() if isinstance(piece, str) else piece
            digest.update(content)
            size += len(content)
            if source is not file:
                spool.write(content)
        source.seek(0)
        name = save(batch_id, attempt, logical_name, source)
    return OutputFile(object_name=name, size=size, content_type=kind, checksum=digest.hexdigest())


def open(name: str) -> File[Any]:
    """Open an object to be read as a stream of bytes, in memory that does not grow with it."""
    holder = storage()
    file = holder.open(name, "rb")
    return s3_streams.stream(file, holder) if s3_streams.is_s3(file) else file


def signed_link(name: str, *, disposition: str, seconds: int) -> str | None:
    """
    Return an address that gives an object to whoever has it, for a while; None where the storage signs none.

    Args:
        disposition: What the answer says of how it is to be kept, as in the header Content-Disposition.
    """
    holder: Any = storage()
    if not s3_streams.is_s3_storage(holder) or not s3_streams.signs_links(holder):
        return None
    parameters = {"ResponseContentDisposition": disposition, "ResponseContentType": "application/octet-stream"}
    link: str = holder.url(name, parameters=parameters, expire=seconds)
    return link


def delete(names: Iterable[str]) -> None:
    """Delete objects; one that cannot be deleted is left, and logged."""
    for name in names:
        try:
            storage().delete(name)
        except Exception as error:
            said = log_words.of_error(error)
            logger.warning(
                "The object %s could not be deleted: %s", name, said, exc_info=log_words.traceback_of(error)
            )


def remove(names: Iterable[str]) -> int:
    """Delete objects and return how many; raise what the storage raises. One that is gone already is no fault."""
    removed = 0
    for name in names:
        storage().delete(name)
        removed += 1
    return removed


def delete_folder(batch_id: UUID) -> None:
    """Delete what all attempts to finish a batch have left, and where they lay."""
    _delete_attempts(batch_id, lambda name: True)
    delete([_folder(batch_id)])


def delete_attempt(batch_id: UUID, attempt: UUID) -> None:
    """Delete what one attempt to finish a batch stored, whole files and halves."""
    _delete_attempts(batch_id, lambda name: name == attempt.hex)


def delete_other_attempts(batch_id: UUID, attempt: UUID) -> None:
    """Delete what all attempts to finish a batch stored but the one that won."""
    _delete_attempts(batch_id, lambda name: name != attempt.hex)


def _private(holder: Storage) -> Storage:
    """Return the storage with our modes where it has none of its own: Django's let everybody read."""
    if not isinstance(holder, FileSystemStorage):
        return holder
    # The project may keep other files in the same one.
    private: Any = copy.copy(holder)
    for name, mode in (("file_permissions_mode", FILE_MODE), ("directory_permissions_mode", DIRECTORY_MODE)):
        is_own = getattr(type(holder), name) is not getattr(FileSystemStorage, name)
        if not is_own and getattr(holder, f"_{name}") is None:
            setattr(private, name, mode)
    return cast("Storage", private)


def _read(file: File[Any]) -> Iterator[Any]:
    with _blaming_processor(file):
        pieces = iter(file.chunks())
    while True:
        with _blaming_processor(file):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


@contextmanager
def _blaming_processor(file: File[Any]) -> Iterator[None]:
    """Tell a file that cannot be read from a storage that fails: to wait would not help."""
    try:
        yield
    except BaseException as error:
        spare_ctrl_c(error)
        raise Unreadable(f"{file.name} cannot be read: {describe(error)}") from error


def _delete_attempts(batch_id: UUID, is_chosen: Callable[[str], bool]) -> None:
    """Delete the attempts chosen by name; where the storage cannot list them, they stay."""
    folder = _folder(batch_id)
    try:
        for name in filter(is_chosen, storage().listdir(folder)[0]):
            _, files = storage().listdir(f"{folder}/{name}")
            delete([*(f"{folder}/{name}/{file}" for file in files), f"{folder}/{name}"])
    except Exception as error:
        said = log_words.of_error(error)
        logger.warning(
            "What lies in %s could not be looked at: %s", folder, said, exc_info=log_words.traceback_of(error)
        )


def _folder(batch_id: UUID) -> str:
    return f"{settings.OUTPUT_PREFIX.strip('/')}/{batch_id}".lstrip("/")

"""Output files in the project's storage: their names, how lines become files, how files are read back."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.core.files.base import File
from django.core.files.storage import Storage, storages

from alya_django import s3_streams
from alya_django.conf import settings

logger = logging.getLogger("alya_django")

NAME_BYTES_MAX = 200


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


def save(batch_id: UUID, attempt: UUID, logical_name: str, file: File[Any]) -> str:
    """Store a file and return the name of its object, which the storage may have changed."""
    return storage().save(object_name(batch_id, attempt, logical_name), file)


def open(name: str) -> File[Any]:
    """Open an object to be read as a stream of bytes, in memory that does not grow with it."""
    holder = storage()
    file = holder.open(name, "rb")
    return s3_streams.stream(file, holder) if s3_streams.is_s3(file) else file


class Joiner:
    """
    Join the lines that rows contribute into files.

    The files are spooled to a temporary directory and saved once they are whole: a storage that is written to
    piece by piece may publish half a file. Contributions are kept as they are; each ends in exactly one newline
    that is added only where it has none.
    """

    def __init__(self, batch_id: UUID, attempt: UUID) -> None:
        self._batch_id = batch_id
        self._attempt = attempt
        self._spool = TemporaryDirectory(prefix="alya-")
        self._paths: dict[str, Path] = {}

    def __enter__(self) -> Joiner:
        return self

    def __exit__(self, *exception: object) -> None:
        self._spool.cleanup()

    def add(self, contributions: Iterable[Mapping[str, str]]) -> None:
        """Add what some rows contribute, in the order given."""
        texts: dict[str, list[str]] = {}
        for contribution in contributions:
            for logical_name, text in contribution.items():
                if text:
                    texts.setdefault(logical_name, []).append(text if text.endswith("\n") else f"{text}\n")
        # A file is opened for each block of rows: a thousand files stay within any limit on open ones.
        for logical_name, parts in texts.items():
            path = self._paths.setdefault(logical_name, Path(self._spool.name, str(len(self._paths))))
            with path.open("a", encoding="utf-8", newline="") as file:
                file.writelines(parts)

    def save(self, before_each: Callable[[int], None]) -> dict[str, str]:
        """Save the files, calling back with the bytes of each before it, and return each logical name's object."""
        output_files = {}
        for logical_name, path in self._paths.items():
            before_each(path.stat().st_size)
            with path.open("rb") as spooled:
                output_files[logical_name] = save(self._batch_id, self._attempt, logical_name, File(spooled))
        return output_files


def delete(names: Iterable[str]) -> None:
    """Delete objects; one that cannot be deleted is left, and logged."""
    for name in names:
        try:
            storage().delete(name)
        except Exception:
            logger.warning("The object %s could not be deleted.", name, exc_info=True)


def delete_attempt(batch_id: UUID, attempt: UUID) -> None:
    """Delete what one attempt to finish a batch stored, whole files and halves."""
    _delete_attempts(batch_id, lambda name: name == attempt.hex)


def delete_other_attempts(batch_id: UUID, attempt: UUID) -> None:
    """Delete what all attempts to finish a batch stored but the one that won."""
    _delete_attempts(batch_id, lambda name: name != attempt.hex)


def _delete_attempts(batch_id: UUID, is_chosen: Callable[[str], bool]) -> None:
    """Delete the attempts chosen by name; where the storage cannot list them, they stay."""
    folder = _folder(batch_id)
    try:
        for name in filter(is_chosen, storage().listdir(folder)[0]):
            _, files = storage().listdir(f"{folder}/{name}")
            delete([*(f"{folder}/{name}/{file}" for file in files), f"{folder}/{name}"])
    except Exception:
        logger.warning("What lies in %s could not be looked at.", folder, exc_info=True)


def _folder(batch_id: UUID) -> str:
    return f"{settings.OUTPUT_PREFIX.strip('/')}/{batch_id}".lstrip("/")

"""
The way of a file that a person uploads: it is kept, looked at, confirmed or discarded, and loaded by a worker.

Until it is confirmed nothing comes of it. Loading is a slow query of Alya's own: one at a time for each file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

from alya_django import outputs, slow_queries, status_cache
from alya_django.answers import Receipt
from alya_django.checkers import FileChecker
from alya_django.conf import settings
from alya_django.exceptions import InvalidInput
from alya_django.intake import preview, receive
from alya_django.models import Batch, BatchFile, database
from alya_django.processors import QueryResult, Row, SlowQueryProcessor
from alya_django.registry import registry
from alya_django.status import Kind, Status
from alya_django.validation import JSON, OWN_APP

LOAD = "load"
KEY_START = "upload"
LOADS_MAX = 20
NOTE_SECONDS = 1.0
NOTE_KEPT_SECONDS = 60


def keep(file: Any, *, file_name: str, checker: FileChecker, uploaded_by: str) -> UUID:
    """
    Store an uploaded file, and return the token by which it is found.

    One whose beginning tells that it cannot be accepted is rejected at once.
    """
    token = uuid4()
    record = receive.keep(
        file,
        file_name=file_name,
        file_type=checker.file_type,
        unique_key=_key(token),
        metadata={"uploaded_by": uploaded_by},
    )
    if record.is_accepted is None:
        preview.reject_unreadable(record, checker)
    return token


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file, and the slow query that loads it, or was the last to try."""

    token: UUID
    file: BatchFile
    load: Batch | None

    @property
    def uploaded_by(self) -> str:
        return str(self.file.metadata.get("uploaded_by", ""))

    @property
    def is_open(self) -> bool:
        """Whether nothing is decided and nobody is loading it."""
        return self.file.is_accepted is None and not self.is_loading

    @property
    def is_loading(self) -> bool:
        """Whether it was confirmed, and a worker has it in hand or will."""
        return self.file.is_accepted is None and self.load is not None and not Status(self.load.status).is_final

    @property
    def position(self) -> int | None:
        """How many bytes of it the worker has read, about a second ago; None where nobody knows."""
        read = status_cache.access(settings.CACHE, lambda cache: cache.get(_position_key(self.file.pk)))
        return min(max(read, 0), self.file.size) if isinstance(read, int) else None


def undecided_of(uploaded_by: str) -> list[BatchFile]:
    """Return the uploads of somebody that are neither loaded, rejected nor discarded: UPLOADS_MAX of them at most."""
    # Without a batch is what an index has.
    files = BatchFile.objects.primary().undecided().filter(batch__isnull=True, metadata__uploaded_by=uploaded_by)
    return list(files.filter(unique_key__startswith=_key("")).order_by("pk")[: settings.UPLOADS_MAX])


def token_of(file: BatchFile) -> UUID | None:
    """Return the token of a file that was uploaded; None for one that came in another way."""
    start, _, token = (file.unique_key or "").partition(":")
    return UUID(token) if start == KEY_START else None


def find(token: UUID) -> Upload | None:
    """Return the upload that a token stands for."""
    file = BatchFile.objects.primary().select_related("batch").filter(unique_key=_key(token)).first()
    if file is None:
        return None
    keys = [_load_key(file.pk, number) for number in range(1, LOADS_MAX + 1)]
    loads = Batch.objects.primary().filter(app=OWN_APP, op=LOAD, unique_key__in=keys)
    return Upload(token, file, max(loads, key=_number, default=None))


def confirm(upload: Upload, *, requested_by: str) -> UUID:
    """
    Have an open upload loaded, and return the slow query that does it; its batch waits for ``batches.release``.

    Whoever confirms it at the same time gets the same slow query.

    Raises:
        InvalidInput: It was loaded in vain too often.
    """
    number = 1 if upload.load is None else _number(upload.load) + 1
    if number > LOADS_MAX:
        raise InvalidInput(f"was loaded in vain {LOADS_MAX} times; upload the file once more.", field="upload")
    return slow_queries.submit(
        OWN_APP,
        LOAD,
        {"file": upload.file.pk, "requested_by": requested_by},
        requested_by=requested_by,
        unique_key=_load_key(upload.file.pk, number),
    )


def discard(upload: Upload) -> bool:
    """Delete an upload with its bytes, and return whether it was still open."""
    with database().transaction():
        locked = BatchFile.objects.primary().filter(pk=upload.file.pk).undecided().lock_free()
        file = locked.first() if upload.is_open else None
        if file is None:
            return False
        outputs.remove([file.object_id])
        file.delete()
    return True


def register() -> None:
    """Let the workers of this process load uploads."""
    registry.register_processor(Kind.SLOW_QUERY, OWN_APP, LOAD, Loader, {})


class Loader(SlowQueryProcessor):
    """Make a batch of an uploaded file, or reject it."""

    time_limit = math.inf
    # A storage that is away comes back. What cannot be accepted is no exception.
    retry_on = (Exception,)

    def do_slow_query(self, row: Row) -> QueryResult | JSON:
        """Load the file that the input names, unless that was done before; tell what became of it."""
        order: Any = row.input
        file = BatchFile.objects.primary().select_related("batch").filter(pk=order["file"]).first()
        if file is None:
            return QueryResult.failed("discarded")
        try:
            receipt = file.receipt() if file.is_accepted is not None else _load(file, row, order["requested_by"])
        except _Aborted:
            return QueryResult.failed("aborted")
        return {
            "accepted": receipt.accepted,
            "batch": str(receipt.batch_id) if receipt.batch_id else None,
            "nrows": receipt.nrows,
            "nfaulty": receipt.nfaulty,
        }


class _Aborted(BaseException):
    """The slow query was aborted. No Exception: the reader of a file takes that for a fault of the file."""


def _load(file: BatchFile, row: Row, requested_by: str) -> Receipt:
    return receive.process(
        stored=file.object_id,
        file_name=file.file_name,
        file_type=file.file_type,
        wait=True,
        requested_by=requested_by,
        on_read=_on_read(file.pk, row.aborted),
    )


def _on_read(file_id: int, is_aborted: Callable[[], bool]) -> Callable[[int], None]:
    """Return what notes in the cache, now and then, how far a file was read, and stops where that is not wanted."""
    noted_at = float("-inf")

    def note(position: int) -> None:
        nonlocal noted_at
        if is_aborted():
            raise _Aborted
        now = monotonic()
        if now - noted_at >= NOTE_SECONDS:
            noted_at = now
            status_cache.access(
                settings.CACHE, lambda cache: cache.set(_position_key(file_id), position, NOTE_KEPT_SECONDS)
            )

    return note


def _key(token: UUID | str) -> str:
    return f"{KEY_START}:{token}"


def _load_key(file_id: int, number: int) -> str:
    """Return the unique key of the slow query that loads a file; one more follows where one has failed."""
    return f"{file_id}.{number}"


def _number(load: Batch) -> int:
    return int(str(load.unique_key).rpartition(".")[2])


def _position_key(file_id: int) -> str:
    return f"ALYA_{{{file_id}}}_LOADED"

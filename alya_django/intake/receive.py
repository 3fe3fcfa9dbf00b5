"""
The way of a received file: a record, the object, then batch and rows in one transaction, or a rejection.

The record is there first, so that whatever a crash leaves in the storage has one that says so.
"""

from __future__ import annotations

import io
import json
import mimetypes
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from itertools import chain
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from django.core.exceptions import SuspiciousOperation
from django.db import IntegrityError
from django.db.models.functions import Now

from alya_django import lifecycle, outputs
from alya_django.answers import Receipt
from alya_django.checkers import BadFile, FileChecker, Route, checkers
from alya_django.conf import settings
from alya_django.control_totals import differences
from alya_django.exceptions import InvalidInput, NotFound
from alya_django.intake import objects
from alya_django.intake.business_keys import BusinessKeys
from alya_django.intake.faults import Faults
from alya_django.intake.layout import reading
from alya_django.intake.lines import Totals, rows
from alya_django.intake.parent import Parent
from alya_django.intake.routing import Routing
from alya_django.intake.source import opened
from alya_django.models import Batch, BatchFile, BatchRow, database
from alya_django.status import Kind, Status
from alya_django.validation import JSON, TEXT_MAX, check_text, encode_object, make_storable

REASON_CHARS_MAX = 10_000
MOVED_FROM = "moved_from"
NO_USABLE_LINE = "The file has no usable line."
SET_BY_CHECKER = ("app", "op", "nrows", "context", "status", "control_totals", "totals_mismatch")


def process(
    *,
    file: Any = None,
    stored: str | None = None,
    file_name: str,
    file_type: str,
    context: dict[str, JSON] | None = None,
    wait: bool = False,
    requested_by: str = "",
    unique_key: str | None = None,
    allow_duplicate: bool = False,
    parent: UUID | str | None = None,
    on_read: Callable[[int], None] | None = None,
) -> Receipt:
    """
    Check a file, keep it, and make a batch of its lines; or reject it, keep it too, and say why.

    What the checker makes of the file and the record of it are committed together. Outside of a transaction of the
    caller nothing is lost at any moment: after a crash, the same call with the same ``unique_key``, or the record's
    ``object_id`` as ``stored``, goes on where the first has stopped.

    Args:
        file: The content: bytes, or a text that is stored as UTF-8, or what is open to be read as bytes, such as an
            upload. It is read from its beginning if it can be rewound.
        stored: Instead of ``file``, the name of an object that the storage has already. One that was accepted before
            is only told of; one that was rejected is checked again.
        file_name: The name that the sender gave to the file.
        file_type: What it was registered as.
        context: A JSON object for the checker, which gets a copy, and for the batch, which gets what the checker has
            left in that copy.
        wait: Keep the batch back until ``batches.release``.
        unique_key: Where a file with this key was received already, that one is told of and nothing is stored: a call
            that may be repeated.
        allow_duplicate: Accept content that was accepted before for this type.
        parent: The batch whose failed rows these are, corrected in its ``return_file``: they become a child of it,
            with the lines, and so the keys, of the parent's rows. A line that ``batches.retry`` would not take is
            faulty.
            Without a ``context``, the parent's is given to the checker.
        on_read: Called with how many bytes of the stored object the checker has got so far, packed as they are.

    Raises:
        NotFound: The type has no checker, the storage no such object, or there is no such parent.
        InvalidInput: An argument that cannot be one, or a parent of an app and op that the type's files do not go to.
        InvalidState: The parent has not ended.

    Source: Alya's BulkfileinProcess.
    """
    checker = checkers.find(file_type)
    if checker is None:
        raise NotFound(f"There is no checker for the file type {file_type!r}.")
    family = None if parent is None else Parent.find(parent, checker)
    order = _Order(
        checker=checker,
        parent=family,
        routes=checker.routes if family is None else (family.route,),
        context=encode_object(context if context or family is None else family.batch.context, "context"),
        status=Status.WAIT if wait else Status.QUEUED,
        requested_by=check_text(requested_by, "requested_by"),
        allow_duplicate=allow_duplicate,
        is_stored=stored is not None,
        on_read=on_read,
    )
    if (file is None) == (stored is None):
        raise InvalidInput("give either the file or the name of the stored object.", field="file")
    if stored is None:
        record = keep(file, file_name=file_name, file_type=file_type, unique_key=unique_key)
    else:
        record = _of_stored(stored, _storable_name(file_name), file_type)
    return database().again(lambda: _decide(record.pk, order))


def keep(
    file: Any,
    *,
    file_name: str,
    file_type: str,
    unique_key: str | None = None,
    metadata: dict[str, JSON] | None = None,
) -> BatchFile:
    """
    Store a file and return its record, on which ``process`` decides, given its ``object_id`` as ``stored``.

    One that is larger than FILE_BYTES_MAX is rejected, and not kept. Where a file with the same unique key was kept
    before, its record is returned.
    """
    record = _of_new(_storable_name(file_name), file_type, _check_key(unique_key), metadata or {})
    if record.is_accepted is None and not record.checksum:
        try:
            _keep(record, file)
        except BadFile as bad:
            with Faults() as faults:
                reject(record.pk, bad.reason, faults)
        record.refresh_from_db()
    return record


def reject(file_id: int, reason: str, faults: Faults, *, is_stored: bool = False) -> Receipt:
    """
    Keep a file where the rejected ones lie, and the reason with its record, unless somebody has decided on it.

    Args:
        is_stored: Its object was there before, and is the sender's.
    """
    files = BatchFile.objects.primary()
    with database().transaction():
        record = files.lock(file_id)
        if record.is_accepted is not None:
            return _told(record)
        object_id = record.object_id
        if record.checksum:
            object_id = objects.copy_to_failed(record.object_id, _failed_name(record, record.file_name))
        is_moved = object_id != record.object_id
        # An object of the sender's is forgotten: another may come under its name.
        moved_from = {MOVED_FROM: record.object_id} if is_moved and not is_stored else {}
        files.filter(pk=file_id).update(
            is_accepted=False,
            object_id=object_id,
            error_object_id=_keep_faults(record, faults),
            error_message=make_storable(reason, REASON_CHARS_MAX),
            nfaulty=faults.count,
            metadata={**record.metadata, **moved_from},
            processed_at=Now(),
        )
        if is_moved:
            database().after_commit(lambda: outputs.delete([record.object_id]))
    return files.get(pk=file_id).receipt()


@dataclass(frozen=True, slots=True)
class _Order:
    """What is wanted of a file."""

    checker: FileChecker
    parent: Parent | None
    routes: tuple[Route, ...]
    context: str
    status: Status
    requested_by: str
    allow_duplicate: bool
    is_stored: bool
    on_read: Callable[[int], None] | None


def _storable_name(file_name: str) -> str:
    if not isinstance(file_name, str) or not file_name:
        raise InvalidInput(f"must be a text that is not empty, not {file_name!r}.", field="file_name")
    return make_storable(file_name, TEXT_MAX)


def _check_key(unique_key: str | None) -> str | None:
    if unique_key is not None and not check_text(unique_key, "unique_key"):
        raise InvalidInput("is empty; None is no key.", field="unique_key")
    return unique_key


def _of_stored(object_id: str, file_name: str, file_type: str) -> BatchFile:
    """Return the record of an object that is there already; one that was rejected is undecided again."""
    measured = _measure(object_id)
    record, _ = BatchFile.objects.primary().get_or_create(
        object_id=object_id,
        defaults={
            "file_name": file_name,
            "file_type": file_type,
            "content_type": _content_type(file_name),
            "size": measured.size,
            "checksum": measured.checksum,
        },
    )
    BatchFile.objects.primary().filter(pk=record.pk).reopen(size=measured.size, checksum=measured.checksum)
    record.refresh_from_db()
    if not record.checksum:
        raise InvalidInput("is the name of an object that was not stored as a whole: give the file.", field="stored")
    return record


def _measure(object_id: str) -> objects.Stored:
    try:
        return objects.measure(object_id)
    except FileNotFoundError:
        raise NotFound(f"There is no object {object_id!r} in the storage.") from None
    except SuspiciousOperation as error:
        raise InvalidInput(f"{error}", field="stored") from error


def _of_new(file_name: str, file_type: str, unique_key: str | None, metadata: dict[str, JSON]) -> BatchFile:
    """Return the record of a file whose object is about to be stored, or of the one that has its unique key."""
    planned = objects.object_name(settings.INCOMING_PREFIX, file_name)
    values = {
        "object_id": planned,
        "file_name": file_name,
        "file_type": file_type,
        "content_type": _content_type(file_name),
        "metadata": metadata,
    }
    files = BatchFile.objects.primary()
    if unique_key is None:
        return files.create(**values)
    record, is_new = files.get_or_create(unique_key=unique_key, defaults=values)
    if not is_new and files.filter(pk=record.pk).not_stored().update(object_id=planned):
        outputs.delete([record.object_id])
        record.object_id = planned
    return record


def _keep(record: BatchFile, file: Any) -> None:
    """Store a file and note what it is; where somebody else was faster, theirs is kept."""
    stored = objects.save(record.object_id, _readable(file))
    noted = BatchFile.objects.primary().filter(pk=record.pk).not_stored().update(**stored._asdict())
    if not noted:
        outputs.delete([stored.object_id])


def _readable(file: Any) -> Any:
    if isinstance(file, str):
        file = file.encode(errors="surrogatepass")
    if isinstance(file, bytes | bytearray | memoryview):
        return io.BytesIO(file)
    if not hasattr(file, "read"):
        raise InvalidInput(f"must be content, or open to be read, not {type(file).__name__}.", field="file")
    return file


def _decide(file_id: int, order: _Order) -> Receipt:
    with Faults() as faults:
        try:
            with database().transaction():
                return _accept(file_id, order, faults)
        except BadFile as bad:
            return reject(file_id, bad.reason, faults, is_stored=order.is_stored)
        except InvalidInput as error:
            return reject(file_id, f"{error}", faults, is_stored=order.is_stored)


def _accept(file_id: int, order: _Order, faults: Faults) -> Receipt:
    """Make a batch of a file, unless somebody else has decided on it."""
    record = BatchFile.objects.primary().lock(file_id)
    if record.is_accepted is not None:
        return _told(record)
    family = {} if order.parent is None else order.parent.lock()
    # Until the checker has said where its rows go.
    batch = lifecycle.new_batch(
        Kind.BATCH,
        *astuple(order.routes[0]),
        context=None,
        status=order.status,
        requested_by=order.requested_by,
        unique_key=None,
        input_file=record.file_name,
        **family,
    )
    if record.size > settings.FILE_BYTES_MAX:
        raise objects.too_large()
    # First of all: whoever brings the same content at the same time waits here, and is refused once this is committed.
    _take_content(record, batch, order)
    lifecycle.store(batch, lambda batch: _insert(record, batch, order, faults))
    BatchFile.objects.primary().filter(pk=file_id).update(
        nfaulty=faults.count,
        error_object_id=_keep_faults(record, faults),
        metadata=record.metadata,
        processed_at=Now(),
    )
    return BatchFile.objects.primary().select_related("batch").get(pk=file_id).receipt()


def _take_content(record: BatchFile, batch: Batch, order: _Order) -> None:
    """Accept a file, unless one of its type with the same content was accepted before."""
    files = BatchFile.objects.primary()
    for is_repeat in (False, True) if order.allow_duplicate else (False,):
        try:
            with database().transaction():
                files.filter(pk=record.pk).update(is_accepted=True, is_repeat=is_repeat, batch=batch)
        except IntegrityError:
            continue
        return
    first = files.first_of(record.file_type, record.checksum).get()
    raise BadFile(
        f"The same content was accepted before: {first.file_name}, received {first.received_at:%Y-%m-%d %H:%M}, "
        f"batch {first.batch_id}."
    )


def _insert(record: BatchFile, batch: Batch, order: _Order, faults: Faults) -> None:
    """Have the checker read the file, and store the rows as it does."""
    context = json.loads(order.context)
    routing = Routing(order.routes)
    keys = BusinessKeys(order.checker, routing, batch.id) if order.checker.unique_by else None
    totals = Totals(order.checker.totals)
    parent = order.parent and order.parent.of_child(batch.id)
    with opened(record.object_id, order.on_read) as file, reading(is_returned=parent is not None) as told:
        check = partial(order.checker.check, file, record.file_name, context)
        lines = rows(check, faults, totals, routing, keys, parent)
        first = next(lines, None)
        if parent is not None and told.layout is None:
            raise BadFile("Its checker does not use read_csv, so whose corrected lines these are is not known.")
        if first is None:
            raise BadFile(NO_USABLE_LINE)
        nrows = lifecycle.insert_rows(batch.id, chain([first], lines))
    if told.layout is not None:
        record.metadata |= {"layout": told.layout.as_json(), "last_row": _last_row(batch)}
    # An object of the sender's may still be written to; one that was stored here is nobody else's.
    if order.is_stored and _measure(record.object_id).checksum != record.checksum:
        raise BadFile("The object has changed while it was read.")
    encode_object(context, "context")
    batch.app, batch.op = astuple(routing.settled())
    batch.nrows, batch.context = nrows, context
    if totals.declared is not None:
        _compare(batch, totals, faults.count)
    batch.save(using=database().alias, update_fields=SET_BY_CHECKER)


def _last_row(batch: Batch) -> int:
    """Return the id of a batch's last row: what is appended later has a larger one."""
    return BatchRow.objects.primary().filter(batch=batch).order_by("-pk").values_list("pk", flat=True)[0]


def _compare(batch: Batch, totals: Totals, nfaulty: int) -> None:
    """Keep a batch back if its rows are not what the file declares."""
    declared = totals.declared.as_json() if totals.declared else {}
    received = {"count": batch.nrows, "sums": totals.sums.as_json()}
    batch.control_totals = {"declared": declared, "received": received}
    found = differences(declared, received, "received")
    if found and nfaulty:
        found.append(f"faulty lines: {nfaulty}")
    batch.totals_mismatch = "; ".join(found)
    if found:
        batch.status = Status.WAIT


def _told(record: BatchFile) -> Receipt:
    """Return what became of a file, and delete what is left of it where its process died as it was moved."""
    if MOVED_FROM in record.metadata:
        outputs.delete([record.metadata[MOVED_FROM]])
    return record.receipt()


def _keep_faults(record: BatchFile, faults: Faults) -> str:
    """Store what names the faulty lines, instead of what named them before, and return its object."""
    kept, earlier = faults.save(_failed_name(record, f"{record.file_name}.faults.csv")), record.error_object_id
    if earlier and earlier != kept:
        database().after_commit(lambda: outputs.delete([earlier]))
    return kept


def _failed_name(record: BatchFile, name: str) -> str:
    """Return where something of a file lies among the rejected: always the same, so that no attempt leaves another."""
    token = uuid5(NAMESPACE_OID, f"{record.pk} {record.received_at.isoformat()} {name}")
    return objects.object_name(settings.FAILED_PREFIX, name, token)


def _content_type(file_name: str) -> str:
    guessed, encoding = mimetypes.guess_type(file_name)
    if encoding is not None:
        return f"application/{encoding}"
    return guessed or "application/octet-stream"

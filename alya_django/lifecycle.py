"""What batches and slow queries have in common: how they begin, are looked up, and are aborted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.db.models.functions import Now

from alya_django import signals, status_cache
from alya_django.answers import Summary
from alya_django.conf import settings
from alya_django.exceptions import AlreadyDone, InvalidInput
from alya_django.models import Batch, BatchRow, database
from alya_django.processors import BatchInput
from alya_django.status import Kind, Status
from alya_django.validation import (
    JSON,
    check_id,
    check_line,
    check_text,
    encode_json,
    encode_object,
    fold_name,
)

BLOCK_ROWS = 5_000


def new_batch(
    kind: Kind, app: str, op: str, *, context: JSON, status: Status, requested_by: str, **fields: Any
) -> Batch:
    """Return a checked batch that is not yet stored."""
    encode_object(context, "context")
    return Batch(
        kind=kind,
        app=fold_name(app, "app"),
        op=fold_name(op, "op"),
        context=context or {},
        status=status,
        requested_by=check_text(requested_by, "requested_by"),
        **fields,
    )


def announce(batch: Batch) -> None:
    """Tell the project, once it is committed, that a batch was submitted."""
    database().after_commit(
        lambda: _send(signals.batch_submitted, batch_id=batch.id, app=batch.app, op=batch.op, kind=Kind(batch.kind))
    )


def insert_rows(batch_id: UUID, rows: Iterable[JSON | BatchInput], *, last_line: int = 0, present: int = 0) -> int:
    """
    Store rows in blocks and return how many the batch now has; a row without a line follows the largest so far.

    A block is read whole before it is written: the rows may come from the same connection.
    """
    if isinstance(rows, str | bytes | dict) or not isinstance(rows, Iterable):
        raise InvalidInput(f"must be an iterable of rows, not {type(rows).__name__}.", field="rows")
    total = present
    rows = iter(rows)
    while block := list(islice(rows, BLOCK_ROWS)):
        total += len(block)
        if total > settings.BATCH_ROWS_MAX:
            raise InvalidInput(f"has more than {settings.BATCH_ROWS_MAX} rows, the limit.", field="rows")
        numbered = list(_number(block, last_line))
        _insert_block(batch_id, numbered)
        last_line = max(last_line, *(line for line, _ in numbered))
    if total == present:
        raise InvalidInput("is empty: there must be a row.", field="rows")
    return total


def read_summary(batch_id: UUID, kind: Kind, *, is_fresh: bool = False) -> Summary:
    """Return a batch's summary, from the cache if it is there; a fresh one, only if it is final."""
    summary = status_cache.load(batch_id)
    if summary is None or summary.kind is not kind or (is_fresh and summary.try_later):
        summary = Batch.objects.primary().find(batch_id, kind).summary()
        # Inside a transaction this may be what is never committed.
        if not database().connection.in_atomic_block:
            status_cache.store(batch_id, summary)
    return summary


def abort(batch_id: UUID | str, kind: Kind) -> Summary:
    """
    Stop a batch for good: end its pending rows as aborted, and with them the batch.

    Raises:
        AlreadyDone: The batch has ended otherwise, or its rows have and a worker is about to end it.
    """
    batch_id = check_id(batch_id)
    store = database()
    with store.transaction():
        store.shut(batch_id)
        batches = Batch.objects.primary()
        batch = batches.lock(batch_id, kind)
        if batch.status == Status.ABORTED:
            return batch.summary()
        naborted = 0 if Status(batch.status).is_final else BatchRow.objects.primary().filter(batch=batch).abort()
        if not naborted:
            raise AlreadyDone(f"The {kind.label} {batch_id} has ended already.", summary=_ended_summary(batch))
        batches.filter(pk=batch_id).update(
            status=Status.ABORTED, done_at=Now(), finisher=None, **{**batch.counts(), "naborted": naborted}
        )
        batch = batches.find(batch_id, kind)
        status_cache.drop(batch_id)
        store.after_commit(lambda: tell_finished(batch))
    return batch.summary()


def tell_finished(batch: Batch) -> None:
    """Let the cache and the project know of a final state that is committed."""
    status_cache.store(batch.id, batch.summary())
    _send(signals.batch_finished, details=batch.details())


def _number(rows: list[JSON | BatchInput], last_line: int) -> Iterator[tuple[int, JSON]]:
    """Yield each row's line and input."""
    for row in rows:
        if isinstance(row, BatchInput):
            line, value = check_line(row.line), row.input
        else:
            line, value = last_line + 1, row
        if line > last_line:
            last_line = line
        yield line, value
    check_line(last_line)


def _insert_block(batch_id: UUID, rows: list[tuple[int, JSON]]) -> None:
    lines = [line for line, _ in rows]
    if len(set(lines)) < len(lines):
        raise _duplicate(next(line for line, times in Counter(lines).items() if times > 1))
    store = database()
    try:
        with store.transaction():
            # Encoded while the database stores what came before.
            store.insert_rows(batch_id, ((line, _encode_input(line, value)) for line, value in rows))
    except IntegrityError:
        present = BatchRow.objects.primary().filter(batch=batch_id, line__in=lines)
        earlier = present.order_by("line").values_list("line", flat=True).first()
        if earlier is None:
            raise
        raise _duplicate(earlier) from None


def _encode_input(line: int, value: JSON) -> str:
    return "{}" if value is None else encode_json(value, "input", line=line)


def _duplicate(line: int) -> InvalidInput:
    return InvalidInput("the batch has this line twice.", line=line)


def _ended_summary(batch: Batch) -> Summary:
    """Return the summary that a batch whose rows have all ended has, or is about to have."""
    if not Status(batch.status).is_final:
        counts = batch.counts()
        batch.status = Status.of_finished(nfailed=counts["nfailed"])
    return batch.summary()


def _send(signal: Any, **arguments: Any) -> None:
    signal.send_robust(sender=Batch, **arguments)

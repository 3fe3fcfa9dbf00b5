"""What batches and slow queries have in common: how they begin, are looked up, and are aborted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any
from uuid import UUID

from django.conf import settings as django_settings
from django.core.files.base import File
from django.db import IntegrityError
from django.db.models import Prefetch
from django.db.models.functions import Now

from alya_django import outputs, signals, status_cache
from alya_django.answers import BatchDetails, OutputFile, QueryAnswer, Summary
from alya_django.conf import settings
from alya_django.exceptions import AlreadyDone, InvalidInput, NotFound
from alya_django.models import Batch, BatchProgress, BatchRow, database
from alya_django.processors import BatchInput
from alya_django.registry import registry
from alya_django.status import Kind, Status
from alya_django.validation import (
    JSON,
    EncodedJSON,
    check_id,
    check_line,
    check_text,
    encode_json,
    encode_object,
    fold_name,
)

logger = logging.getLogger("alya_django")

FIRST_BLOCK_ROWS = 500
BLOCK_ROWS = 5_000
BLOCK_CHARS = 8_000_000
COUNT_MAX = 100_000
QUERY_LINE = 0


def new_batch(
    kind: Kind,
    app: str,
    op: str,
    *,
    context: JSON,
    status: Status,
    requested_by: str,
    unique_key: str | None,
    **fields: Any,
) -> Batch:
    """Return a checked batch that is not yet stored."""
    encode_object(context, "context")
    if unique_key is not None and not check_text(unique_key, "unique_key"):
        raise InvalidInput("is empty; None is no key.", field="unique_key")
    return Batch(
        kind=kind,
        app=fold_name(app, "app"),
        op=fold_name(op, "op"),
        context=context or {},
        status=status,
        requested_by=check_text(requested_by, "requested_by"),
        unique_key=unique_key,
        **fields,
    )


def store(batch: Batch, insert: Callable[[Batch], None]) -> UUID:
    """
    Store a new batch and what ``insert`` gives it, and return its id.

    Where the app and op have a batch of the same unique key already, its id is returned and nothing is stored.
    """
    tables = database()
    with tables.transaction():
        try:
            with tables.transaction():
                batch.save(using=tables.alias, force_insert=True)
        except IntegrityError:
            if batch.unique_key is None:
                raise
            return _earlier(batch)
        insert(batch)
        _warn_if_unregistered(batch)
        if batch.status == Status.QUEUED:
            tables.notify()
        tables.after_commit(
            lambda: _send(
                signals.batch_submitted, batch_id=batch.id, app=batch.app, op=batch.op, kind=Kind(batch.kind)
            )
        )
    return batch.id


def store_query(
    app: str,
    op: str,
    input: JSON,
    *,
    context: JSON = None,
    requested_by: str = "",
    unique_key: str | None = None,
    about: Batch | None = None,
) -> UUID:
    """Store a slow query and return its id; one that is about a batch belongs to its family, and goes with it."""
    query = new_batch(
        Kind.SLOW_QUERY,
        app,
        op,
        context=context,
        status=Status.QUEUED,
        requested_by=requested_by,
        unique_key=unique_key,
        nrows=1,
        parent=about,
        root_id=None if about is None else about.root_batch_id,
    )
    text = encode_json({} if input is None else input, "input")
    return store(query, lambda stored: database().insert_rows(stored.id, [(QUERY_LINE, text)]))


def insert_rows(batch_id: UUID, rows: Iterable[JSON | BatchInput], *, last_line: int = 0, present: int = 0) -> int:
    """
    Store rows in blocks and return how many the batch now has; a row without a line follows the largest so far.

    A block is read whole before it is written: the rows may come from the same connection. It is as many rows as
    make BLOCK_CHARS of JSON, by the block before it and, of rows that are JSON already, by what they are themselves:
    memory stays flat.
    """
    if isinstance(rows, str | bytes | dict) or not isinstance(rows, Iterable):
        raise InvalidInput(f"must be an iterable of rows, not {type(rows).__name__}.", field="rows")
    total, block_rows = present, FIRST_BLOCK_ROWS
    rows = iter(rows)
    while block := _block(rows, block_rows):
        total += len(block)
        if total > settings.BATCH_ROWS_MAX:
            raise InvalidInput(f"has more than {settings.BATCH_ROWS_MAX} rows, the limit.", field="rows")
        numbered = list(_number(block, last_line))
        chars = _insert_block(batch_id, numbered)
        block_rows = min(BLOCK_ROWS, max(1, BLOCK_CHARS * len(block) // chars))
        last_line = max(last_line, *(line for line, _ in numbered))
    if total == present:
        raise InvalidInput("is empty: there must be a row.", field="rows")
    return total


def read_summary(batch_id: UUID, kind: Kind) -> Summary:
    """Return a batch's summary to be shown, from the cache if it is there."""
    summary = status_cache.load(batch_id)
    if summary is None or summary.kind is not kind:
        summary = Batch.objects.primary().find(batch_id, kind).summary()
        # Inside a transaction this may be what is never committed.
        if not database().has_open_transaction():
            status_cache.store(batch_id, summary)
    return summary


def read_answer(query_id: UUID) -> QueryAnswer:
    """Return what a slow query answered, from the cache if it is there; nothing yet, if it has not ended."""
    answer = status_cache.load_answer(query_id)
    if answer is None:
        query = Batch.objects.primary().find(query_id, Kind.SLOW_QUERY)
        answer = _answer(query)
        if not database().has_open_transaction():
            status_cache.store(query_id, query.summary(), answer)
    return answer


def output_files(batch_id: UUID | str, kind: Kind) -> dict[str, OutputFile]:
    """Return the output files of a batch by their logical names; none yet, if it has not ended."""
    return Batch.objects.primary().find(check_id(batch_id), kind).saved_files()


def open_output(batch_id: UUID | str, kind: Kind, name: str) -> File[Any]:
    """Open an output file of a finished batch; raise NotFound if there is none of this name."""
    batch_id = check_id(batch_id)
    current = _object_name(batch_id, kind, name)
    try:
        return outputs.open(current)
    except FileNotFoundError:
        # It may have been rebuilt since it was looked up.
        opened, current = current, _object_name(batch_id, kind, name)
        if current == opened:
            raise
        return outputs.open(current)


def recent(kind: Kind, app: str, op: str | None, *, days: int, limit: int | None) -> list[BatchDetails]:
    """Return the batches of an app requested within so many days, latest first."""
    batches = Batch.objects.primary().filter(kind=kind, app=fold_name(app, "app"))
    if op is not None:
        batches = batches.filter(op=fold_name(op, "op"))
    _check_count(days, "days")
    slots = Prefetch("progress", queryset=BatchProgress.objects.primary())
    found = batches.since(days).prefetch_related(slots)
    if limit is not None:
        found = found[: _check_count(limit, "limit")]
    return [batch.details(slots=batch.progress.all()) for batch in found]


def abort(batch_id: UUID | str, kind: Kind) -> Summary:
    """
    Stop a batch for good: end its pending rows as aborted, and with them the batch.

    Raises:
        AlreadyDone: The batch has ended otherwise, or its rows have and a worker is about to end it.
    """
    batch_id = check_id(batch_id)
    return database().again(lambda: _abort(batch_id, kind))


def drop_cached(batch_id: UUID) -> None:
    """Forget the cached state now, for readers in this transaction, and once more when others may see the new."""
    status_cache.drop(batch_id)
    database().after_commit(lambda: status_cache.drop(batch_id))


def tell_finished(batch: Batch) -> None:
    """Let the cache and the project know of a final state that is committed."""
    answer = _answer(batch) if batch.kind == Kind.SLOW_QUERY else None
    status_cache.store(batch.id, batch.summary(), answer)
    _send(signals.batch_finished, details=batch.details())


def _object_name(batch_id: UUID, kind: Kind, name: str) -> str:
    """Return the object of an output file as the database names it: the cache may say anything."""
    files = Batch.objects.primary().find(batch_id, kind).object_names()
    if name not in files:
        raise NotFound(f"The {kind.label} {batch_id} has no output file {name!r}.")
    return files[name]


def _abort(batch_id: UUID, kind: Kind) -> Summary:
    tables = database()
    with tables.transaction():
        tables.shut(batch_id)
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
        tables.after_commit(lambda: tell_finished(batch))
    return batch.summary()


def _answer(query: Batch) -> QueryAnswer:
    """Return what a slow query has answered, as the database has it."""
    if not Status(query.status).is_final:
        return QueryAnswer(status=Status(query.status))
    row = BatchRow.objects.primary().filter(batch=query.id).first()
    if row is None:
        raise NotFound(f"There is no slow query {query.id}.")
    outcome = row.outcome()
    return QueryAnswer(
        status=Status(query.status),
        result=outcome.result,
        messages=outcome.messages,
        output_files=query.object_names(),
    )


def _block(rows: Iterator[JSON | BatchInput], nrows: int) -> list[JSON | BatchInput]:
    """Return the next rows, so many at most, and no more than make BLOCK_CHARS as far as that can be told."""
    block, chars = [], 0
    for row in islice(rows, nrows):
        block.append(row)
        if isinstance(row, BatchInput) and isinstance(row.input, EncodedJSON):
            chars += len(row.input)
            if chars >= BLOCK_CHARS:
                break
    return block


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


def _earlier(batch: Batch) -> UUID:
    """Return the id of the batch that has a batch's unique key; raise InvalidInput if it is of the other kind."""
    same = Batch.objects.primary().filter(app=batch.app, op=batch.op, unique_key=batch.unique_key)
    earlier = same.get()
    if earlier.kind != batch.kind:
        raise InvalidInput(
            f"{batch.unique_key!r} is the key of a {Kind(earlier.kind).label} already.", field="unique_key"
        )
    return earlier.id


def _warn_if_unregistered(batch: Batch) -> None:
    """Tell a developer of what no worker of this project would process; elsewhere it may be the work of others."""
    kind = Kind(batch.kind)
    if django_settings.DEBUG and registry.find(kind, batch.app, batch.op) is None:
        logger.warning(
            "No processor is registered here for %s/%s: the %s %s waits for a worker that has one. "
            "AppConfig.ready() is the place to register it.",
            *(batch.app, batch.op, kind.label, batch.id),
        )


def _insert_block(batch_id: UUID, rows: list[tuple[int, JSON]]) -> int:
    """Store rows and return how many characters of JSON they are."""
    chars = 0

    def encoded() -> Iterator[tuple[int, str]]:
        nonlocal chars
        for line, value in rows:
            text = _encode_input(line, value)
            chars += len(text)
            yield line, text

    lines = [line for line, _ in rows]
    if len(set(lines)) < len(lines):
        raise _duplicate(next(line for line, times in Counter(lines).items() if times > 1))
    tables = database()
    try:
        with tables.transaction():
            # Encoded while the database stores what came before.
            tables.insert_rows(batch_id, encoded())
    except IntegrityError:
        present = BatchRow.objects.primary().filter(batch=batch_id, line__in=lines)
        earlier = present.order_by("line").values_list("line", flat=True).first()
        if earlier is None:
            raise
        raise _duplicate(earlier) from None
    return chars


def _encode_input(line: int, value: JSON) -> str:
    if isinstance(value, EncodedJSON):
        return value
    return "{}" if value is None else encode_json(value, "input", line=line)


def _duplicate(line: int) -> InvalidInput:
    return InvalidInput("the batch has this line twice.", line=line)


def _check_count(value: int, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= COUNT_MAX:
        raise InvalidInput(f"must be a whole number from 1 to {COUNT_MAX}, not {value!r}.", field=field)
    return value


def _ended_summary(batch: Batch) -> Summary:
    """Return the summary that a batch whose rows have all ended has, or is about to have."""
    if not Status(batch.status).is_final:
        counts = batch.counts()
        batch.status = Status.of_finished(nfailed=counts["nfailed"])
    return batch.summary()


def _send(signal: Any, **arguments: Any) -> None:
    signal.send_robust(sender=Batch, **arguments)

"""The verbs of batches. Each joins the caller's transaction and is whole or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.files.base import File

from alya_django import lifecycle, rebuild
from alya_django.answers import BatchDetails, BatchResult, OutputFile, RowOutcome, Summary
from alya_django.exceptions import InvalidInput, InvalidState, NotFound
from alya_django.models import Batch, BatchRow, database
from alya_django.processors import BatchInput
from alya_django.querysets import BatchRowQuerySet
from alya_django.status import Kind, Status
from alya_django.validation import JSON, check_id, check_line, check_text

PAGE_ROWS = 500
WEIGHT_MAX = 1_000

__all__ = [
    "aabort",
    "abort",
    "append",
    "aresult",
    "astatus",
    "asubmit",
    "children",
    "iter_rows",
    "line",
    "open_output",
    "output_files",
    "rebuild_output",
    "recent",
    "release",
    "result",
    "retry",
    "status",
    "submit",
]


def submit(
    app: str,
    op: str,
    rows: Iterable[JSON | BatchInput],
    *,
    context: dict[str, JSON] | None = None,
    wait: bool = False,
    input_file: str = "",
    requested_by: str = "",
    unique_key: str | None = None,
    weight: float = 1.0,
) -> UUID:
    """
    Store a batch and return its id.

    The op need not be registered here: the workers may be another service.

    Args:
        rows: JSON values, numbered from 1, or BatchInput with lines of their own; read as a stream, never held
            as a whole. None as input means ``{}``.
        context: A JSON object that every row's processor and ``mark_done`` get.
        wait: Keep the batch back until ``release``; until then rows can be appended.
        input_file: The name of the file the rows came from.
        unique_key: Where the app and op have a batch with this key already, its id is returned and nothing is
            stored: a submit that may be repeated.
        weight: The batch's share of the workers beside others', above 0, at most 1000.

    Raises:
        InvalidInput: A name or text that cannot be one, no rows or too many, a line below 1, a duplicate line,
            or a value that JSON cannot hold; names the line.

    Source: Alya BatchSubmit.
    """
    batch = lifecycle.new_batch(
        Kind.BATCH,
        app,
        op,
        context=context,
        status=Status.WAIT if wait else Status.QUEUED,
        requested_by=requested_by,
        unique_key=unique_key,
        input_file=check_text(input_file, "input_file"),
        weight=_check_weight(weight),
    )
    return lifecycle.store(batch, lambda stored: _set_nrows(stored, lifecycle.insert_rows(stored.id, rows)))


def append(batch_id: UUID | str, rows: Iterable[JSON | BatchInput], *, wait: bool = True) -> int:
    """
    Add rows to a waiting batch and return how many it now has.

    Args:
        rows: As for ``submit``; without a line of their own they follow the batch's largest.
        wait: False releases the batch in the same transaction.

    Raises:
        InvalidState: The batch is no longer waiting, or is a child, whose lines are its parent's; carries its status.
        InvalidInput: As for ``submit``; nothing is added.

    Source: Alya BatchAppend.
    """
    batch_id = check_id(batch_id)
    store = database()
    with store.transaction():
        batch = Batch.objects.primary().lock(batch_id, Kind.BATCH)
        if batch.status != Status.WAIT:
            raise _wrong_state(batch, "takes no more rows")
        if batch.parent_id is not None:
            # A row's key is that of its line in the first batch: another row's, were there one of this number.
            raise _wrong_state(batch, "repeats rows of another and takes no others")
        last = BatchRow.objects.primary().filter(batch=batch_id).order_by("-line").values_list("line", flat=True)[:1]
        nrows = lifecycle.insert_rows(batch_id, rows, last_line=last[0], present=batch.nrows)
        state = Status.WAIT if wait else Status.QUEUED
        Batch.objects.primary().filter(pk=batch_id).update(nrows=nrows, status=state)
        lifecycle.drop_cached(batch_id)
        if not wait:
            store.notify()
    return nrows


def release(batch_id: UUID | str) -> int:
    """
    Let a waiting or held batch go and return how many rows it has; one that is queued already stays so.

    Of a held batch, only the rows that fail from now on count towards ``max_failed``.

    Raises:
        InvalidState: The batch is running, and not held, or has ended; carries its status.

    Source: Alya WaitOff.
    """
    batch_id = check_id(batch_id)
    return database().again(lambda: _release(batch_id))


def status(batch_id: UUID | str) -> Summary:
    """
    Return a batch in figures, without its rows.

    The figures of an unfinished batch are a second old at most; those of a finished one are final.
    """
    return lifecycle.read_summary(check_id(batch_id), Kind.BATCH)


def result(batch_id: UUID | str) -> BatchResult:
    """
    Return a batch in figures and, once it has ended, all its rows; ``iter_rows`` is for large ones.

    Source: Alya BatchDone.
    """
    summary = Batch.objects.primary().find(check_id(batch_id), Kind.BATCH).summary()
    rows = () if summary.try_later else tuple(iter_rows(batch_id))
    return BatchResult(rows=rows, **{field.name: getattr(summary, field.name) for field in fields(summary)})


def iter_rows(batch_id: UUID | str, *, status: Status | None = None, after_line: int = 0) -> Iterator[RowOutcome]:
    """
    Yield a batch's rows as they are now, in the order of lines, in flat memory.

    Args:
        status: Only rows in this state.
        after_line: Only rows after this line.
    """
    batch = Batch.objects.primary().find(check_id(batch_id), Kind.BATCH)
    rows = BatchRow.objects.primary().filter(batch=batch.id).defer("input")
    if status is not None:
        rows = rows.filter(status=_check_status(status))
    return _pages(batch.id, rows.order_by("line"), after_line)


def line(batch_id: UUID | str, line: int) -> RowOutcome:
    """
    Return what became of one row and, in its ``sequels``, of its line in the batches that came of this one.

    Raises:
        NotFound: The batch has no such line.
    """
    batch = Batch.objects.primary().find(check_id(batch_id), Kind.BATCH)
    family = Batch.objects.primary().family_of(batch)
    rows = BatchRow.objects.primary().filter(batch__in=family, line=check_line(line)).select_related("batch")
    known: dict[UUID, RowOutcome] = {}
    # A child's rows are stored after their parent's, and a line that a child has its parent has, too.
    for row in rows.order_by("pk"):
        if row.batch_id == batch.id or row.batch.parent_id in known:
            known[row.batch_id] = row.outcome()
    if batch.id not in known:
        raise NotFound(f"The batch {batch.id} has no line {line}.")
    return replace(known.pop(batch.id), sequels=known)


def open_output(batch_id: UUID | str, name: str) -> File[Any]:
    """
    Open an output file of a finished batch to be read as a stream; the caller closes it.

    Raises:
        NotFound: The batch has no output file of this logical name, or none yet.
    """
    return lifecycle.open_output(batch_id, Kind.BATCH, name)


def output_files(batch_id: UUID | str) -> dict[str, OutputFile]:
    """Return the output files of a batch by their logical names, with size, type and checksum; none before its end."""
    return lifecycle.output_files(batch_id, Kind.BATCH)


def rebuild_output(batch_id: UUID | str, name: str) -> OutputFile:
    """
    Make an output file of a finished batch again, from the lines that its rows have kept, and return it.

    The bytes are the same as before, unless the format has changed. The new object takes the place of the old one,
    which is deleted. Call it outside of a transaction: it takes as long as the batch is large.

    Raises:
        NotFound: The batch has no output file of this logical name.
        InvalidState: The batch has not ended, somebody else is at work on it, or its op is not registered here.
        FormatFailed: The format's header, trailer or amounts have raised.
    """
    return rebuild.rebuild_output(check_id(batch_id), name)


def abort(batch_id: UUID | str) -> Summary:
    """
    Stop a batch for good and return its figures; rows that have ended stay as they are.

    What a processor is just doing is dropped when it returns. A batch that was aborted before is only told.

    Raises:
        AlreadyDone: The batch has succeeded or failed, or all its rows have ended; carries the summary.

    Source: Alya BatchAbort.
    """
    return lifecycle.abort(batch_id, Kind.BATCH)


def retry(
    batch_id: UUID | str, *, lines: Iterable[int] | None = None, wait: bool = False, unique_key: str | None = None
) -> UUID:
    """
    Submit a batch's failed and aborted rows again, as a child batch, and return its id.

    Lines and inputs are the parent's, and so is ``Row.key``. A line that another retry has in hand, or has brought to
    success, is not taken again.

    Args:
        lines: Only these lines of the parent.
        wait: Keep the child back until ``release``.
        unique_key: Where the app and op have a batch with this key already, its id is returned and nothing is
            stored: a retry that may be repeated.

    Raises:
        InvalidState: The batch has not ended, or has no row to retry; carries its status.
        InvalidInput: One of ``lines`` cannot be retried; names it.
    """
    batch_id = check_id(batch_id)
    wanted = None if lines is None else _check_lines(lines)
    return database().again(lambda: _retry(batch_id, wanted, wait=wait, unique_key=unique_key))


def children(batch_id: UUID | str) -> list[UUID]:
    """Return the batches that ``retry`` made of this one, oldest first."""
    batch = Batch.objects.primary().find(check_id(batch_id), Kind.BATCH)
    made = Batch.objects.primary().present().filter(parent=batch.id, kind=Kind.BATCH).order_by("requested_at", "id")
    return list(made.values_list("id", flat=True))


def recent(app: str, op: str | None = None, *, days: int, limit: int | None = None) -> list[BatchDetails]:
    """
    Return the batches of an app, and op, requested within so many times 24 hours, latest first.

    Raises:
        InvalidInput: ``days`` or ``limit`` is below 1.

    Source: Alya's list of batches.
    """
    return lifecycle.recent(Kind.BATCH, app, op, days=days, limit=limit)


asubmit = sync_to_async(submit)
aresult = sync_to_async(result)
astatus = sync_to_async(status)
aabort = sync_to_async(abort)


def _release(batch_id: UUID) -> int:
    store = database()
    with store.transaction():
        batch = Batch.objects.primary().lock(batch_id, Kind.BATCH)
        if batch.is_held:
            Batch.objects.primary().filter(pk=batch_id).let_go(batch.counts()["nfailed"])
        elif batch.status in (Status.WAIT, Status.QUEUED):
            Batch.objects.primary().filter(pk=batch_id).update(status=Status.QUEUED)
        else:
            raise _wrong_state(batch, "is not waiting")
        lifecycle.drop_cached(batch_id)
        store.notify()
    return batch.nrows


def _retry(batch_id: UUID, lines: set[int] | None, *, wait: bool, unique_key: str | None) -> UUID:
    with database().transaction():
        parent = Batch.objects.primary().find(batch_id, Kind.BATCH)
        parent = Batch.objects.primary().lock_parent(parent)
        if not Status(parent.status).is_final:
            raise _wrong_state(parent, "has not ended")
        child = _child_of(parent, wait=wait, unique_key=unique_key)
        return lifecycle.store(child, lambda stored: _copy_rows(parent, lines, stored))


def _child_of(parent: Batch, *, wait: bool, unique_key: str | None) -> Batch:
    return lifecycle.new_batch(
        Kind.BATCH,
        parent.app,
        parent.op,
        context=parent.context,
        status=Status.WAIT if wait else Status.QUEUED,
        requested_by=parent.requested_by,
        unique_key=unique_key,
        input_file=parent.input_file,
        weight=parent.weight,
        parent=parent,
        root_id=parent.root_batch_id,
    )


def _copy_rows(parent: Batch, lines: set[int] | None, child: Batch) -> None:
    # But for the child itself, which is of the family by now and has no row.
    rows = BatchRow.objects.primary().to_retry(parent)
    if lines is not None:
        rows = _only_lines(rows, lines)
    nrows = database().copy_rows(child.id, rows)
    if not nrows:
        raise _wrong_state(parent, "has no row to retry")
    _set_nrows(child, nrows)


def _set_nrows(batch: Batch, nrows: int) -> None:
    Batch.objects.primary().filter(pk=batch.id).update(nrows=nrows)


def _check_lines(lines: Iterable[int]) -> set[int]:
    wanted = {check_line(line) for line in lines}
    if not wanted:
        raise InvalidInput("is empty: there must be a line.", field="lines")
    return wanted


def _only_lines(rows: BatchRowQuerySet, wanted: set[int]) -> BatchRowQuerySet:
    """Narrow rows to lines; raise InvalidInput for the first line that is not among them."""
    missing = wanted - set(rows.filter(line__in=wanted).values_list("line", flat=True))
    if missing:
        raise InvalidInput("there is no such row to retry.", line=min(missing))
    return rows.filter(line__in=wanted)


def _check_weight(weight: float) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= WEIGHT_MAX:
        raise InvalidInput(f"must be a number above 0 and at most {WEIGHT_MAX}, not {weight!r}.", field="weight")
    return float(weight)


def _check_status(status: Status) -> Status:
    try:
        return Status(status)
    except ValueError:
        raise InvalidInput(f"{status!r} is no status.", field="status") from None


def _wrong_state(batch: Batch, what: str) -> InvalidState:
    state = Status(batch.status)
    return InvalidState(f"The batch {batch.id} {what}: its status is {state.label}.", status=state)


def _pages(batch_id: UUID, rows: Any, after_line: int) -> Iterator[RowOutcome]:
    while page := list(rows.filter(line__gt=after_line)[:PAGE_ROWS]):
        yield from (row.outcome() for row in page)
        after_line = page[-1].line
    # Where rows were pruned meanwhile, what was yielded is not all.
    Batch.objects.primary().find(batch_id, Kind.BATCH)

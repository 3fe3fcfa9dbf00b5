"""The verbs of slow queries: one row each, asked now and answered later."""

from __future__ import annotations

from uuid import UUID

from alya_django import lifecycle
from alya_django.answers import QueryAnswer, Summary
from alya_django.models import BatchRow, database
from alya_django.status import Kind, Status
from alya_django.validation import JSON, check_id, encode_json

__all__ = ["abort", "result", "submit"]

LINE = 0


def submit(app: str, op: str, input: JSON, *, context: dict[str, JSON] | None = None, requested_by: str = "") -> UUID:
    """
    Store a slow query and return its id.

    Args:
        input: A JSON value; None means ``{}``.
        context: A JSON object that the processor and ``mark_done`` get.

    Raises:
        InvalidInput: A name or text that cannot be one, or a value that JSON cannot hold.

    Source: Alya SlowQuerySubmit.
    """
    query = lifecycle.new_batch(
        Kind.SLOW_QUERY, app, op, context=context, status=Status.QUEUED, requested_by=requested_by, nrows=1
    )
    text = encode_json({} if input is None else input, "input")
    store = database()
    with store.transaction():
        query.save(using=store.alias, force_insert=True)
        store.insert_rows(query.id, [(LINE, text)])
        lifecycle.announce(query)
    return query.id


def result(query_id: UUID | str) -> QueryAnswer:
    """
    Return what a slow query answered; ``try_later`` while it has not.

    Source: Alya SlowQueryDone.
    """
    query_id = check_id(query_id)
    summary = lifecycle.read_summary(query_id, Kind.SLOW_QUERY, is_fresh=True)
    if summary.try_later:
        return QueryAnswer(status=summary.status)
    outcome = BatchRow.objects.primary().get(batch=query_id, line=LINE).outcome()
    return QueryAnswer(
        status=summary.status,
        result=outcome.result,
        messages=outcome.messages,
        output_files=summary.output_files,
    )


def abort(query_id: UUID | str) -> Summary:
    """
    Stop a slow query for good; what its processor still answers is dropped.

    Raises:
        AlreadyDone: It has answered already; carries the summary.

    Source: Alya SlowQueryAbort.
    """
    return lifecycle.abort(query_id, Kind.SLOW_QUERY)

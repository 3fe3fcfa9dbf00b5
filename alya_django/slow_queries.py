"""The verbs of slow queries: one row each, asked now and answered later."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.files.base import File

from alya_django import lifecycle
from alya_django.answers import BatchDetails, OutputFile, QueryAnswer, Summary
from alya_django.status import Kind
from alya_django.validation import JSON, check_id

__all__ = [
    "aabort",
    "abort",
    "aresult",
    "astatus",
    "asubmit",
    "open_output",
    "output_files",
    "recent",
    "result",
    "status",
    "submit",
]


def submit(
    app: str,
    op: str,
    input: JSON,
    *,
    context: dict[str, JSON] | None = None,
    requested_by: str = "",
    unique_key: str | None = None,
) -> UUID:
    """
    Store a slow query and return its id.

    Args:
        input: A JSON value; None means ``{}``.
        context: A JSON object that the processor and ``mark_done`` get.
        unique_key: Where the app and op have a slow query with this key already, its id is returned and nothing is
            stored.

    Raises:
        InvalidInput: A name or text that cannot be one, or a value that JSON cannot hold.

    Source: Alya SlowQuerySubmit.
    """
    return lifecycle.store_query(app, op, input, context=context, requested_by=requested_by, unique_key=unique_key)


def status(query_id: UUID | str) -> Summary:
    """Return a slow query in figures, without its answer; those of an unfinished one are a second old at most."""
    return lifecycle.read_summary(check_id(query_id), Kind.SLOW_QUERY)


def result(query_id: UUID | str) -> QueryAnswer:
    """
    Return what a slow query answered; ``try_later`` while it has not.

    Source: Alya SlowQueryDone.
    """
    return lifecycle.read_answer(check_id(query_id))


def abort(query_id: UUID | str) -> Summary:
    """
    Stop a slow query for good; what its processor still answers is dropped.

    Raises:
        AlreadyDone: It has answered already; carries the summary.

    Source: Alya SlowQueryAbort.
    """
    return lifecycle.abort(query_id, Kind.SLOW_QUERY)


def recent(app: str, op: str | None = None, *, days: int, limit: int | None = None) -> list[BatchDetails]:
    """Return the slow queries of an app, and op, requested within so many times 24 hours, latest first."""
    return lifecycle.recent(Kind.SLOW_QUERY, app, op, days=days, limit=limit)


def open_output(query_id: UUID | str, name: str) -> File[Any]:
    """
    Open an output file of a slow query to be read as a stream; the caller closes it.

    Raises:
        NotFound: The query has no output file of this logical name, or none yet.
    """
    return lifecycle.open_output(query_id, Kind.SLOW_QUERY, name)


def output_files(query_id: UUID | str) -> dict[str, OutputFile]:
    """Return the output files of a slow query by their logical names, with size, type and checksum."""
    return lifecycle.output_files(query_id, Kind.SLOW_QUERY)


asubmit = sync_to_async(submit)
aresult = sync_to_async(result)
astatus = sync_to_async(status)
aabort = sync_to_async(abort)

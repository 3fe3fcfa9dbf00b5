"""What people have asked workers to do to a batch, how that stands, and what came of it, in plain words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from alya_django import own_queries, slow_queries
from alya_django.admin import words
from alya_django.answers import ErrorMessage
from alya_django.models import Batch, BatchRow
from alya_django.own_queries import ABORT, NOT_FOUND, RETRY, WRONG_STATE
from alya_django.status import Status

ASKED_MAX = 20
LABELS = {ABORT: gettext_lazy("Abort"), RETRY: gettext_lazy("Retry of failed rows")}


@dataclass(frozen=True)
class Asked:
    """
    One thing that was asked for.

    ``child`` is the batch that it has made, if it has.
    """

    query: Batch
    label: str
    badge: str
    outcome: str
    child: str = ""

    @property
    def when(self) -> str:
        return words.moment(self.query.requested_at)


def of(batch: Batch) -> list[Asked]:
    """Return the latest that was asked for, the latest first."""
    return by(list(Batch.objects.own_about(batch).order_by("-requested_at", "id")[:ASKED_MAX]))


def by(queries: list[Batch]) -> list[Asked]:
    """Return what was asked for by some slow queries of Alya's own."""
    rows: dict[UUID, BatchRow] = {}
    if queries:
        found = BatchRow.objects.filter(batch__in=queries, line=0)
        rows = {row.batch_id: row for row in found.only("batch", "line", "result", "messages")}
    return [_asked(query, rows.get(query.pk)) for query in queries]


def under_way(batches: Collection[Batch]) -> dict[UUID, set[str]]:
    """Return what was asked for, of each batch the ops, as far as a worker is there to do it."""
    queries = list(Batch.objects.own_about(*batches).unanswered())
    to_be_done = to_do(queries)
    of_each = {batch.pk: {query.op for query in queries if query.parent_id == batch.pk} for batch in batches}
    return {batch_id: ops & to_be_done for batch_id, ops in of_each.items()}


def to_do(queries: Iterable[Batch]) -> set[str]:
    """Return the ops of slow queries that have no answer, as far as a worker is there to do it."""
    ops = {query.op for query in queries if not Status(query.status).is_final}
    return ops & own_queries.served() if ops else ops


def withdraw(batch: Batch, op: str) -> None:
    """Abort what was asked for and has not been answered, as whoever asks now does it himself."""
    for query in Batch.objects.primary().own_about(batch).unanswered().filter(op=op):
        slow_queries.abort(query.pk)


def aborted(count: int) -> str:
    """Say how many rows were aborted."""
    return ngettext("Aborted %(count)s row.", "Aborted %(count)s rows.", count) % {"count": words.number(count)}


def retried(count: int, child: UUID | str) -> str:
    """Say how many rows were retried, and where."""
    text = ngettext("Retried %(count)s row in batch %(id)s.", "Retried %(count)s rows in batch %(id)s.", count)
    return text % {"count": words.number(count), "id": child}


def _asked(query: Batch, row: BatchRow | None) -> Asked:
    label = str(LABELS.get(query.op, query.op))
    badge = words.status_badge(Status(query.status))
    result: Any = row.result if row is not None and query.status == Status.SUCCESS else None
    if result is not None:
        return Asked(query, label, badge, _answered(query.op, result), str(result.get("batch", "")))
    return Asked(query, label, badge, _unanswered(query, row))


def _answered(op: str, result: Mapping[str, Any]) -> str:
    return aborted(result["rows"]) if op == ABORT else retried(result["rows"], result["batch"])


def _unanswered(query: Batch, row: BatchRow | None) -> str:
    """Say why there is nothing to show for it."""
    if query.status == Status.FAILED:
        return _("Nothing was done. %(why)s") % {"why": _why(row)}
    if query.status == Status.ABORTED:
        return _("Nothing was done: it was withdrawn, or its slow query aborted.")
    if query.status == Status.IN_PROGRESS:
        return _("A worker is at it.")
    return _("A worker will do it.")


def _why(row: BatchRow | None) -> str:
    stored = row.messages[0] if row is not None and row.messages else None
    if stored is None:
        return ""
    error = ErrorMessage.from_json(stored)
    if error.errcode == NOT_FOUND:
        return _("The batch is there no more.")
    if error.errcode == WRONG_STATE:
        return _("Its state was %(state)s by then.") % {"state": Status(error.vals[0]).label}
    return words.plainly(error) or words.message(error)

"""Which rows of a batch a list shows, and how they are found without reading all the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy

from alya_django.models import BatchRow
from alya_django.querysets import ERRCODE
from alya_django.status import Status

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise as StrPromise

LOOKED_AT_MAX = 1_000


@dataclass(frozen=True)
class State:
    """
    A state to filter by, and the condition of its rows.

    Where a partial index has them in the order of lines, it is that index's condition: those of a batch's queued rows
    lie behind millions that have ended. Where one has them in another order, only the ``first`` of that order are
    shown. Where none has them they are looked for among all rows, LOOKED_AT_MAX at a time: they are ``walked`` to.
    """

    label: StrPromise | str
    condition: Q
    first: str = ""
    walked: bool = False


STATES: Mapping[str, State] = {
    "queued": State(Status.QUEUED.label, Q(status=Status.QUEUED, retry_at__isnull=True)),
    "requeued": State(gettext_lazy("requeued"), Q(status=Status.QUEUED, retry_at__isnull=False), first="retry_at"),
    "inprog": State(Status.IN_PROGRESS.label, Q(status=Status.IN_PROGRESS, claim__isnull=False), first="claim"),
    "success": State(Status.SUCCESS.label, Q(status=Status.SUCCESS), walked=True),
    "failed": State(Status.FAILED.label, Q(status=Status.FAILED)),
    "aborted": State(Status.ABORTED.label, Q(status=Status.ABORTED), walked=True),
}


class Walk(NamedTuple):
    """
    The lines that were found among the rows after, or before, a line, at most so many as were wanted.

    ``until`` is the last line that was looked at, and is None where no other row follows.
    """

    lines: list[int]
    until: int | None


def in_state(rows: QuerySet[BatchRow], state: State) -> QuerySet[BatchRow]:
    """Return the rows of a batch that are in a state."""
    if not state.first:
        return rows.filter(state.condition)
    return rows.filter(pk__in=rows.filter(state.condition).order_by(state.first).values("pk")[:LOOKED_AT_MAX])


def with_errcode(rows: QuerySet[BatchRow], errcode: str) -> QuerySet[BatchRow]:
    """Return the failed rows of a batch whose first message has an errcode."""
    return rows.filter(STATES["failed"].condition).alias(errcode=ERRCODE).filter(errcode=errcode)


def walk(rows: QuerySet[BatchRow], status: Status, wanted: int) -> Walk:
    """Look for rows of a status among rows that are in the order to go, so far as is cheap."""
    seen = list(rows.values_list("line", "status")[: LOOKED_AT_MAX + 1])
    lines = [line for line, found in seen[:LOOKED_AT_MAX] if found == status]
    if len(lines) > wanted:
        return Walk(lines[:wanted], lines[wanted - 1])
    return Walk(lines, seen[LOOKED_AT_MAX - 1][0] if len(seen) > LOOKED_AT_MAX else None)

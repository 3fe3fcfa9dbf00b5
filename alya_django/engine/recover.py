"""Requeue the rows of workers that died. No processor runs here, and no batch is finished."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from uuid import UUID

from django.db.models import F, Value

from alya_django import signals
from alya_django.db import Database
from alya_django.engine.process import engine_message
from alya_django.models import Batch, BatchRow, Worker
from alya_django.options import Options
from alya_django.querysets import BatchRowQuerySet
from alya_django.registry import registry
from alya_django.status import Kind

logger = logging.getLogger("alya_django.engine")

ROUND_CLAIMS = 200
TRANSACTION_ROWS = 1_000
# Who recovers has no number of its own; the slots are there so that workers do not meet.
SLOT = 0
ERRCODE = "processing_error"
NONE: Mapping[int, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Recovered:
    """
    What became of rows whose worker is dead.

    ``is_all`` is False where some are left for the next round: locked, behind a gate that is shut, or too many.
    """

    requeued: int = 0
    failed: int = 0
    is_all: bool = True

    @property
    def rows(self) -> int:
        """How many rows the dead had in hand."""
        return self.requeued + self.failed

    def __add__(self, other: Recovered) -> Recovered:
        return Recovered(self.requeued + other.requeued, self.failed + other.failed, self.is_all and other.is_all)


class Recovery:
    """
    Give the rows of the dead back to the living.

    A row is taken by the token of the claim that held it. No number of a worker is used twice, so a token that
    was a dead worker's stays one: whoever has claimed the row since has another.
    """

    def __init__(self, store: Database) -> None:
        self._store = store

    def recover(self) -> Recovered:
        """Remove the workers that have fallen silent, and requeue the rows whose worker is not in the table."""
        if not self._is_needed():
            return Recovered()
        workers = Worker.objects.primary()
        lost = Counter(dict.fromkeys(workers.remove_silent(), 0))
        recovered = self._take_from_dead(BatchRow.objects.primary().orphaned(workers), lost)
        self._tell(lost)
        return recovered

    def bury(self, number: int, overdue: Mapping[int, float] = NONE) -> Recovered:
        """
        Remove one worker that is known to be dead, and requeue its rows.

        Args:
            overdue: The rows that it was killed for, each with its time limit in seconds: they fail, and the others
                are blamed for nothing.
        """
        worker = Worker.objects.primary().filter(pk=number)
        lost = Counter(dict.fromkeys(worker.values_list("name", flat=True), 0))
        if not overdue:
            worker.delete()
        recovered = self._take_from_dead(BatchRow.objects.primary().held_by(number), lost, overdue)
        # Last where its rows are not to be blamed: whoever finds them without a worker blames them.
        worker.delete()
        self._tell(lost)
        return recovered

    def bury_gone(self) -> Recovered:
        """Remove the workers of this host whose process is gone, and requeue their rows."""
        recovered = Recovered()
        for number, pid in Worker.objects.primary().filter(host=socket.gethostname()).values_list("pk", "pid"):
            if not _is_running(pid):
                recovered += self.bury(number)
        return recovered

    def _is_needed(self) -> bool:
        """Return, in one statement, whether anybody has died."""
        workers = Worker.objects.primary()
        orphaned = BatchRow.objects.primary().orphaned(workers).values_list(Value(1)).order_by()
        return bool(workers.silent().values_list(Value(1)).order_by().union(orphaned)[:1])

    def _take_from_dead(
        self, rows: BatchRowQuerySet, lost: Counter[str], overdue: Mapping[int, float] = NONE
    ) -> Recovered:
        claims = list(rows.claims()[: ROUND_CLAIMS + 1])
        recovered = Recovered(is_all=len(claims) <= ROUND_CLAIMS)
        for claim, batch_id in claims[:ROUND_CLAIMS]:
            recovered += self._take(batch_id, claim, lost, overdue)
        if recovered.rows:
            self._store.notify()
            logger.warning(
                "%s rows of dead workers were requeued, %s have failed.", recovered.requeued, recovered.failed
            )
        return recovered

    def _take(self, batch_id: UUID, claim: int | None, lost: Counter[str], overdue: Mapping[int, float]) -> Recovered:
        """Fail those of the rows that a dead claim holds that have had their share, and requeue the others."""
        held = BatchRow.objects.primary().filter(batch=batch_id, claim=claim)
        taken = self._store.again(lambda: self._requeue(batch_id, claim, held, overdue))
        if taken is None:
            return Recovered(is_all=False)
        requeued, failed, names = taken
        lost.update(names)
        Batch.objects.primary().filter(pk=batch_id).wake(BatchRow.objects.primary().filter(batch=batch_id).due())
        return Recovered(requeued, failed, is_all=not held.exists())

    def _requeue(
        self, batch_id: UUID, claim: int | None, held: BatchRowQuerySet, overdue: Mapping[int, float]
    ) -> tuple[int, int, list[str]] | None:
        """Return how many rows were requeued, how many failed, and whose each was; None if the gate is shut."""
        with self._store.transaction():
            if not self._store.enter(batch_id):
                return None
            locked = list(held.lock_free(TRANSACTION_ROWS).values_list("pk", "done_by"))
            rows = held.filter(pk__in=[row_id for row_id, _ in locked])
            nput_off = rows.were_put_off().count()
            failed = _fail_overdue(rows, overdue) if overdue else _fail_worn_out(rows, _attempts(batch_id))
            if failed:
                ended = nput_off - rows.were_put_off().count()
                self._store.count_rows(batch_id, SLOT, nput_off=-ended, errors={ERRCODE: failed})
            return rows.requeue(claim), failed, [str(done_by) for _, done_by in locked]

    def _tell(self, lost: Counter[str]) -> None:
        for worker, rows in lost.items():
            logger.warning("Worker %s is dead; it had %s rows.", worker, rows)
            signals.worker_lost.send_robust(sender=Batch, worker=worker, rows=rows)


def _fail_worn_out(rows: BatchRowQuerySet, attempts: int) -> int:
    """Blame rows for the death of their worker, and fail those that have had their share of it."""
    rows.blame()
    failed = 0
    worn_out = rows.worn_out(attempts)
    for deaths in list(worn_out.order_by("lost").values_list("lost", flat=True).distinct()):
        message = engine_message(11, ERRCODE, f"The worker of the row died {deaths} times.")
        failed += worn_out.filter(lost=deaths).fail([message.as_json()], F("done_by"))
    return failed


def _fail_overdue(rows: BatchRowQuerySet, overdue: Mapping[int, float]) -> int:
    """Fail the rows that their worker was killed for."""
    failed = 0
    for row_id, limit in overdue.items():
        message = engine_message(12, ERRCODE, f"The row took longer than its limit of {limit:g} s.")
        failed += rows.filter(pk=row_id).fail([message.as_json()], F("done_by"))
    return failed


def _attempts(batch_id: UUID) -> int:
    """Return how often a row of a batch may lose its worker, as far as this process knows its op."""
    kind, app, op = Batch.objects.primary().filter(pk=batch_id).values_list("kind", "app", "op").get()
    registration = registry.find(Kind(kind), app, op)
    return (Options() if registration is None else registration.options).attempts


def _is_running(pid: int) -> bool:
    try:
        # Somebody else's process is one, too.
        with suppress(PermissionError):
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

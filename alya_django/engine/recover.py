"""Requeue the rows of workers that died. No user code runs here, and no batch is finished."""

from __future__ import annotations

import logging
from collections import Counter
from typing import NamedTuple
from uuid import UUID

from django.db.models import F

from alya_django import signals
from alya_django.db import Database
from alya_django.engine.process import engine_message
from alya_django.models import Batch, BatchRow, Worker
from alya_django.querysets import BatchRowQuerySet

logger = logging.getLogger("alya_django.engine")

ROUND_CLAIMS = 200
TRANSACTION_ROWS = 1_000
MAX_ATTEMPTS = 3
# Who recovers has no number of its own; the slots are there so that workers do not meet.
SLOT = 0


class Recovered(NamedTuple):
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

    def __add__(self, other: Recovered) -> Recovered:  # type: ignore[override]  # no tuple is meant
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
        workers = Worker.objects.primary()
        lost = Counter(dict.fromkeys(workers.remove_silent(), 0))
        recovered = self._take_from_dead(BatchRow.objects.primary().orphaned(workers), lost)
        self._tell(lost)
        return recovered

    def bury(self, number: int) -> Recovered:
        """Remove one worker that is known to be dead, and requeue its rows."""
        worker = Worker.objects.primary().filter(pk=number)
        lost = Counter(dict.fromkeys(worker.values_list("name", flat=True), 0))
        worker.delete()
        recovered = self._take_from_dead(BatchRow.objects.primary().of_worker(number), lost)
        self._tell(lost)
        return recovered

    def _take_from_dead(self, rows: BatchRowQuerySet, lost: Counter[str]) -> Recovered:
        claims = list(rows.claims()[: ROUND_CLAIMS + 1])
        recovered = Recovered(is_all=len(claims) <= ROUND_CLAIMS)
        for claim, batch_id in claims[:ROUND_CLAIMS]:
            recovered += self._take(batch_id, claim, lost)
        if recovered.rows:
            logger.warning(
                "%s rows of dead workers were requeued, %s have failed.", recovered.requeued, recovered.failed
            )
        return recovered

    def _take(self, batch_id: UUID, claim: int | None, lost: Counter[str]) -> Recovered:
        """Blame the rows that a dead claim holds, fail those that have had their share, and requeue the others."""
        with self._store.transaction():
            if not self._store.enter(batch_id):
                return Recovered(is_all=False)
            held = BatchRow.objects.primary().filter(batch=batch_id, claim=claim)
            locked = list(held.lock_free(TRANSACTION_ROWS).values_list("pk", "done_by"))
            rows = held.filter(pk__in=[row_id for row_id, _ in locked])
            rows.blame()
            failed = self._fail_worn_out(batch_id, rows)
            requeued = rows.requeue(claim)
        lost.update(str(done_by) for _, done_by in locked)
        Batch.objects.primary().filter(pk=batch_id).wake(BatchRow.objects.primary().filter(batch=batch_id).due())
        return Recovered(requeued, failed, is_all=not held.exists())

    def _fail_worn_out(self, batch_id: UUID, rows: BatchRowQuerySet) -> int:
        failed = 0
        worn_out = rows.worn_out(MAX_ATTEMPTS)
        for deaths in list(worn_out.order_by("lost").values_list("lost", flat=True).distinct()):
            message = engine_message(11, "processing_error", f"The worker of the row died {deaths} times.")
            failed += worn_out.filter(lost=deaths).fail([message.as_json()], F("done_by"))
        if failed:
            self._store.count_rows(batch_id, SLOT, nfailed=failed)
        return failed

    def _tell(self, lost: Counter[str]) -> None:
        for worker, rows in lost.items():
            logger.warning("Worker %s is dead; it had %s rows.", worker, rows)
            signals.worker_lost.send_robust(sender=Batch, worker=worker, rows=rows)

"""Write what became of rows, each under the claim that held it: a late outcome finds nothing to write to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from alya_django.answers import ErrorMessage
from alya_django.db import Database, RowEnding
from alya_django.models import BatchProgress, BatchRow

GATE_SECONDS = 0.01


class Recorder:
    """Record for one worker, counting in the worker's progress slot in the same transaction."""

    def __init__(self, store: Database, *, number: int, name: str) -> None:
        self._store = store
        self._name = name
        self._slot = number % BatchProgress.SLOTS

    def record(self, batch_id: UUID, claim: int, endings: Sequence[RowEnding]) -> int:
        """End rows and return how many the claim still held; the others belong to somebody else by now."""
        if not endings:
            return 0
        with self.gate(batch_id):
            return self._store.record_rows(batch_id, self._slot, claim, endings)

    def requeue(self, batch_id: UUID, claim: int, *, delay: float = 0.0) -> int:
        """Give back the rows that a claim still holds, blaming none."""
        with self.gate(batch_id):
            return BatchRow.objects.primary().requeue(claim, delay=timedelta(seconds=delay))

    def fail_rest(self, batch_id: UUID, message: ErrorMessage, *, claim: int | None = None) -> int:
        """Fail a batch's queued rows, and those that a claim holds, for a reason that is none of theirs."""
        with self.gate(batch_id):
            rest = BatchRow.objects.primary().filter(batch=batch_id).unclaimed_or(claim)
            nfailed = rest.fail([message.as_json()], self._name)
            if nfailed:
                self._store.count_rows(batch_id, self._slot, nfailed=nfailed)
        return nfailed

    @contextmanager
    def gate(self, batch_id: UUID) -> Iterator[None]:
        """Open a transaction inside the batch's gate; while an abort keeps it shut, wait outside."""
        while True:
            with self._store.transaction():
                if self._store.enter(batch_id):
                    yield
                    return
            time.sleep(GATE_SECONDS)

"""Write what became of rows, each under the claim that held it: a late outcome finds nothing to write to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import MappingProxyType
from uuid import UUID

from alya_django.answers import ErrorMessage
from alya_django.db import Database, RowEnding
from alya_django.engine.patience import Patience
from alya_django.models import BatchProgress, BatchRow

GATE_SECONDS = 0.01
GATE_STOP_SECONDS = 5.0
NONE: Mapping[float, Sequence[int]] = MappingProxyType({})


class GateShut(Exception):
    """The worker is to stop, and an abort that has not ended keeps it from what it holds."""


class Recorder:
    """
    Record for one worker, counting in the worker's progress slot in the same transaction.

    While the database is away, what is to be recorded is kept and offered again, with the patience of the worker.
    """

    def __init__(
        self,
        store: Database,
        *,
        number: int,
        name: str,
        patience: Patience | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._number = number
        self._name = name
        self._patience = patience
        self._is_stopping = is_stopping
        self._slot = number % BatchProgress.SLOTS

    def record(
        self, batch_id: UUID, claim: int, endings: Sequence[RowEnding], put_off: Mapping[float, Sequence[int]] = NONE
    ) -> int:
        """
        End rows and return how many the claim still held; the others belong to somebody else by now.

        Args:
            put_off: Rows to be processed again, by the seconds that they are to wait; they count as held.
        """
        if not (endings or put_off):
            return 0
        return self.insist(lambda: self._record(batch_id, claim, endings, put_off))

    def write(
        self, batch_id: UUID, claim: int, endings: Sequence[RowEnding], put_off: Mapping[float, Sequence[int]] = NONE
    ) -> int:
        """Record inside the gate, in the transaction that is open."""
        newly = again = 0
        for delay, row_ids in put_off.items():
            first, others = BatchRow.objects.primary().put_off(claim, row_ids, timedelta(seconds=delay))
            newly, again = newly + first, again + others
        if newly:
            self._store.count_rows(batch_id, self._slot, nput_off=newly)
        ended = self._store.record_rows(batch_id, self._slot, claim, endings) if endings else 0
        return ended + newly + again

    def insist(self, act: Callable[[], int]) -> int:
        """Act, again after a deadlock, and while the database is away; each time the claim is asked anew."""
        if self._patience is None:
            return self._store.again(act)
        return self._patience.insist(lambda: self._store.again(act))

    def requeue(self, batch_id: UUID, claim: int, *, delay: float = 0.0) -> int:
        """Give back the rows that a claim still holds, blaming none."""
        return self._store.again(lambda: self._requeue(batch_id, claim, delay))

    def requeue_all(self) -> int:
        """Give back whatever rows this worker holds, blaming none."""
        rows = BatchRow.objects.primary().held_by(self._number)
        held = set(rows.values_list("batch_id", "claim"))
        return sum(self.requeue(batch_id, claim) for batch_id, claim in held if claim is not None)

    def fail_rest(self, batch_id: UUID, message: ErrorMessage, *, claim: int | None = None) -> int:
        """Fail a batch's queued rows, and those that a claim holds, for a reason that is none of theirs."""
        return self._store.again(lambda: self._fail_rest(batch_id, message, claim))

    @contextmanager
    def gate(self, batch_id: UUID) -> Iterator[None]:
        """
        Open a transaction inside the batch's gate; while an abort keeps it shut, wait outside.

        A worker that is to stop waits for a few seconds only. Then the rows stay as they are: the abort ends them,
        or, if it is rolled back, those who recover the rows of workers that have gone find them.
        """
        patient_until = time.monotonic() + GATE_STOP_SECONDS
        while True:
            with self._store.transaction():
                if self._store.enter(batch_id):
                    yield
                    return
            if self._is_stopping() and time.monotonic() >= patient_until:
                raise GateShut(f"The abort of {batch_id} does not end: its rows are left as they are.")
            time.sleep(GATE_SECONDS)

    def _record(
        self, batch_id: UUID, claim: int, endings: Sequence[RowEnding], put_off: Mapping[float, Sequence[int]]
    ) -> int:
        with self.gate(batch_id):
            return self.write(batch_id, claim, endings, put_off)

    def _requeue(self, batch_id: UUID, claim: int, delay: float) -> int:
        with self.gate(batch_id):
            requeued = BatchRow.objects.primary().requeue(claim, delay=timedelta(seconds=delay))
            if requeued and not delay:
                self._store.notify()
        return requeued

    def _fail_rest(self, batch_id: UUID, message: ErrorMessage, claim: int | None) -> int:
        with self.gate(batch_id):
            rest = BatchRow.objects.primary().filter(batch=batch_id).unclaimed_or(claim)
            messages = [message.as_json()]
            nput_off = rest.were_put_off().fail(messages, self._name)
            nfailed = nput_off + rest.fail(messages, self._name)
            if nfailed:
                errors = {message.errcode: nfailed}
                self._store.count_rows(batch_id, self._slot, nput_off=-nput_off, errors=errors)
        return nfailed

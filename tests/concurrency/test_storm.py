"""Those who change the same rows of a batch, all at once and again and again."""

from __future__ import annotations

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Condition

import pytest
from django.db import connection, connections

from alya_django import AlreadyDone, Status, batches, register_batch_processor
from alya_django.db import RowEnding
from alya_django.engine.recover import Recovery
from alya_django.models import database
from tests.concurrency.connections import DEADLINE_SECONDS
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]

ROUNDS = 50
ROWS = 3_000
CHUNK_ROWS = 500
CHUNKS = ROWS // CHUNK_ROWS
FLUSH_ROWS = 50


@pytest.fixture
def chunks(make_claimer):
    """Return the rows of a new batch in the hands of workers that nobody knows, each with a chunk of its own."""
    register_batch_processor("app", "op", echo, chunk_rows=CHUNK_ROWS)

    def claim():
        batches.submit("app", "op", range(ROWS))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("alya_django.engine.pace.Pace.chunk_rows", lambda self, registration: CHUNK_ROWS)
            return [make_claimer(number).take() for number in range(1, CHUNKS + 1)]

    return claim


class Meter:
    """How many rows have been recorded; others wait until there are enough, or all who record have ended."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._recorded = 0
        self._is_over = False

    def add(self, rows: int) -> int:
        with self._changed:
            self._recorded += rows
            self._changed.notify_all()
        return rows

    def end(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def wait_for(self, rows: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._is_over or self._recorded >= rows, DEADLINE_SECONDS)


@pytest.mark.slow
class StormTests:
    @pytest.mark.rule("ABT-2", "ABT-5", "REC-5", "INV-4", "INV-11")
    def test_abort_recovery_and_record_on_the_same_rows(self, chunks, make_recorder) -> None:
        """No deadlock reaches anybody, whoever comes first, and each row ends once."""

        def record(number, chunk, meter):
            # In no order of the rows, in several transactions: as rows that threads process end.
            rows = random.sample(chunk.rows, CHUNK_ROWS)
            endings = [ending(row) for row in rows]
            flushes = [endings[first : first + FLUSH_ROWS] for first in range(0, CHUNK_ROWS, FLUSH_ROWS)]
            recorder = make_recorder(number)
            return sum(meter.add(recorder.record(chunk.batch.pk, chunk.claim, flush)) for flush in flushes)

        def recover(after_rows, meter):
            meter.wait_for(after_rows)
            rows, is_all = 0, False
            while not is_all:
                round_ = Recovery(database()).recover()
                rows, is_all = rows + round_.rows, round_.is_all
            return rows

        def abort(batch_id, after_rows, meter):
            meter.wait_for(after_rows)
            try:
                return batches.abort(batch_id).naborted
            except AlreadyDone:
                # All rows have been recorded while it waited for the gate.
                return 0

        totals = Counter()
        with ThreadPoolExecutor(CHUNKS + 3) as pool:
            for _ in range(ROUNDS):
                claimed, meter = chunks(), Meter()
                batch_id = claimed[0].batch.pk
                moments = [random.randrange(ROWS // 2) for _ in range(2)] + [random.randrange(ROWS)]
                recoveries = [pool.submit(apart, recover, moment, meter) for moment in moments[:2]]
                aborted = pool.submit(apart, abort, batch_id, moments[2], meter)
                records = [pool.submit(apart, record, *numbered, meter) for numbered in enumerate(claimed, start=1)]
                recorded = sum(done.result(DEADLINE_SECONDS) for done in records)
                meter.end()
                assert recorded + aborted.result(DEADLINE_SECONDS) == ROWS
                recovered = sum(done.result(DEADLINE_SECONDS) for done in recoveries)
                totals.update(recorded=recorded, recovered=recovered, aborted=ROWS - recorded)
        assert all(totals[what] for what in ("recorded", "recovered", "aborted")), totals
        check_invariants()


def ending(row):
    """Return the success or, every other time, a failure with one of many errcodes."""
    messages = json.dumps([{"msgid": 0, "errcode": f"code_{random.randrange(300)}"}])
    failure = RowEnding(row.id, Status.FAILED, None, messages, None)
    return random.choice((RowEnding(row.id, Status.SUCCESS, "{}", None, None), failure))


def apart(act, *arguments):
    """Act on a connection of its own, which takes no time when the moment has come."""
    connection.ensure_connection()
    try:
        return act(*arguments)
    finally:
        connections.close_all()

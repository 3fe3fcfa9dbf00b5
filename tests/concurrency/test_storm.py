"""Those who change the same rows of a batch, all at once and again and again."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connections

from alya_django import AlreadyDone, Status, batches, register_batch_processor
from alya_django.db import RowEnding
from alya_django.engine.recover import Recovery
from alya_django.models import BatchRow, database
from alya_django.testing import drain
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


@pytest.mark.slow
class StormTests:
    @pytest.mark.rule("ABT-2", "ABT-5", "REC-5", "INV-4")
    def test_abort_recovery_and_record_on_the_same_rows(self, chunks, make_recorder) -> None:
        """No deadlock reaches anybody, whoever comes first, and each row ends once."""
        together = Barrier(CHUNKS + 3)

        def at_once(act):
            try:
                together.wait(DEADLINE_SECONDS)
                return act()
            finally:
                connections.close_all()

        def record(number, chunk):
            # In no order of the rows, in some transactions: as rows that threads process end.
            rows = random.sample(chunk.rows, CHUNK_ROWS)
            endings = [RowEnding(row.id, Status.SUCCESS, "{}", None, None) for row in rows]
            flushes = range(0, CHUNK_ROWS, FLUSH_ROWS)
            recorder = make_recorder(number)
            return sum(recorder.record(chunk.batch.pk, chunk.claim, endings[n : n + FLUSH_ROWS]) for n in flushes)

        def abort(batch_id):
            try:
                return batches.abort(batch_id).naborted
            except AlreadyDone:
                return 0

        with ThreadPoolExecutor(CHUNKS + 3) as pool:
            for _ in range(ROUNDS):
                claimed = chunks()
                batch_id = claimed[0].batch.pk
                records = [
                    pool.submit(at_once, lambda number=number, chunk=chunk: record(number, chunk))
                    for number, chunk in enumerate(claimed, start=1)
                ]
                recoveries = [pool.submit(at_once, lambda: Recovery(database()).recover()) for _ in range(2)]
                aborted = pool.submit(at_once, lambda batch_id=batch_id: abort(batch_id))
                recorded = sum(done.result(DEADLINE_SECONDS) for done in records)
                for recovery in recoveries:
                    recovery.result(DEADLINE_SECONDS)
                ended = BatchRow.objects.filter(batch=batch_id, status=Status.SUCCESS).count()
                assert ended == recorded
                assert aborted.result(DEADLINE_SECONDS) in (0, ROWS - recorded)
        check_invariants()
        drain()
        check_invariants()

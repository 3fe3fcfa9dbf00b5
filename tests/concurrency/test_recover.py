from __future__ import annotations

import pytest

from alya_django import Row, Status, batches, register_batch_processor
from alya_django.db import RowEnding
from alya_django.engine.recover import Recovered, Recovery
from alya_django.models import BatchRow, database
from alya_django.models import Worker as WorkerRecord
from alya_django.testing import drain
from tests.concurrency.connections import (
    DEADLINE_SECONDS,
    elsewhere,
    open_transaction,
    somebody_waits_for_a_lock,
    wait_until,
)
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


@pytest.fixture
def batch_id():
    register_batch_processor("app", "op", echo)
    return batches.submit("app", "op", range(5))


class RecoveryTests:
    @pytest.mark.rule("REC-4", "REC-7")
    def test_a_beat_in_flight_keeps_its_worker(self) -> None:
        """A silent worker that is just being heard of again is not removed, and nobody waits."""
        WorkerRecord.objects.create(name="late", host="host", pid=1, version="1", heartbeat="2000-01-01T00:00Z")
        with open_transaction(lambda: WorkerRecord.objects.all().beat(1.0)):
            Recovery(database()).recover()
        assert WorkerRecord.objects.exists()
        Recovery(database()).recover()
        assert WorkerRecord.objects.exists()

    @pytest.mark.rule("REC-1", "REC-5")
    def test_a_late_record_in_flight_wins(self, batch_id, make_claimer, make_recorder) -> None:
        """What is being recorded is locked: it is left to the next round, by which it has ended."""
        chunk = make_claimer(7).take()
        endings = [RowEnding(row.id, Status.SUCCESS, "{}", None, None) for row in chunk.rows[:2]]
        with open_transaction(lambda: make_recorder(7).record(batch_id, chunk.claim, endings)) as recorded:
            assert recorded == 2
            assert Recovery(database()).recover() == Recovered(3, 0, False)
        assert Recovery(database()).recover() == Recovered(0, 0, True)
        assert BatchRow.objects.filter(status=Status.SUCCESS).count() == 2
        check_invariants()

    @pytest.mark.rule("REC-5")
    def test_a_late_record_that_meets_recovery_is_refused(self, batch_id, make_claimer, make_recorder) -> None:
        """The other order: the record waits for the recovery, and then holds no row any more."""
        chunk = make_claimer(7).take()
        endings = [RowEnding(row.id, Status.SUCCESS, "{}", None, None) for row in chunk.rows]
        with open_transaction(Recovery(database()).recover) as recovered:
            late = elsewhere(lambda: make_recorder(7).record(batch_id, chunk.claim, endings))
            wait_until(somebody_waits_for_a_lock, "the record waits for the recovery")
        assert (recovered, late.result(DEADLINE_SECONDS)) == (Recovered(5, 0, True), 0)
        assert drain() == 5
        check_invariants()

    @pytest.mark.rule("REC-5")
    def test_a_late_record_is_refused_also_when_another_has_the_rows(
        self, batch_id, make_claimer, make_recorder
    ) -> None:
        """The rows are in progress again, under a claim that is not the late one's."""
        chunk = make_claimer(7).take()
        Recovery(database()).recover()
        again = make_claimer(8).take()
        endings = [RowEnding(row.id, Status.SUCCESS, '"late"', None, None) for row in chunk.rows]
        assert make_recorder(7).record(batch_id, chunk.claim, endings) == 0
        assert make_recorder(8).record(batch_id, again.claim, endings[: len(again.rows)]) == len(again.rows)
        check_invariants()

    @pytest.mark.rule("REC-4")
    def test_a_round_after_each_row_of_a_live_worker_takes_nothing(self) -> None:
        """However long its row, a worker that beats keeps what it holds."""
        found = []

        def look(row: Row) -> None:
            found.append(elsewhere(Recovery(database()).recover).result(DEADLINE_SECONDS))

        register_batch_processor("app", "op", look)
        batch_id = batches.submit("app", "op", range(20))
        assert drain() == 20
        assert set(found) == {Recovered(0, 0, True)}
        assert set(BatchRow.objects.filter(batch=batch_id).values_list("attempts", "lost")) == {(1, 0)}
        check_invariants()

    @pytest.mark.rule("REC-1", "INV-4")
    def test_an_abort_that_meets_recovery_takes_the_requeued_rows(self, batch_id, make_claimer) -> None:
        """The other order: the abort waits at the gate, and then aborts what was requeued."""
        make_claimer(7).take()
        with open_transaction(Recovery(database()).recover) as recovered:
            aborted = elsewhere(lambda: batches.abort(batch_id))
            wait_until(somebody_waits_for_a_lock, "the abort waits for the recovery")
        assert recovered == Recovered(5, 0, True)
        assert aborted.result(DEADLINE_SECONDS).naborted == 5
        check_invariants()

    @pytest.mark.rule("REC-3")
    def test_a_claim_in_flight_is_found_in_the_next_round(self, batch_id, make_claimer) -> None:
        """A worker that is removed while it claims leaves nothing behind."""
        with open_transaction(make_claimer(7).take):
            assert Recovery(database()).recover() == Recovered(0, 0, True)
        assert Recovery(database()).recover() == Recovered(5, 0, True)
        check_invariants()

    @pytest.mark.rule("REC-1")
    def test_an_abort_in_flight_keeps_it_out(self, batch_id, make_claimer) -> None:
        """The gate is shut: recovery passes on, and finds nothing once the batch is aborted."""
        make_claimer(7).take()
        with open_transaction(lambda: batches.abort(batch_id)):
            assert Recovery(database()).recover() == Recovered(0, 0, False)
        assert Recovery(database()).recover() == Recovered(0, 0, True)
        assert batches.status(batch_id).naborted == 5
        check_invariants()

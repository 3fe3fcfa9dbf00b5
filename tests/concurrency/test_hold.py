from __future__ import annotations

import pytest

from alya_django import Status, batches, register_batch_processor
from alya_django.db import RowEnding
from alya_django.engine.hold import Holder
from alya_django.engine.process import Processed
from alya_django.models import Batch
from tests.concurrency.connections import elsewhere, open_transaction, somebody_waits_for_a_lock, wait_until
from tests.invariants import check_invariants
from tests.processors import broken

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


@pytest.fixture
def batch_id():
    register_batch_processor("app", "op", broken, max_failed=3, chunk_rows=2)
    return batches.submit("app", "op", range(8))


def failures(chunk) -> list[Processed]:
    return [Processed(RowEnding(row.id, Status.FAILED, None, "[]", None)) for row in chunk.rows]


def endings(chunk) -> list[RowEnding]:
    return [processed.ending for processed in failures(chunk)]


class HoldTests:
    @pytest.mark.rule("HLD-1")
    def test_the_last_to_commit_sees_the_failures_of_all(self, batch_id, make_claimer, make_recorder) -> None:
        """Neither of two workers has too many alone: the one whose record is committed last holds the batch."""
        first, second = make_claimer(1).take(), make_claimer(2).take()
        with open_transaction(lambda: make_recorder(1).record(batch_id, first.claim, endings(first))):
            late = elsewhere(lambda: make_recorder(2).record(batch_id, second.claim, endings(second)))
            wait_until(somebody_waits_for_a_lock, "the second waits")
            assert not Holder().look(second, failures(second))
        assert late.result(20) == 2
        assert Holder().look(second, failures(second))
        assert batches.status(batch_id).held
        check_invariants()

    def test_two_at_once_hold_it_once(self, batch_id, make_claimer, make_recorder) -> None:
        """Who waits for the other's hold finds that it is done."""
        first, second = make_claimer(1).take(), make_claimer(2).take()
        for number, chunk in ((1, first), (2, second)):
            make_recorder(number).record(batch_id, chunk.claim, endings(chunk))
        with open_transaction(lambda: Holder().look(first, failures(first))) as held:
            late = elsewhere(lambda: Holder().look(second, failures(second)))
            wait_until(somebody_waits_for_a_lock, "the second waits")
        assert (held, late.result(20)) == (True, False)

    @pytest.mark.rule("HLD-5")
    def test_a_release_in_flight_wins(self, batch_id, make_claimer, make_recorder) -> None:
        """What was counted before the release does not hold the batch after it."""
        first, second = make_claimer(1).take(), make_claimer(2).take()
        make_recorder(1).record(batch_id, first.claim, endings(first))
        make_recorder(2).record(batch_id, second.claim, endings(second))
        Holder().look(first, failures(first))
        with open_transaction(lambda: batches.release(batch_id)):
            assert not Holder().look(second, failures(second))
        assert not Holder().look(second, failures(second))
        assert Batch.objects.get(pk=batch_id).nforgiven == 4

    @pytest.mark.rule("HLD-4")
    def test_an_abort_in_flight_wins(self, batch_id, make_claimer, make_recorder) -> None:
        """A batch that was aborted meanwhile is not held."""
        first, second = make_claimer(1).take(), make_claimer(2).take()
        make_recorder(1).record(batch_id, first.claim, endings(first))
        make_recorder(2).record(batch_id, second.claim, endings(second))
        with open_transaction(lambda: batches.abort(batch_id)):
            late = elsewhere(lambda: Holder().look(second, failures(second)))
            wait_until(somebody_waits_for_a_lock, "the hold waits")
        assert late.result(20) is False
        assert Batch.objects.get(pk=batch_id).held_at is None
        check_invariants()

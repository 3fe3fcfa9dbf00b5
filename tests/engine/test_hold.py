from __future__ import annotations

import logging
from uuid import UUID

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from alya_django import InvalidState, RowFailed, Status, batches, register_batch_processor, status_cache
from alya_django.db import RowEnding
from alya_django.engine.hold import Holder
from alya_django.engine.lookout import Lookout
from alya_django.engine.process import Processed
from alya_django.engine.worker import Worker
from alya_django.models import Batch, BatchRow, database
from alya_django.models import Worker as WorkerRecord
from alya_django.testing import drain, isolated_registry
from tests.invariants import check_invariants
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


def fail(row: object) -> None:
    raise RowFailed("no")


def submit(rows: int = 12, *, max_failed: float | None = 2, chunk_rows: int = 3, processor=fail, **options) -> UUID:
    register_batch_processor("app", "op", processor, max_failed=max_failed, chunk_rows=chunk_rows, **options)
    return batches.submit("app", "op", range(rows))


def ended(batch_id: UUID) -> int:
    summary = batches.status(batch_id)
    return summary.nsuccess + summary.nfailed


def record(make_recorder, chunk, status: Status, number: int = 1) -> list[Processed]:
    """End the rows of a chunk and return what the worker hands on."""
    done = [Processed(RowEnding(row.id, status, "{}", None, None)) for row in chunk.rows]
    make_recorder(number).record(chunk.batch.pk, chunk.claim, [processed.ending for processed in done])
    return done


class HoldTests:
    @pytest.mark.rule("HLD-1")
    def test_more_failures_than_may_hold_the_batch(self, caplog) -> None:
        """The third failure of two that may be: the state stays, the reason is kept and logged once."""
        batch_id = submit()
        with caplog.at_level(logging.WARNING, "alya_django.engine"):
            assert drain() == 3
        summary = batches.status(batch_id)
        assert (summary.status, summary.held, summary.try_later) == (Status.IN_PROGRESS, True, True)
        batch = Batch.objects.get(pk=batch_id)
        assert batch.held_at is not None
        assert batch.hold_reason == "3 of 12 rows have failed, and 2 may."
        assert [text for text in caplog.messages if "is held" in text] == [
            f"app/op {batch_id} is held: 3 of 12 rows have failed, and 2 may."
        ]
        check_invariants()

    @pytest.mark.rule("HLD-1")
    def test_as_many_as_may_do_not(self) -> None:
        """Six of twelve rows fail and six may: the batch ends."""
        batch_id = submit(max_failed=6, processor=fail_odd)
        assert drain() == 12
        assert batches.status(batch_id).status is Status.FAILED

    @pytest.mark.rule("HLD-1")
    def test_none_may(self) -> None:
        """With 0 the first failure holds."""
        assert batches.status(submit(max_failed=0)).held is False
        assert drain() == 3

    @pytest.mark.rule("HLD-1")
    def test_a_share_is_of_all_rows(self) -> None:
        """A quarter of twelve rows may fail, the fourth holds, and the reason says the share."""
        batch_id = submit(max_failed=0.25, chunk_rows=1)
        assert drain() == 4
        assert Batch.objects.get(pk=batch_id).hold_reason == "4 of 12 rows have failed, and 25 % may."

    @pytest.mark.rule("HLD-1")
    def test_an_atomic_op_is_held_too(self) -> None:
        """It makes no difference in which transaction rows fail."""
        batch_id = submit(atomic=True)
        drain()
        assert batches.status(batch_id).held

    @pytest.mark.rule("HLD-2")
    def test_nothing_is_claimed_from_it(self, make_claimer) -> None:
        """A held batch costs no claim, whether its rows were never claimed or are due again."""
        batch_id = submit()
        drain()
        BatchRow.objects.filter(batch=batch_id, line=12).update(retry_at=Now())
        assert drain() == 0
        assert make_claimer(5).take() is None

    @pytest.mark.rule("HLD-2")
    def test_a_batch_held_since_it_was_chosen_is_left(self, make_claimer) -> None:
        """The statement that claims asks once more."""
        batch_id = submit()
        claimer = make_claimer(5)
        claimer.take()
        Batch.objects.filter(pk=batch_id).hold("no", nforgiven=0)
        candidate = type("Candidate", (), {"id": batch_id, "turn": 0.0, "status": Status.IN_PROGRESS})
        assert claimer._take_rows(candidate, rows_max=10) is None

    @pytest.mark.rule("HLD-2")
    def test_keeps_no_worker_awake(self) -> None:
        """Rows of a held batch that are due are no work, drained or not."""
        batch_id = submit()
        drain()
        BatchRow.objects.filter(batch=batch_id, status=Status.QUEUED).update(retry_at=Now())
        Batch.objects.filter(pk=batch_id).update(drained=True)
        with Worker() as worker:
            lookout = Lookout(
                database(),
                number=WorkerRecord.objects.get().pk,
                registrations=worker._scope.registrations(),
                is_usable=lambda app: True,
            )
            assert not lookout.sees_work()
            assert worker._sweeper.look() == 0

    @pytest.mark.rule("HLD-3")
    def test_the_last_rows_hold_nothing(self) -> None:
        """Where no row is left to be claimed the batch ends as any other."""
        batch_id = submit(rows=3)
        drain()
        batch = Batch.objects.get(pk=batch_id)
        assert (batch.status, batch.held_at) == (Status.FAILED, None)

    @pytest.mark.rule("HLD-3")
    def test_rows_in_flight_end(self, make_claimer, make_recorder, make_finisher) -> None:
        """What was claimed before the hold is recorded; a batch that thereby is complete is finished."""
        batch_id = submit(rows=6)
        first, second = make_claimer(1).take(), make_claimer(2).take()
        make_recorder(2).requeue(batch_id, second.claim)
        done = record(make_recorder, first, Status.FAILED)
        assert Holder().look(first, done)
        BatchRow.objects.filter(batch=batch_id, status=Status.QUEUED).update(
            status=Status.IN_PROGRESS, claim=second.claim, done_by="worker-2", retry_at=None
        )
        record(make_recorder, second, Status.SUCCESS, 2)
        assert make_finisher().finish(batch_id)
        summary = batches.status(batch_id)
        assert (summary.status, summary.held, summary.nsuccess) == (Status.FAILED, False, 3)
        assert Batch.objects.get(pk=batch_id).hold_reason
        check_invariants()

    @pytest.mark.rule("HLD-1")
    def test_rows_that_are_due_again_are_rows_to_be_claimed(self, make_claimer, make_recorder) -> None:
        """A batch is held also where all its other rows were claimed once."""
        submit(rows=6)
        first, second = make_claimer(1).take(), make_claimer(2).take()
        make_recorder(2).requeue(second.batch.pk, second.claim)
        assert Holder().look(first, record(make_recorder, first, Status.FAILED))

    def test_is_held_once(self, make_claimer, make_recorder) -> None:
        """Who comes second finds it held and changes nothing."""
        submit()
        first, second = make_claimer(1).take(), make_claimer(2).take()
        assert Holder().look(first, record(make_recorder, first, Status.FAILED))
        assert not Holder().look(second, record(make_recorder, second, Status.FAILED))

    def test_forgets_what_is_cached(self) -> None:
        """Readers see at once that it is held, and that it is not."""
        batch_id = submit()
        batches.status(batch_id)
        drain()
        assert status_cache.load(batch_id) is None
        assert batches.status(batch_id).held
        batches.release(batch_id)
        assert not batches.status(batch_id).held

    def test_costs_nothing_where_nothing_failed(self, make_claimer, make_recorder, django_assert_num_queries) -> None:
        """Without ``max_failed``, or without a failure, no statement is made."""
        submit()
        chunk = make_claimer(1).take()
        done = record(make_recorder, chunk, Status.SUCCESS)
        put_off = [done[0]._replace(ending=done[0].ending._replace(status=Status.FAILED), delay=1.0)]
        with django_assert_num_queries(0):
            assert not Holder().look(chunk, done)
            assert not Holder().look(chunk, put_off)

    @pytest.mark.rule("RUN-2")
    def test_makes_as_many_statements_for_many_rows(self, make_claimer, make_recorder) -> None:
        """One while the failures are few, four at most."""
        submit(chunk_rows=3, rows=30, max_failed=4)
        counts = []
        for number in (1, 2):
            chunk = make_claimer(number).take()
            done = record(make_recorder, chunk, Status.FAILED, number)
            with CaptureQueriesContext(connection) as captured:
                Holder().look(chunk, done)
            counts.append(len(captured))
        assert counts == [1, 3]

    @pytest.mark.rule("HLD-4")
    def test_nobody_gives_it_up(self, settings) -> None:
        """It waits to be released also while no worker knows its op."""
        batch_id = submit()
        drain()
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        with isolated_registry():
            drain()
        assert batches.status(batch_id).status is Status.IN_PROGRESS

    @pytest.mark.rule("HLD-4")
    def test_can_be_aborted(self) -> None:
        """An abort ends it; why it was held is kept."""
        batch_id = submit()
        drain()
        summary = batches.abort(batch_id)
        assert (summary.status, summary.held, summary.naborted) == (Status.ABORTED, False, 9)
        assert Batch.objects.get(pk=batch_id).hold_reason
        check_invariants()


class ReleaseTests:
    @pytest.mark.rule("HLD-5")
    def test_lets_it_go_on_until_as_many_have_failed_again(self) -> None:
        """Only failures after the release count."""
        batch_id = submit()
        drain()
        assert batches.release(batch_id) == 12
        batch = Batch.objects.get(pk=batch_id)
        assert (batch.held_at, batch.hold_reason, batch.nforgiven, batch.drained) == (None, "", 3, False)
        drain()
        assert (ended(batch_id), batches.status(batch_id).held) == (6, True)
        for _ in range(2):
            batches.release(batch_id)
            drain()
        assert batches.status(batch_id).status is Status.FAILED
        check_invariants()

    @pytest.mark.rule("HLD-5")
    def test_what_was_counted_before_it_does_not_hold_again(self) -> None:
        """A worker that counted before the release, and comes after it, is too late."""
        batch_id = submit()
        drain()
        batches.release(batch_id)
        assert Batch.objects.filter(pk=batch_id).hold("late", nforgiven=0) == 0

    @pytest.mark.rule("HLD-5")
    def test_a_running_batch_cannot_be_released(self) -> None:
        """What is not held and has started is not waiting for anybody."""
        batch_id = submit()
        drain()
        batches.release(batch_id)
        with pytest.raises(InvalidState, match="is not waiting: its status is in progress"):
            batches.release(batch_id)

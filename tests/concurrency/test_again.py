from __future__ import annotations

from concurrent.futures import Future

import pytest
from django.db import OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected, LockNotAvailable, SerializationFailure

from alya_django import Status, batches, register_batch_processor, register_slow_query_processor, slow_queries
from alya_django.answers import ErrorMessage
from alya_django.db import PostgreSQL, RowEnding
from alya_django.engine.claim import Claimer
from alya_django.engine.record import Recorder
from alya_django.engine.recover import Recovered, Recovery
from alya_django.models import Batch, BatchRow, database
from alya_django.querysets import BatchQuerySet, BatchRowQuerySet
from alya_django.status import Kind
from alya_django.testing import drain
from tests.concurrency.connections import DEADLINE_SECONDS, elsewhere, somebody_waits_for_a_lock, wait_until
from tests.invariants import check_invariants
from tests.processors import echo, fail_odd

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


@pytest.fixture
def meets_deadlock(chunk, monkeypatch):
    """
    Let the first call of a method meet a deadlock; return how often it was called.

    Another connection has locked the rows, and wants what the caller has locked on its way to the method. It waits
    first and far longer than the caller, so it is the caller's transaction that the server undoes.
    """
    others: list[Future[None]] = []

    def meet(where, name, want):
        calls: list[object] = []
        act = getattr(where, name)

        def lock_rows_and_want(locked):
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL deadlock_timeout = '1min'")
                list(BatchRow.objects.filter(batch=chunk.batch).lock_free(100))
                locked.set_result(None)
                want()

        def first_in_the_way(*args, **kwargs):
            calls.append(None)
            if len(calls) == 1:
                locked: Future[None] = Future()
                others.append(elsewhere(lambda: lock_rows_and_want(locked)))
                locked.result(DEADLINE_SECONDS)
                wait_until(somebody_waits_for_a_lock, "the other waits")
                with connection.cursor() as cursor:
                    cursor.execute("SET LOCAL deadlock_timeout = '1ms'")
            return act(*args, **kwargs)

        monkeypatch.setattr(where, name, first_in_the_way)
        return calls

    yield meet
    for other in others:
        assert other.result(DEADLINE_SECONDS) is None


@pytest.fixture
def refuse(monkeypatch):
    """Let the next calls of a method raise what Django makes of errors of the database."""

    def refuse(where, name, *errors):
        left, act = list(errors), getattr(where, name)

        def refuse_first(*args, **kwargs):
            if left:
                raise OperationalError("refused") from left.pop(0)
            return act(*args, **kwargs)

        monkeypatch.setattr(where, name, refuse_first)
        return left

    return refuse


class DeadlockTests:
    @pytest.mark.rule("API-8")
    def test_an_abort_runs_again(self, chunk, meets_deadlock) -> None:
        """Its caller learns nothing of it."""
        calls = meets_deadlock(BatchRowQuerySet, "abort", lambda: Batch.objects.lock(chunk.batch.pk, Kind.BATCH))
        assert batches.abort(chunk.batch.pk).naborted == 12
        assert len(calls) == 2
        check_invariants()

    @pytest.mark.rule("API-8", "API-7")
    def test_an_abort_in_the_callers_transaction_raises(self, chunk, meets_deadlock) -> None:
        """What the caller has done before is undone too, so the abort alone cannot begin anew."""
        calls = meets_deadlock(BatchRowQuerySet, "abort", lambda: Batch.objects.lock(chunk.batch.pk, Kind.BATCH))

        def submit_and_abort() -> None:
            with transaction.atomic():
                batches.submit("app", "op", [1])
                batches.abort(chunk.batch.pk)

        with pytest.raises(OperationalError, match="deadlock detected"):
            submit_and_abort()
        assert len(calls) == 1
        assert list(Batch.objects.values_list("pk", "status")) == [(chunk.batch.pk, Status.IN_PROGRESS)]
        check_invariants()

    @pytest.mark.rule("API-8")
    def test_a_record_runs_again(self, chunk, make_recorder, meets_deadlock) -> None:
        """Each row ends and is counted once."""
        endings = [RowEnding(row.id, Status.SUCCESS, "{}", None, None) for row in chunk.rows]
        calls = meets_deadlock(Recorder, "write", lambda: database().shut(chunk.batch.pk))
        assert make_recorder(1).record(chunk.batch.pk, chunk.claim, endings) == 10
        assert len(calls) == 2
        check_invariants()

    @pytest.mark.rule("API-8")
    def test_a_requeue_runs_again(self, chunk, make_recorder, meets_deadlock) -> None:
        """The rows are given back once."""
        calls = meets_deadlock(BatchRowQuerySet, "requeue", lambda: database().shut(chunk.batch.pk))
        assert make_recorder(1).requeue(chunk.batch.pk, chunk.claim) == 10
        assert len(calls) == 2
        check_invariants()


class RefusalTests:
    """What meets deadlocks so rarely that the tests have to make up the error."""

    @pytest.mark.rule("API-8")
    def test_a_claim_runs_again(self, make_claimer, refuse) -> None:
        """The worker gets its rows all the same, each claimed once."""
        register_batch_processor("app", "op", echo)
        batches.submit("app", "op", range(5))
        left = refuse(PostgreSQL, "claim_rows", DeadlockDetected(), SerializationFailure())
        assert len(make_claimer(1).take().rows) == 5
        assert left == []
        assert set(BatchRow.objects.values_list("attempts", flat=True)) == {1}
        check_invariants()

    @pytest.mark.rule("API-8")
    def test_a_claim_of_a_slow_query_runs_again(self, make_claimer, refuse) -> None:
        """It is claimed once."""
        register_slow_query_processor("app", "op", echo)
        slow_queries.submit("app", "op", {})
        left = refuse(BatchRowQuerySet, "claim", DeadlockDetected())
        assert make_claimer(1).take().rows[0].attempt == 1
        assert left == []
        check_invariants()

    @pytest.mark.rule("API-8")
    def test_a_recovery_runs_again(self, chunk, refuse) -> None:
        """A death is counted once."""
        left = refuse(BatchRowQuerySet, "requeue", DeadlockDetected())
        assert Recovery(database()).recover() == Recovered(10, 0, True)
        assert left == []
        assert BatchRow.objects.filter(lost=1).count() == 10
        check_invariants()

    @pytest.mark.rule("API-8")
    def test_what_fails_the_rest_of_a_batch_runs_again(self, chunk, make_recorder, refuse) -> None:
        """Each row is counted once."""
        left = refuse(BatchRowQuerySet, "fail", DeadlockDetected())
        message = ErrorMessage("configerror")
        assert make_recorder(1).fail_rest(chunk.batch.pk, message, claim=chunk.claim) == 12
        assert left == []
        check_invariants()

    @pytest.mark.rule("API-8")
    def test_a_release_runs_again(self, refuse) -> None:
        """The batch is released."""
        batch_id = batches.submit("app", "op", [1, 2], wait=True)
        left = refuse(BatchQuerySet, "lock", DeadlockDetected())
        assert batches.release(batch_id) == 2
        assert left == []
        assert batches.status(batch_id).status is Status.QUEUED

    @pytest.mark.rule("API-8")
    def test_a_retry_runs_again(self, refuse) -> None:
        """There is one child, of the lines asked for, though they can be read only once."""
        register_batch_processor("app", "op", fail_odd)
        parent = batches.submit("app", "op", [1, 1, 1])
        drain()
        left = refuse(PostgreSQL, "copy_rows", DeadlockDetected())
        child = batches.retry(parent, lines=iter([1, 3]))
        assert left == []
        assert batches.children(parent) == [child]
        assert [row.line for row in batches.iter_rows(child)] == [1, 3]
        check_invariants()

    @pytest.mark.rule("API-8")
    def test_the_fourth_deadlock_is_raised(self, chunk, refuse) -> None:
        """Nothing is tried for ever."""
        left = refuse(BatchRowQuerySet, "abort", *[DeadlockDetected() for _ in range(5)])
        with pytest.raises(OperationalError, match="refused"):
            batches.abort(chunk.batch.pk)
        assert len(left) == 1
        check_invariants()

    @pytest.mark.rule("API-8")
    def test_a_lock_timeout_is_raised_at_once(self, chunk, refuse) -> None:
        """Whoever has said how long to wait for a lock does not wait several times as long."""
        left = refuse(BatchRowQuerySet, "abort", LockNotAvailable(), LockNotAvailable())
        with pytest.raises(OperationalError, match="refused"):
            batches.abort(chunk.batch.pk)
        assert len(left) == 1
        check_invariants()

    @pytest.mark.rule("API-8")
    def test_a_claim_that_is_refused_for_good_claims_nothing(self, make_claimer, refuse) -> None:
        """The error is for the worker's loop; the rows stay queued."""
        register_batch_processor("app", "op", echo)
        batches.submit("app", "op", range(5))
        claimer: Claimer = make_claimer(1)
        refuse(PostgreSQL, "claim_rows", *[DeadlockDetected() for _ in range(4)])
        with pytest.raises(OperationalError, match="refused"):
            claimer.take()
        assert len(claimer.take().rows) == 5
        check_invariants()

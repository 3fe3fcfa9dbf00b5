from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections, transaction

from alya_django import (
    AlreadyDone,
    InvalidState,
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.db import PostgreSQL, RowEnding
from alya_django.engine.process import Processed
from alya_django.engine.record import Recorder
from alya_django.engine.worker import Worker
from alya_django.models import Batch, BatchRow, database
from alya_django.testing import drain
from tests.concurrency.connections import (
    DEADLINE_SECONDS,
    elsewhere,
    open_transaction,
    somebody_waits_for_a_lock,
    wait_until,
)
from tests.invariants import check_invariants
from tests.processors import echo, fail_odd

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


@pytest.fixture
def waiting():
    """The id of a waiting batch of one row."""
    register_batch_processor("app", "op", echo)
    return batches.submit("app", "op", [1], wait=True)


@pytest.fixture
def complete(chunk, make_claimer):
    """The id of a batch whose rows have ended and which nobody has finished."""
    record(chunk)
    record(make_claimer(2).take())
    return chunk.batch.pk


@pytest.fixture
def query(make_claimer):
    """A slow query in the hands of worker 1."""
    register_slow_query_processor("app", "query", echo)
    slow_queries.submit("app", "query", {})
    return make_claimer(1).take()


def answered(chunk):
    """Return what a processor has made of a slow query."""
    return Processed(RowEnding(chunk.rows[0].id, Status.SUCCESS, '"answer"', None, None))


def record(chunk, name="one"):
    endings = [RowEnding(row.id, Status.SUCCESS, "{}", None, None) for row in chunk.rows]
    return Recorder(database(), number=1, name=name).record(chunk.batch.pk, chunk.claim, endings)


def in_order(first, second):
    """Do the first act; begin the second before it is committed; return what the second answers or raises."""
    with open_transaction(first):
        answer = elsewhere(second)
        wait_until(somebody_waits_for_a_lock, "the second waits for the first")
        assert not answer.done()
    return answer.result(DEADLINE_SECONDS)


class AppendTests:
    @pytest.mark.rule("APP-5", "API-4")
    def test_two_appends_both_succeed(self, waiting) -> None:
        """The second waits for the first and numbers on from it."""
        answer = in_order(lambda: batches.append(waiting, [2, 3]), lambda: batches.append(waiting, [4]))
        assert answer == 4
        assert list(BatchRow.objects.filter(batch=waiting).order_by("line").values_list("line", "input")) == [
            (1, 1),
            (2, 2),
            (3, 3),
            (4, 4),
        ]
        check_invariants()

    @pytest.mark.rule("APP-5")
    def test_many_appends_all_succeed(self, waiting) -> None:
        """Eight at once lose nothing."""

        def append(number: int) -> int:
            try:
                return batches.append(waiting, [number] * 10)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(8) as pool:
            totals = list(pool.map(append, range(8)))
        assert sorted(totals) == [11, 21, 31, 41, 51, 61, 71, 81]
        check_invariants()

    @pytest.mark.rule("APP-5", "WOF-4")
    @pytest.mark.parametrize(("verb", "status"), [(batches.release, Status.QUEUED), (batches.abort, Status.ABORTED)])
    def test_an_append_after_the_end_of_waiting_fails_whole(self, waiting, verb, status) -> None:
        """An append that meets a release or an abort comes too late, and adds nothing."""
        with pytest.raises(InvalidState) as raised:
            in_order(lambda: verb(waiting), lambda: batches.append(waiting, [2]))
        assert raised.value.status is status
        assert BatchRow.objects.filter(batch=waiting).count() == 1
        check_invariants()

    @pytest.mark.rule("APP-5")
    def test_an_abort_after_an_append_takes_the_new_rows_too(self, waiting) -> None:
        """An append lands wholly before the abort that waited for it."""
        answer = in_order(lambda: batches.append(waiting, [2, 3]), lambda: batches.abort(waiting))
        assert answer.naborted == 3
        check_invariants()


class ReleaseTests:
    @pytest.mark.rule("WOF-4")
    def test_cannot_undo_an_abort(self, waiting) -> None:
        """A release that waited for an abort finds the batch aborted."""
        with pytest.raises(InvalidState):
            in_order(lambda: batches.abort(waiting), lambda: batches.release(waiting))
        assert batches.status(waiting).status is Status.ABORTED

    @pytest.mark.rule("WOF-4")
    def test_cannot_undo_a_workers_start(self, waiting) -> None:
        """A release that waited for the first claim finds the batch running."""
        batches.release(waiting)
        with pytest.raises(InvalidState) as raised:
            in_order(lambda: Batch.objects.filter(pk=waiting).start(), lambda: batches.release(waiting))
        assert raised.value.status is Status.IN_PROGRESS


class AbortTests:
    @pytest.mark.rule("ABT-5", "INV-4")
    def test_a_record_that_meets_an_abort_is_dropped(self, chunk, monkeypatch) -> None:
        """While the abort is open the record waits outside; then nothing is left for it."""
        tries = []
        enter = PostgreSQL.enter
        monkeypatch.setattr(PostgreSQL, "enter", lambda self, batch_id: tries.append(1) or enter(self, batch_id))
        with open_transaction(lambda: batches.abort(chunk.batch.pk)) as summary:
            assert summary.naborted == 12
            late = elsewhere(lambda: record(chunk))
            wait_until(lambda: tries, "the record has found the gate shut")
            assert not late.done()
        assert late.result(DEADLINE_SECONDS) == 0
        assert batches.status(chunk.batch.pk) == summary
        check_invariants()

    @pytest.mark.rule("ABT-2")
    def test_an_abort_that_meets_a_record_keeps_what_was_recorded(self, chunk) -> None:
        """The abort waits for the record, and counts it."""
        summary = in_order(lambda: record(chunk), lambda: batches.abort(chunk.batch.pk))
        assert (summary.nsuccess, summary.naborted) == (10, 2)
        check_invariants()

    @pytest.mark.rule("ABT-2", "INV-4")
    def test_an_abort_that_meets_a_claim_takes_its_rows_too(self, chunk, make_claimer) -> None:
        """The abort waits for the claim; no row of it stays in progress, and its outcome comes too late."""
        claimed = []
        summary = in_order(lambda: claimed.append(make_claimer(2).take()), lambda: batches.abort(chunk.batch.pk))
        assert (len(claimed[0].rows), summary.naborted) == (2, 12)
        assert record(claimed[0]) == 0
        check_invariants()

    def test_a_claim_passes_over_a_batch_that_is_being_aborted(self, chunk) -> None:
        """A worker does not wait for the abort, and finds nothing afterwards."""
        with open_transaction(lambda: batches.abort(chunk.batch.pk)), Worker() as worker:
            assert worker.round() is None
        assert drain() == 0
        check_invariants()

    def test_two_aborts_agree(self, chunk) -> None:
        """The second is told what the first did."""
        with open_transaction(lambda: batches.abort(chunk.batch.pk)) as first:
            second = elsewhere(lambda: batches.abort(chunk.batch.pk))
            wait_until(somebody_waits_for_a_lock, "the second abort waits")
        assert second.result(DEADLINE_SECONDS) == first

    @pytest.mark.rule("API-4", "API-7")
    def test_an_abort_that_is_rolled_back_never_was(self, chunk) -> None:
        """Neither rows nor batch nor cache remember it."""

        def abort_and_regret() -> None:
            with transaction.atomic():
                batches.abort(chunk.batch.pk)
                transaction.set_rollback(True)

        abort_and_regret()
        assert batches.status(chunk.batch.pk).status is Status.IN_PROGRESS
        assert record(chunk) == 10
        check_invariants()


class AbortAndFinishTests:
    @pytest.mark.rule("ABT-6", "FIN-1")
    def test_an_abort_that_meets_a_finish_comes_too_late(self, complete, make_finisher) -> None:
        """Whoever has become the finisher finishes; the abort waits for that moment and is told how it ends."""
        with pytest.raises(AlreadyDone) as raised:
            in_order(lambda: make_finisher().finish(complete), lambda: batches.abort(complete))
        assert raised.value.summary.status is Status.SUCCESS
        assert batches.status(complete).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("ABT-6", "FIN-1")
    def test_an_abort_while_files_are_joined_comes_too_late(self, complete, make_finisher, monkeypatch) -> None:
        """No lock is held meanwhile, so the abort does not wait, and changes nothing."""
        told = []
        finisher = make_finisher()
        join = finisher._join_output_files

        def abort_and_join(*args):
            with pytest.raises(AlreadyDone) as raised:
                elsewhere(lambda: batches.abort(complete)).result(DEADLINE_SECONDS)
            told.append(raised.value.summary.status)
            return join(*args)

        monkeypatch.setattr(finisher, "_join_output_files", abort_and_join)
        assert finisher.finish(complete)
        assert told == [Status.SUCCESS]
        check_invariants()

    @pytest.mark.rule("ABT-6", "FIN-1")
    def test_an_abort_that_comes_too_late_keeps_no_finish_waiting(self, complete, make_finisher) -> None:
        """It leaves no lock behind, though its caller's transaction goes on."""

        def abort_in_vain() -> None:
            with pytest.raises(AlreadyDone):
                batches.abort(complete)

        with open_transaction(abort_in_vain):
            assert elsewhere(lambda: make_finisher().finish(complete)).result(DEADLINE_SECONDS)
        assert batches.status(complete).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("ABT-5", "FIN-1")
    def test_a_slow_query_that_meets_its_abort_is_aborted(self, query, make_finisher) -> None:
        """The answer waits outside the gate; then its claim is gone, and it is dropped."""
        with open_transaction(lambda: slow_queries.abort(query.batch.pk)) as summary:
            late = elsewhere(lambda: make_finisher().close_slow_query(query, answered(query)))
        assert late.result(DEADLINE_SECONDS).ended == 0
        assert summary.status is slow_queries.result(query.batch.pk).status is Status.ABORTED
        check_invariants()

    @pytest.mark.rule("ABT-6", "FIN-1")
    def test_an_abort_that_meets_the_answer_of_a_slow_query_comes_too_late(self, query, make_finisher) -> None:
        """Record and finish are one transaction: the abort finds a query that has ended."""
        with pytest.raises(AlreadyDone):
            in_order(
                lambda: make_finisher().close_slow_query(query, answered(query)),
                lambda: slow_queries.abort(query.batch.pk),
            )
        assert slow_queries.result(query.batch.pk).result == "answer"
        check_invariants()

    def test_a_claim_passes_over_a_slow_query_that_is_being_aborted(self, query) -> None:
        """Nobody waits for the abort, and nothing is left afterwards."""
        other = slow_queries.submit("app", "query", {})
        with open_transaction(lambda: slow_queries.abort(other)), Worker() as worker:
            assert worker.round() is None
        assert drain() == 0
        check_invariants()

    @pytest.mark.rule("ABT-2")
    def test_an_abort_that_meets_the_claim_of_a_slow_query_aborts_it(self, query, make_claimer, make_finisher) -> None:
        """The abort waits for the claim, which then holds nothing any more."""
        other = slow_queries.submit("app", "query", {})
        claimed = []
        summary = in_order(lambda: claimed.append(make_claimer(2).take()), lambda: slow_queries.abort(other))
        assert summary.status is Status.ABORTED
        assert make_finisher().close_slow_query(claimed[0], answered(claimed[0])).ended == 0
        check_invariants()


class RetryTests:
    @pytest.mark.rule("RTY-5")
    def test_the_second_of_two_finds_the_rows_taken(self) -> None:
        """Two people press the button at once: one child has the rows, the other is told that there are none."""
        register_batch_processor("app", "op", fail_odd)
        parent = batches.submit("app", "op", [1])
        drain()
        with pytest.raises(InvalidState, match="has no row to retry"):
            in_order(lambda: batches.retry(parent), lambda: batches.retry(parent))
        assert len(batches.children(parent)) == 1
        check_invariants()

    @pytest.mark.rule("RTY-5")
    def test_a_child_and_its_parent_do_not_retry_the_same_row(self) -> None:
        """Members of a family wait for each other."""
        register_batch_processor("app", "op", fail_odd)
        parent = batches.submit("app", "op", [1])
        drain()
        child = batches.retry(parent)
        drain()
        with pytest.raises(InvalidState, match="has no row to retry"):
            in_order(lambda: batches.retry(parent), lambda: batches.retry(child))
        check_invariants()


class KeyTests:
    @pytest.mark.rule("SUB-10")
    def test_two_submits_of_one_key_at_once_store_one_batch(self) -> None:
        """The second waits for the first, and returns its id."""
        first: list[object] = []
        second = in_order(
            lambda: first.append(batches.submit("app", "op", [1], unique_key="k")),
            lambda: batches.submit("app", "op", [1, 2], unique_key="k"),
        )
        assert [second] == first
        assert BatchRow.objects.count() == 1


class ReadTests:
    @pytest.mark.rule("API-6")
    def test_reads_wait_for_nobody(self, chunk) -> None:
        """Status, result, rows and lines are answered while the batch and its rows are locked."""
        query_id = slow_queries.submit("app", "op", {})

        def lock_all() -> None:
            list(Batch.objects.locked())
            list(BatchRow.objects.lock_free(100))

        with open_transaction(lock_all):
            assert batches.status(chunk.batch.pk).status is Status.IN_PROGRESS
            assert batches.result(chunk.batch.pk).rows == ()
            assert len(list(batches.iter_rows(chunk.batch.pk))) == 12
            assert batches.line(chunk.batch.pk, 12).status is Status.QUEUED
            assert slow_queries.result(query_id).try_later

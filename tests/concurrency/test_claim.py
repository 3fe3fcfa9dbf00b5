from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from threading import Barrier, Lock

import pytest
from django.db import connections

from alya_django import BatchProcessor, Row, Status, batches, register_batch_processor, slow_queries
from alya_django import register_slow_query_processor as register_slow_query
from alya_django.engine.wakeup import Wakeup
from alya_django.engine.worker import Worker
from alya_django.models import Batch, BatchRow
from alya_django.models import Worker as WorkerRecord
from alya_django.testing import drain
from tests.concurrency.connections import DEADLINE_SECONDS, elsewhere, open_transaction, wait_until
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


def lock_rows(batch_id, count):
    """Return the lines that were locked as a claim locks them."""
    rows = BatchRow.objects.filter(batch=batch_id).queued().order_by("line")
    return [row.line for row in rows.lock_free(count)]


class ClaimTests:
    @pytest.mark.rule("CLM-2")
    def test_skips_rows_another_worker_locked(self) -> None:
        """While one worker claims rows of a batch another takes the next ones of it, without waiting."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", range(15))
        with open_transaction(lambda: lock_rows(batch_id, 10)) as locked, Worker() as worker:
            worker.run_once()
            assert locked == list(range(1, 11))
            done = BatchRow.objects.filter(batch=batch_id, status=Status.SUCCESS).values_list("line", flat=True)
            assert sorted(done) == list(range(11, 16))
        assert drain() == 10
        check_invariants()

    @pytest.mark.rule("CLM-3")
    def test_looks_again_soon_for_rows_that_are_only_locked(self, monkeypatch) -> None:
        """A worker that finds nothing else rests for milliseconds, and then has them."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", range(5))
        rests: list[float] = []

        with open_transaction(lambda: lock_rows(batch_id, 5)), Worker() as worker:

            def rest(self, seconds: float) -> None:
                rests.append(seconds)
                worker.stop()

            monkeypatch.setattr(Wakeup, "rest", rest)
            worker.run()
        assert rests == [0.01]
        assert drain() == 5
        check_invariants()

    @pytest.mark.rule("CLM-2", "FIN-1", "INV-9")
    def test_many_workers_share_batches_without_sharing_a_row(self) -> None:
        """Three workers on three batches of a hundred rows: each row once, more than one at a time."""
        counts: Counter[str] = Counter()
        together = Barrier(2)
        guard = Lock()

        class Meeting(BatchProcessor):
            chunk_rows = 5

            def do_batch_job(self, row: Row) -> None:
                with guard:
                    counts[row.key] += 1
                    meets = sum(counts.values()) <= 2
                if meets:
                    # Passed only if a second worker is inside a row at the same time.
                    together.wait(20)

        def work(_: int) -> int:
            try:
                with Worker() as worker:
                    return worker.drain()
            finally:
                connections.close_all()

        register_batch_processor("app", "op", Meeting)
        ids = [batches.submit("app", "op", range(100)) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            rows = list(pool.map(work, range(3)))
        drain()
        assert set(counts.values()) == {1}
        assert len(counts) == sum(rows) == 300
        assert {batches.status(batch_id).status for batch_id in ids} == {Status.SUCCESS}
        check_invariants()

    @pytest.mark.rule("CLM-2")
    @pytest.mark.parametrize("is_requeued", [False, True])
    def test_a_claim_in_flight_is_not_waited_for(self, make_claimer, make_recorder, is_requeued) -> None:
        """Two claims of one batch overlap, and share neither new rows nor requeued ones."""
        register_batch_processor("app", "op", echo)
        batches.submit("app", "op", range(15))
        if is_requeued:
            claimer = make_claimer(1)
            assert len(claimer.take().rows + claimer.take().rows) == 15
            assert make_recorder(1).requeue_all() == 15
            Batch.objects.all().wake(BatchRow.objects.due())
        # Only the first claim of all locks the batch, which starts with it.
        Batch.objects.all().start()
        with open_transaction(make_claimer(1).take) as first:
            second = make_claimer(2).take()
        assert len(first.rows) == 10
        assert len(second.rows) == 5
        assert not {row.id for row in first.rows} & {row.id for row in second.rows}
        check_invariants()

    @pytest.mark.rule("CLM-3")
    def test_rows_that_are_only_locked_are_soon_looked_for_again(self, settings) -> None:
        """With nothing but locked rows a worker does not rest as if there were nothing."""
        settings.ALYA = {"POLL_SECONDS": 3_600}
        worker = Worker()
        register_batch_processor("app", "op", lambda row: worker.stop())
        batch_id = batches.submit("app", "op", [1])

        def run() -> None:
            with worker:
                worker.run()

        with open_transaction(lambda: lock_rows(batch_id, 1)):
            running = elsewhere(run)
            wait_until(WorkerRecord.objects.exists, "the worker is there")
        assert running.result(DEADLINE_SECONDS) is None
        assert batches.status(batch_id).status is Status.SUCCESS

    @pytest.mark.rule("CLM-3", "RUN-1")
    def test_drain_waits_for_rows_that_are_only_locked(self, monkeypatch) -> None:
        """The queue is empty when no row is left, not when none can be had at this moment."""
        rests = []
        rest = Wakeup.rest
        monkeypatch.setattr(Wakeup, "rest", lambda self, seconds: rests.append(seconds) or rest(self, seconds))
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1, 2])
        with open_transaction(lambda: lock_rows(batch_id, 2)):
            draining = elsewhere(drain)
            wait_until(lambda: rests, "the worker rests")
        assert draining.result(DEADLINE_SECONDS) == 2
        check_invariants()

    @pytest.mark.rule("CLM-2", "CLM-5")
    def test_takes_the_next_batch_when_one_is_locked(self) -> None:
        """A queued batch that somebody has locked is passed over."""
        register_batch_processor("app", "op", echo)
        first = batches.submit("app", "op", [1])
        second = batches.submit("app", "op", [1])
        with open_transaction(lambda: Batch.objects.filter(pk=first).locked().get()), Worker() as worker:
            worker.run_once()
            assert batches.status(second).status is Status.SUCCESS
            assert batches.status(first).status is Status.QUEUED

    @pytest.mark.parametrize("remembered", [1_000, 0])
    def test_what_a_locked_batch_owes_is_charged_later(self, make_claimer, monkeypatch, remembered) -> None:
        """A batch whose turn somebody keeps from moving catches up with its next chunk."""
        monkeypatch.setattr("alya_django.engine.claim.BATCHES_OWED", remembered)
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", range(30))
        claimer = make_claimer(1)
        claimer.take()
        before = Batch.objects.get(pk=batch_id).turn
        with open_transaction(lambda: Batch.objects.filter(pk=batch_id).locked().get()):
            assert len(claimer.take().rows) == 10
        assert Batch.objects.get(pk=batch_id).turn == before
        claimer.take()
        assert Batch.objects.get(pk=batch_id).turn == pytest.approx(3 * before)

    def test_a_slow_query_that_is_being_claimed_is_passed_over(self) -> None:
        """Two workers take two queries."""
        register_slow_query("app", "op", echo)
        first, second = (slow_queries.submit("app", "op", {}) for _ in range(2))
        with open_transaction(lambda: Batch.objects.filter(pk=first).locked().get()), Worker() as worker:
            worker.run_once()
            assert slow_queries.result(second).status is Status.SUCCESS
            assert slow_queries.result(first).status is Status.QUEUED

    @pytest.mark.rule("CLM-2", "INV-9")
    @pytest.mark.parametrize("is_requeued", [False, True])
    def test_no_two_workers_get_the_same_slow_query(self, make_claimer, make_recorder, is_requeued) -> None:
        """Six workers ask for four queries at the same moment: each query goes to one of them."""
        register_slow_query("app", "op", echo)
        ids = [slow_queries.submit("app", "op", {}) for _ in range(4)]
        if is_requeued:
            claimer = make_claimer(99)
            assert all(claimer.take() for _ in ids)
            assert make_recorder(99).requeue_all() == 4
        together = Barrier(6)

        def take_all(number: int) -> list[object]:
            claimer = make_claimer(number)
            together.wait(DEADLINE_SECONDS)
            taken = []
            while (chunk := claimer.take()) or BatchRow.objects.filter(status=Status.QUEUED).exists():
                taken += [chunk.batch.pk] if chunk else []
            connections.close_all()
            return taken

        with ThreadPoolExecutor(6) as pool:
            taken = list(chain.from_iterable(pool.map(take_all, range(6))))
        assert sorted(taken) == sorted(ids)
        check_invariants()

    @pytest.mark.rule("API-7")
    def test_nothing_is_seen_before_the_callers_transaction_commits(self) -> None:
        """A worker meets a batch when its submitter has committed, and not before."""
        register_batch_processor("app", "op", echo)
        with open_transaction(lambda: batches.submit("app", "op", [1])):
            assert drain() == 0
        assert drain() == 1

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from alya_django import BatchInput, Status, batches, register_batch_processor, slow_queries
from alya_django import register_slow_query_processor as register_slow_query
from alya_django.engine.claim import CLAIMS_PER_WORKER
from alya_django.engine.worker import Worker
from alya_django.models import Batch, BatchRow
from alya_django.models import Worker as WorkerRecord
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import Recording, RecordingQuery, echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


class ClaimTests:
    @pytest.mark.rule("CLM-1")
    def test_takes_queued_rows_of_one_batch_up_to_the_chunk(self) -> None:
        """A first chunk is 10 rows of one batch, however many wait elsewhere."""
        register_batch_processor("app", "op", echo)
        batch_ids = [batches.submit("app", "op", range(15)) for _ in range(2)]
        with Worker() as worker:
            assert worker.run_once()
        # SQLite's clock may not tell which was first.
        assert sorted(batches.status(batch_id).nsuccess for batch_id in batch_ids) == [0, 10]

    @pytest.mark.rule("CLM-1", "INV-10")
    def test_leaves_rows_of_a_waiting_batch(self) -> None:
        """A batch that waits is not touched."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", range(3), wait=True)
        assert drain() == 0
        assert batches.status(batch_id).status is Status.WAIT
        check_invariants()

    @pytest.mark.rule("CLM-1")
    def test_leaves_rows_of_ops_that_are_not_registered(self) -> None:
        """A worker takes only what it has a processor for; the rest keeps waiting."""
        register_batch_processor("app", "op", echo)
        register_slow_query("app", "query", echo)
        other_op = batches.submit("app", "other", [1])
        other_app = batches.submit("other", "op", [1])
        other_kind = slow_queries.submit("app", "op", 1)
        assert drain() == 0
        assert {batches.status(other_op).status, batches.status(other_app).status} == {Status.QUEUED}
        assert slow_queries.result(other_kind).status is Status.QUEUED

    @pytest.mark.rule("CLM-1")
    def test_a_narrowed_worker_leaves_the_other_apps_and_ops(self) -> None:
        """An app and an op narrow what a worker takes, in any case of letters."""
        for app in ("one", "two"):
            for op in ("a", "b"):
                register_batch_processor(app, op, echo)
                batches.submit(app, op, [1])
        assert drain(app="One", op="A") == 1
        assert drain(app="two") == 2
        assert drain() == 1

    def test_a_chunk_is_never_larger_than_the_processor_wants(self) -> None:
        """``chunk_rows`` caps the chunk even where it would be faster with more."""
        register_batch_processor("app", "op", echo, chunk_rows=3)
        batch_id = batches.submit("app", "op", range(20))
        with Worker() as worker:
            for ended in (3, 6, 9):
                worker.run_once()
                assert batches.line(batch_id, ended).status is Status.SUCCESS
                assert batches.line(batch_id, ended + 1).status is Status.QUEUED

    @pytest.mark.rule("CLM-4", "REG-1")
    def test_marks_the_row_with_who_and_when(self) -> None:
        """A claimed row carries the worker, the time, the attempt and the claim."""
        seen: list[BatchRow] = []
        register_batch_processor("app", "op", lambda row: seen.append(BatchRow.objects.get(line=row.line)))
        batch_id = batches.submit("app", "op", [1])
        with Worker() as worker:
            worker.drain()
            number = WorkerRecord.objects.get(name=worker.name).pk
        (row,) = seen
        assert row.status == Status.IN_PROGRESS
        assert row.done_by == worker.name
        assert row.claimed_at is not None
        assert row.attempts == 1
        assert row.claim is not None
        assert row.claim // CLAIMS_PER_WORKER == number
        outcome = batches.line(batch_id, 1)
        assert (outcome.attempts, outcome.done_by, outcome.claimed_at) == (1, worker.name, row.claimed_at)

    def test_hands_the_processor_the_row(self) -> None:
        """A processor gets all that is known of its row."""
        recording = Recording()
        register_batch_processor("app", "op", recording)
        batch_id = batches.submit("APP", "Op", [BatchInput(7, {"a": [1]})], context={"who": "me"})
        drain()
        (row,) = recording.rows
        assert (row.batch_id, row.app, row.op, row.line) == (batch_id, "app", "op", 7)
        assert (row.input, row.context, row.init_block) == ({"a": [1]}, {"who": "me"}, None)
        assert (row.attempt, row.key, row.aborted()) == (1, f"{batch_id}:7", False)

    @pytest.mark.rule("CLM-5")
    def test_never_changes_a_finished_batch(self) -> None:
        """A row that is queued in a batch that has ended, which no verb makes, stays where it is."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1])
        drain()
        before = Batch.objects.get(pk=batch_id)
        BatchRow.objects.filter(batch=batch_id).update(status=Status.QUEUED)
        assert drain() == 0
        after = Batch.objects.get(pk=batch_id)
        assert (after.status, after.done_at, after.started_at) == (before.status, before.done_at, before.started_at)

    def test_takes_rows_in_the_order_of_lines(self) -> None:
        """Lines are processed in their order, whatever the order they were submitted in."""
        recording = Recording()
        register_batch_processor("app", "op", recording)
        batches.submit("app", "op", [BatchInput(line, {}) for line in (30, 4, 17, 1, 99)])
        drain()
        assert [row.line for row in recording.rows] == [1, 4, 17, 30, 99]

    def test_a_small_batch_starts_before_a_large_one_ends(self) -> None:
        """A batch that comes later is next, not last."""
        recording = Recording()
        register_batch_processor(
            "app",
            "op",
            recording,
        )
        large = batches.submit("app", "op", range(2_000))
        with Worker() as worker:
            worker.run_once()
            small = batches.submit("app", "op", range(5))
            for _ in range(3):
                worker.run_once()
            assert batches.status(small).status is Status.SUCCESS
            assert batches.status(large).status is Status.IN_PROGRESS

    def test_a_slow_query_goes_before_rows_and_alternates_with_them(self) -> None:
        """Of two slow queries and a batch, a query is first and a chunk of the batch comes between them."""
        order: list[str] = []
        register_batch_processor("app", "op", lambda row: order.append("row"), chunk_rows=1)
        register_slow_query("app", "op", lambda row: order.append("query"))
        batches.submit("app", "op", range(2))
        for _ in range(2):
            slow_queries.submit("app", "op", {})
        drain()
        assert order == ["query", "row", "query", "row"]

    def test_slow_queries_are_answered_oldest_first(self) -> None:
        """The query that was asked first is answered first."""
        recording = RecordingQuery()
        register_slow_query("app", "op", recording)
        for number in range(3):
            slow_queries.submit("app", "op", number)
        drain()
        assert [row.input for row in recording.rows] == [0, 1, 2]

    def test_the_input_is_decoded_row_by_row(self) -> None:
        """An input that this Python cannot decode fails its row and no other."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1, 2, 3])
        long = "1" * 5_000
        with connection.cursor() as cursor:
            cursor.execute("UPDATE alya_batchrows SET input = %s WHERE line = 2", [long])
        drain(raise_errors=False)
        summary = batches.status(batch_id)
        assert (summary.nsuccess, summary.nfailed) == (2, 1)
        check_invariants()

    @pytest.mark.rule("CLM-8")
    def test_waiting_batches_cost_nothing(self) -> None:
        """Looking for work costs the same statements with and without batches that wait."""
        register_batch_processor("app", "op", echo)
        with Worker() as worker:
            worker.round()
            with CaptureQueriesContext(
                connection,
            ) as without:
                worker.round()
            for _ in range(5):
                batches.submit("app", "op", range(3), wait=True)
            with CaptureQueriesContext(connection) as with_waiting:
                worker.round()
        assert len(with_waiting) == len(without)

    def test_a_batch_without_queued_rows_is_not_looked_at(self, make_claimer, make_recorder) -> None:
        """A batch whose rows are all claimed elsewhere is drained, until they are given back."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", range(3))
        chunk = make_claimer(1).take()
        assert Batch.objects.get(pk=batch_id).drained
        assert make_claimer(2).take() is None
        make_recorder(1).requeue(batch_id, chunk.claim)
        assert drain() == 3
        assert batches.status(batch_id).status is Status.SUCCESS
        check_invariants()

    def test_the_number_of_statements_is_the_same_for_any_chunk(self, settings) -> None:
        """A chunk of 10 rows and one of 500 cost the same statements, but for the savepoints that a test needs."""
        # However long a chunk takes, it is recorded at its end, and no heart beats after it.
        settings.ALYA = {"CHUNK_SECONDS": 60, "FLUSH_SECONDS": 600, "HEARTBEAT_SECONDS": 600}
        register_batch_processor("app", "op", echo)
        batches.submit("app", "op", range(5_000))
        counts = []
        with Worker() as worker:
            for _ in range(6):
                with CaptureQueriesContext(connection) as captured:
                    rows = worker.round()
                counts.append(len(captured) - 2 * rows)
        sizes = list(BatchRow.objects.exclude(claimed_at=None).values_list("claimed_at").distinct())
        assert len(sizes) > 1
        assert len(set(counts[1:])) == 1, counts

    def test_a_context_is_read_once(self) -> None:
        """However many chunks a batch has, its context, which may be large, is read with the first."""
        register_batch_processor("app", "op", echo, chunk_rows=2)
        batches.submit("app", "op", range(10), context={"who": "me"})
        with CaptureQueriesContext(connection) as captured, Worker() as worker:
            assert worker.drain() == 10
        reads = [
            query["sql"] for query in captured if '"context"' in query["sql"] and "LENGTH" in query["sql"].upper()
        ]
        assert len(reads) == 1

    @pytest.mark.parametrize("limit", ["BATCHES_KEPT", "CONTEXT_CHARS_KEPT"])
    def test_contexts_are_forgotten_and_read_again(self, limit, monkeypatch) -> None:
        """Two batches in turn, in a memory that has room for one: each row has its batch's context."""
        monkeypatch.setattr(f"alya_django.engine.claim.{limit}", 1)
        recording = Recording()
        recording.chunk_rows = 1
        register_batch_processor("app", "op", recording)
        ids = [batches.submit("app", "op", range(3), context={"number": number}) for number in range(2)]
        drain()
        assert [row.context["number"] for row in recording.rows] == [ids.index(row.batch_id) for row in recording.rows]
        assert len({row.batch_id for row in recording.rows[:4]}) == 2


class SuspectTests:
    @pytest.fixture
    def requeued(self, make_claimer, make_recorder):
        """Make a batch, four rows of which were requeued one after the other, some of them after a death."""

        def make(*lost: int, rows: int = 6):
            register_batch_processor("app", "op", echo, chunk_rows=4)
            batch_id = batches.submit("app", "op", range(rows))
            chunk = make_claimer(1).take()
            make_recorder(1).requeue(batch_id, chunk.claim)
            for line, times in enumerate(lost, start=1):
                earlier = F("retry_at") - timedelta(minutes=10 - line)
                BatchRow.objects.filter(batch=batch_id, line=line).update(lost=times, retry_at=earlier)
            return batch_id

        return make

    @pytest.mark.rule("CLM-10")
    def test_a_suspect_is_claimed_alone_and_in_its_turn(self, requeued, make_claimer) -> None:
        """The due rows before it go without it, then it alone, then those behind it, then the rows never claimed."""
        requeued(0, 0, 1, 0)
        claimer = make_claimer(2)
        chunks = [claimer.take() for _ in range(4)]
        assert [[row.line for row in chunk.rows] for chunk in chunks] == [[1, 2], [3], [4], [5, 6]]
        assert claimer.take() is None

    @pytest.mark.rule("CLM-10")
    def test_suspects_are_taken_one_after_the_other(self, requeued, make_claimer) -> None:
        """A batch of which only suspects are left is looked into until the last is claimed."""
        batch_id = requeued(1, 1, 2, 1, rows=4)
        claimer = make_claimer(2)
        chunks = [claimer.take() for _ in range(4)]
        assert [[row.line for row in chunk.rows] for chunk in chunks] == [[1], [2], [3], [4]]
        assert Batch.objects.get(pk=batch_id).drained

    @pytest.mark.rule("CLM-10")
    def test_a_row_knows_its_strikes(self, requeued, make_claimer) -> None:
        """What was lost and what was retried counts together; another requeue does not."""
        batch_id = requeued(2)
        BatchRow.objects.filter(batch=batch_id, line=1).update(retries=1)
        claimer = make_claimer(2)
        assert [(row.line, row.strikes, row.attempt) for row in claimer.take().rows] == [(1, 3, 2)]
        assert {row.strikes for row in claimer.take().rows} == {0}

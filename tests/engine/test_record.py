from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alya_django import Status, batches, register_batch_processor
from alya_django.db import RowEnding
from alya_django.engine.process import engine_message
from alya_django.models import BatchProgress, BatchRow
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


@pytest.fixture
def chunk(make_claimer):
    """Ten rows of a batch, held by worker 1."""
    register_batch_processor("app", "op", echo)
    batches.submit("app", "op", range(12))
    return make_claimer(1).take()


def endings(chunk, status=Status.SUCCESS):
    return [RowEnding(row.id, status, "{}", None, None) for row in chunk.rows]


class RecordTests:
    def test_ends_the_rows_that_the_claim_holds(self, chunk, make_recorder) -> None:
        """What the claim holds is written, with its texts, and the claim is over."""
        ending = RowEnding(
            chunk.rows[0].id, Status.FAILED, '{"a":"\\\\b\\t\\"ü"}', '[{"msgid":1,"errcode":"no"}]', '{"f.csv":"x"}'
        )
        assert make_recorder(1).record(chunk.batch.pk, chunk.claim, [ending]) == 1
        row = BatchRow.objects.get(pk=chunk.rows[0].id)
        assert (row.status, row.claim, row.done_by) == (Status.FAILED, None, "worker-1")
        assert row.result == {"a": '\\b\t"ü'}
        assert row.messages == [{"msgid": 1, "errcode": "no"}]
        assert row.output_lines == {"f.csv": "x"}
        assert row.done_at is not None

    def test_drops_what_another_claim_holds(self, chunk, make_recorder) -> None:
        """Under a claim that is not the row's nothing is written and nothing counted."""
        assert make_recorder(1).record(chunk.batch.pk, chunk.claim + 1, endings(chunk)) == 0
        assert set(BatchRow.objects.filter(claim=chunk.claim).values_list("status", flat=True)) == {Status.IN_PROGRESS}
        check_invariants()

    @pytest.mark.rule("ABT-5", "INV-4")
    def test_drops_what_was_aborted_meanwhile(self, chunk, make_recorder) -> None:
        """A late outcome changes neither the aborted row nor the batch's counts."""
        summary = batches.abort(chunk.batch.pk)
        assert make_recorder(1).record(chunk.batch.pk, chunk.claim, endings(chunk)) == 0
        assert batches.status(chunk.batch.pk) == summary
        check_invariants()

    def test_counts_exactly_what_it_wrote(self, chunk, make_recorder) -> None:
        """A row recorded before is not counted twice."""
        recorder = make_recorder(1)
        assert recorder.record(chunk.batch.pk, chunk.claim, endings(chunk)[:4]) == 4
        assert recorder.record(chunk.batch.pk, chunk.claim, endings(chunk, Status.FAILED)) == 6
        assert BatchProgress.objects.filter(batch=chunk.batch).total() == (4, 6)
        check_invariants()

    def test_counts_in_the_slot_of_the_worker(self, chunk, make_recorder) -> None:
        """Sixteen workers count beside each other; the seventeenth shares the first one's slot."""
        for number in (1, 2, 17):
            ending = endings(chunk)[number % 16]
            make_recorder(number).record(chunk.batch.pk, chunk.claim, [ending])
        slots = BatchProgress.objects.filter(batch=chunk.batch).order_by("slot").values_list("slot", "nsuccess")
        assert list(slots) == [(1, 1), (2, 1)]

    def test_nothing_costs_nothing(self, chunk, make_recorder, django_assert_num_queries) -> None:
        """No endings, no statement."""
        with django_assert_num_queries(0):
            assert make_recorder(1).record(chunk.batch.pk, chunk.claim, []) == 0

    @pytest.mark.rule("RUN-2")
    def test_a_whole_chunk_is_one_statement_more_than_a_row(self, chunk, make_recorder) -> None:
        """The number of statements does not grow with the rows."""
        recorder = make_recorder(1)
        recorder.record(chunk.batch.pk, chunk.claim, endings(chunk)[:1])
        counts = []
        for part in (slice(1, 2), slice(2, 10)):
            with CaptureQueriesContext(connection) as captured:
                recorder.record(chunk.batch.pk, chunk.claim, endings(chunk)[part])
            counts.append(len(captured))
        assert counts[0] == counts[1]


class RequeueTests:
    def test_gives_back_what_the_claim_still_holds(self, chunk, make_recorder) -> None:
        """Rows that have ended stay ended; the others wait again, unblamed, their attempt counted."""
        recorder = make_recorder(1)
        recorder.record(chunk.batch.pk, chunk.claim, endings(chunk)[:3])
        assert recorder.requeue(chunk.batch.pk, chunk.claim) == 7
        row = BatchRow.objects.get(pk=chunk.rows[-1].id)
        assert (row.status, row.claim, row.done_by, row.claimed_at) == (Status.QUEUED, None, None, None)
        assert (row.attempts, row.lost, row.retries) == (1, 0, 0)
        assert row.retry_at is not None
        check_invariants()

    def test_a_delay_keeps_the_rows_back(self, chunk, make_recorder, make_claimer) -> None:
        """Rows given back for later are not due."""
        make_recorder(1).requeue(chunk.batch.pk, chunk.claim, delay=60)
        assert not BatchRow.objects.filter(batch=chunk.batch).due()
        assert len(make_claimer(2).take().rows) == 2

    def test_rows_given_back_are_claimed_first(self, chunk, make_recorder, make_claimer) -> None:
        """What is due again goes before what was never claimed."""
        make_recorder(1).requeue(chunk.batch.pk, chunk.claim)
        again = make_claimer(2).take()
        assert [row.id for row in again.rows] == [row.id for row in chunk.rows]
        assert {row.attempt for row in again.rows} == {2}


class FailRestTests:
    @pytest.mark.rule("ERR-4", "ERR-5")
    def test_leaves_what_others_hold_and_what_has_ended(self, chunk, make_recorder, make_claimer) -> None:
        """Queued rows and the claim's own fail; rows in others' hands are theirs to end."""
        make_recorder(1).record(chunk.batch.pk, chunk.claim, endings(chunk)[:1])
        other = make_claimer(2).take()
        recorder = make_recorder(3)
        assert recorder.fail_rest(chunk.batch.pk, engine_message(5, "configerror", "no")) == 0
        assert recorder.fail_rest(chunk.batch.pk, engine_message(5, "configerror", "no"), claim=chunk.claim) == 9
        assert make_recorder(2).record(chunk.batch.pk, other.claim, endings(other)) == 2
        assert BatchProgress.objects.filter(batch=chunk.batch).total() == (3, 9)
        check_invariants()

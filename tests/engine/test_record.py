from __future__ import annotations

import json
from contextlib import suppress

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from alya_django import (
    RowFailed,
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.db import ERRCODES_MAX, OTHER, RowEnding
from alya_django.db.postgresql import ADD_ERRORS
from alya_django.engine.process import engine_message
from alya_django.models import Batch, BatchErrors, BatchProgress, BatchRow
from alya_django.testing import drain
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


def record_failures(recorder, chunk, codes, *, first=0):
    """Record failures of rows from the first on, each with messages of these errcodes."""
    failures = [
        RowEnding(row.id, Status.FAILED, None, json.dumps([{"msgid": 0, "errcode": code} for code in of_row]), None)
        for row, of_row in zip(chunk.rows[first:], codes, strict=False)
    ]
    return recorder.record(chunk.batch.pk, chunk.claim, failures)


def keep_codes(monkeypatch, count):
    """Let a batch have room for fewer errcodes."""
    monkeypatch.setattr("alya_django.db.base.ERRCODES_MAX", count)
    smaller = ADD_ERRORS.replace(f"<= {ERRCODES_MAX} ", f"<= {count} ")
    assert smaller != ADD_ERRORS
    monkeypatch.setattr("alya_django.db.postgresql.ADD_ERRORS", smaller)


def always_failing(row):
    raise RowFailed("no")


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


class ErrorCountTests:
    @pytest.mark.rule("INV-11")
    def test_counts_failed_rows_by_their_first_errcode(self, chunk, make_recorder) -> None:
        """Other messages of a row, and rows that succeed, count for nothing; the most frequent comes first."""
        codes = [["closed"], ["limit", "closed"], ["closed", "limit"], []]
        record_failures(make_recorder(1), chunk, codes)
        make_recorder(2).record(chunk.batch.pk, chunk.claim, endings(chunk)[4:])
        counts = chunk.batch.error_counts()
        assert counts == {"closed": 2, "limit": 1, OTHER: 1}
        assert list(counts) == ["closed", "limit", OTHER]
        check_invariants()

    def test_adds_to_what_was_counted_before(self, chunk, make_recorder) -> None:
        """Recordings add up, whoever's they are."""
        for number, code in enumerate(["limit", "closed", "closed"]):
            record_failures(make_recorder(number), chunk, [[code]], first=number)
        assert chunk.batch.error_counts() == {"closed": 2, "limit": 1}
        check_invariants()

    def test_counts_exactly_what_it_wrote(self, chunk, make_recorder) -> None:
        """A failure that the guard refuses is counted nowhere."""
        record_failures(make_recorder(1), chunk, [["closed"]] * 2)
        record_failures(make_recorder(1), chunk, [["limit"]] * 3)
        assert chunk.batch.error_counts() == {"closed": 2, "limit": 1}
        check_invariants()

    def test_a_batch_without_failures_has_no_counts(self, chunk, make_recorder) -> None:
        """Where nothing fails nothing is stored."""
        make_recorder(1).record(chunk.batch.pk, chunk.claim, endings(chunk))
        assert chunk.batch.error_counts() == {}
        assert not BatchErrors.objects.exists()

    @pytest.mark.rule("INV-11")
    def test_keeps_so_many_codes(self, chunk, make_recorder, monkeypatch) -> None:
        """Once there is no room, codes that are known go on counting and new ones are counted together."""
        keep_codes(monkeypatch, 3)
        record_failures(make_recorder(1), chunk, [["b"], ["a"]])
        assert chunk.batch.error_counts() == {"a": 1, "b": 1}
        record_failures(make_recorder(1), chunk, [["e"], ["b"], ["d"]], first=2)
        assert chunk.batch.error_counts() == {"b": 2, "a": 1, "d": 1, OTHER: 1}
        record_failures(make_recorder(1), chunk, [["a"], ["e"], []], first=5)
        assert chunk.batch.error_counts() == {"a": 2, "b": 2, "d": 1, OTHER: 3}

    def test_keeps_so_many_codes_of_one_recording(self, chunk, make_recorder, monkeypatch) -> None:
        """The first recording of a batch has no more room than the others."""
        keep_codes(monkeypatch, 2)
        record_failures(make_recorder(1), chunk, [["c"], ["a"], ["b"]])
        assert chunk.batch.error_counts() == {"a": 1, "b": 1, OTHER: 1}

    @pytest.mark.rule("INV-11")
    def test_the_limit_is_200_codes(self) -> None:
        """A batch whose every row has an errcode of its own keeps 200 of them."""

        def process(row):
            raise RowFailed(f"code_{row.line}")

        register_batch_processor("app", "many", process)
        batch_id = batches.submit("app", "many", range(250))
        drain()
        counts = Batch.objects.get(pk=batch_id).error_counts()
        assert (len(counts), counts[OTHER]) == (201, 50)
        check_invariants()

    def test_a_code_may_be_any_text(self, chunk, make_recorder) -> None:
        """Quotes and other scripts are kept; what is too long to be a code is counted with the others."""
        codes = ["it's", '"%s"', "ü\n\\", "x" * 255, "x" * 256]
        record_failures(make_recorder(1), chunk, [[code] for code in codes])
        assert chunk.batch.error_counts() == {**dict.fromkeys(codes[:4], 1), OTHER: 1}
        check_invariants()

    def test_an_abort_counts_no_error(self, chunk, make_recorder) -> None:
        """Rows that are aborted have no errcode; those that failed before stay counted."""
        record_failures(make_recorder(1), chunk, [["closed"]])
        batches.abort(chunk.batch.pk)
        assert chunk.batch.error_counts() == {"closed": 1}
        check_invariants()

    def test_what_is_rolled_back_is_not_counted(self, chunk, make_recorder) -> None:
        """Counts and rows are of one transaction."""
        with suppress(ZeroDivisionError), transaction.atomic():
            record_failures(make_recorder(1), chunk, [["closed"]])
            raise ZeroDivisionError
        assert chunk.batch.error_counts() == {}
        check_invariants()

    def test_of_a_slow_query_is_its_one(self) -> None:
        """A slow query that fails is counted as a row is."""
        register_slow_query_processor("app", "query", always_failing)
        query_id = slow_queries.submit("app", "query", {})
        drain()
        assert Batch.objects.get(pk=query_id).error_counts() == {"no": 1}
        check_invariants()

    @pytest.mark.rule("INV-11", "RUN-2")
    def test_failures_are_one_statement_more(self, chunk, make_recorder) -> None:
        """However many fail, and with however many codes; where none fails nothing is asked of the table."""
        recorder = make_recorder(1)
        recorder.record(chunk.batch.pk, chunk.claim, endings(chunk)[:1])
        record_failures(recorder, chunk, [["closed"]], first=1)
        counts = []
        for act in (
            lambda: recorder.record(chunk.batch.pk, chunk.claim, endings(chunk)[2:4]),
            lambda: record_failures(recorder, chunk, [["closed"]], first=4),
            lambda: record_failures(recorder, chunk, [["limit"], ["closed"], ["new"], []], first=5),
        ):
            with CaptureQueriesContext(connection) as captured:
                act()
            of_errors = [query for query in captured if "alya_batch_errors" in query["sql"]]
            counts.append((len(of_errors), len(captured) - len(of_errors)))
        (none, plain), *with_failures = counts
        # SQLite, which has one writer, reads the record and writes it.
        assert (none, with_failures) == (0, [(1 if connection.vendor == "postgresql" else 2, plain)] * 2)


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
        assert chunk.batch.error_counts() == {"configerror": 9}
        check_invariants()

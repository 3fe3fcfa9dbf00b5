"""Rows that are processed again later because they asked for it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from alya_django import (
    ErrorMessage,
    RetryLater,
    Row,
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
    status_cache,
)
from alya_django.engine.recover import Recovery
from alya_django.models import Batch, BatchRow, database
from alya_django.querysets import CLAIMS_PER_WORKER
from alya_django.testing import drain, isolated_registry, process_row
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


def later(row: Row) -> int:
    """Ask for another attempt, as long as the input says."""
    if row.attempt <= row.input:
        raise RetryLater(0)
    return row.attempt


def drain_all() -> None:
    """Work off all rows, those put off too: SQLite's clock may not see at once that their time has come."""
    drain(raise_errors=False)
    while BatchRow.objects.filter(status=Status.QUEUED).update(retry_at=Now() - timedelta(seconds=1)):
        drain(raise_errors=False)


def waits(line: int) -> timedelta:
    """Return how long a row still waits, by the database's clock."""
    row = BatchRow.objects.filter(line=line).annotate(now=Now()).get()
    return row.retry_at - row.now


class RetryLaterTests:
    @pytest.mark.rule("LAT-1")
    def test_a_row_put_off_is_processed_again(self) -> None:
        """It keeps its place in the batch; its neighbours are recorded as they end."""
        register_batch_processor("app", "op", later)
        batch_id = batches.submit("app", "op", [0, 2, 0])
        drain_all()
        check_invariants()
        assert [(row.status, row.result) for row in batches.iter_rows(batch_id)] == [
            (Status.SUCCESS, 1),
            (Status.SUCCESS, 3),
            (Status.SUCCESS, 1),
        ]
        assert list(BatchRow.objects.order_by("line").values_list("retries", "lost")) == [(0, 0), (2, 0), (0, 0)]

    @pytest.mark.rule("LAT-2")
    def test_a_row_gives_up_after_max_attempts(self) -> None:
        """The last time it fails, in the words of what it raised."""
        register_batch_processor("app", "op", later, max_attempts=2)
        batch_id = batches.submit("app", "op", [5])
        drain_all()
        check_invariants()
        row = batches.line(batch_id, 1)
        message = ErrorMessage("processing_error", vals=("RetryLater: The row was put off.",), msgid=10)
        assert (row.status, row.attempts, row.messages) == (Status.FAILED, 2, (message,))

    @pytest.mark.rule("LAT-2")
    def test_the_setting_says_how_often(self, settings) -> None:
        """MAX_ATTEMPTS holds for ops that do not say otherwise."""
        settings.ALYA = {"MAX_ATTEMPTS": 1}
        register_batch_processor("app", "op", later)
        batch_id = batches.submit("app", "op", [1])
        drain(raise_errors=False)
        assert batches.line(batch_id, 1).status == Status.FAILED

    @pytest.mark.rule("LAT-3")
    def test_waits_twice_as_long_each_time(self, settings) -> None:
        """RETRY_SECONDS, give or take a fifth, doubled by every time that it was put off before."""
        settings.ALYA = {"RETRY_SECONDS": 100}

        def op(row: Row) -> None:
            raise RetryLater

        register_batch_processor("app", "op", op)
        batches.submit("app", "op", [1])
        drain()
        assert timedelta(seconds=75) < waits(1) <= timedelta(seconds=120)
        BatchRow.objects.update(retry_at=Now() - timedelta(seconds=1))
        drain()
        assert timedelta(seconds=155) < waits(1) <= timedelta(seconds=240)
        check_invariants()

    @pytest.mark.rule("LAT-3")
    def test_waits_an_hour_at_most(self, settings) -> None:
        """However long it would be by doubling."""
        settings.ALYA = {"RETRY_SECONDS": 1_000_000}

        def op(row: Row) -> None:
            raise RetryLater

        register_batch_processor("app", "op", op)
        batches.submit("app", "op", [1])
        drain()
        assert timedelta(seconds=3_590) < waits(1) <= timedelta(seconds=3_600)

    @pytest.mark.rule("LAT-3")
    def test_waits_as_long_as_the_processor_asks_for(self) -> None:
        """A delay of its own is taken as it is."""

        def op(row: Row) -> None:
            raise RetryLater(500)

        register_batch_processor("app", "op", op)
        batches.submit("app", "op", [1])
        drain()
        assert timedelta(seconds=490) < waits(1) <= timedelta(seconds=500)

    @pytest.mark.rule("LAT-4")
    def test_retry_on_puts_a_row_off(self) -> None:
        """The exceptions named there count as RetryLater, and no others."""

        def op(row: Row) -> None:
            if row.attempt == 1:
                raise ConnectionResetError if row.input else KeyError(1)

        register_batch_processor("app", "op", op, retry_on=(OSError,))
        batch_id = batches.submit("app", "op", [True, False])
        drain(raise_errors=False)
        drain_all()
        check_invariants()
        assert [row.status for row in batches.iter_rows(batch_id)] == [Status.SUCCESS, Status.FAILED]

    @pytest.mark.rule("LAT-1")
    def test_a_slow_query_is_put_off_too(self) -> None:
        """It has no answer until it has one."""
        register_slow_query_processor("app", "op", later)
        query_id = slow_queries.submit("app", "op", 1)
        drain_all()
        check_invariants()
        assert slow_queries.result(query_id).result == 2

    @pytest.mark.rule("LAT-5")
    def test_waiting_rows_keep_no_worker_busy(self) -> None:
        """A batch whose rows all wait is not looked into, and another goes on."""

        def op(row: Row) -> None:
            raise RetryLater(1_000)

        register_batch_processor("app", "op", op)
        register_batch_processor("app", "echo", echo)
        waiting = batches.submit("app", "op", range(3))
        assert drain() == 0
        other = batches.submit("app", "echo", range(3))
        assert drain() == 3
        check_invariants()
        assert (batches.status(waiting).status, batches.status(other).status) == (Status.IN_PROGRESS, Status.SUCCESS)

    @pytest.mark.rule("LAT-6")
    @pytest.mark.parametrize("options", [{}, {"atomic": True}])
    def test_is_counted_until_the_row_has_ended(self, options) -> None:
        """However often it was put off: the summary has the rows that were and have not ended, the log one line."""

        def op(row: Row) -> int:
            if row.input and row.attempt <= 2:
                raise RetryLater(1_000) from KeyError("secret")
            return row.attempt

        register_batch_processor("app", "op", op, **options)
        batch_id = batches.submit("app", "op", [1, 0, 1, 0])
        counts = []
        for _ in range(3):
            drain()
            check_invariants()
            counts.append(batches.status(batch_id).nput_off)
            status_cache.drop(batch_id)
            BatchRow.objects.filter(status=Status.QUEUED).update(retry_at=Now() - timedelta(seconds=1))
        assert counts == [2, 2, 0]

    @pytest.mark.rule("LAT-6")
    def test_is_logged_in_one_line_a_chunk(self, caplog) -> None:
        """How many rows, and what the first of them has met."""

        def op(row: Row) -> None:
            if row.line > 1:
                raise RetryLater(1_000) from ConnectionResetError("secret")

        register_batch_processor("app", "op", op)
        batches.submit("app", "op", range(5))
        drain()
        (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert ": 4 rows were put off, line 2 by RetryLater from ConnectionResetError at " in line
        assert "secret" not in line

    @pytest.mark.rule("LAT-6")
    def test_rows_that_others_end_are_counted_no_more(self, settings) -> None:
        """Those that give up for the death of their worker, and those of a batch that cannot go on."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        register_batch_processor("app", "op", lambda row: 1 / 0, retry_on=(ZeroDivisionError,), max_attempts=2)
        batch_id = batches.submit("app", "op", [1, 2])
        drain()
        assert Batch.objects.get(pk=batch_id).nput_off() == 2
        BatchRow.objects.filter(line=1).update(status=Status.IN_PROGRESS, claim=7 * CLAIMS_PER_WORKER, done_by="gone")
        Recovery(database()).recover()
        assert Batch.objects.get(pk=batch_id).nput_off() == 1
        check_invariants()
        with isolated_registry():
            drain()
        assert sum(Batch.objects.get(pk=batch_id).progress.values_list("nput_off", flat=True)) == 0
        assert batches.status(batch_id).status is Status.FAILED
        check_invariants()

    def test_a_test_of_one_row_sees_that_it_was_put_off(self) -> None:
        """process_row returns a row that is queued."""
        register_batch_processor("app", "op", later)
        assert process_row("app", "op", 1).status == Status.QUEUED

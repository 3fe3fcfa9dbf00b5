from __future__ import annotations

import logging
import socket
import threading
import time

import pytest
from django.db import connection

from alya_django import (
    Row,
    RowResult,
    Status,
    batches,
    register_batch_processor,
    register_initializer,
    slow_queries,
)
from alya_django.engine.worker import Worker
from alya_django.models import BatchRow
from alya_django.models import Worker as WorkerRecord
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import CountingInitializer, Recording, broken, echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


class WorkerTests:
    @pytest.mark.rule("REG-1")
    def test_has_a_name_of_its_own_with_the_host(self) -> None:
        """Two workers of one process have two names, each with the host's, of at most 255 characters."""
        first, second = Worker(), Worker()
        assert first.name != second.name
        assert first.name.startswith(f"{socket.gethostname()[:200]}-")
        assert len(first.name) <= 255

    @pytest.mark.rule("RUN-5")
    def test_is_registered_while_it_works_and_no_longer(self) -> None:
        """The record tells what the worker serves, and goes with it."""
        register_batch_processor("app", "op", echo)
        with Worker() as worker:
            record = WorkerRecord.objects.get()
            assert (record.name, record.ops) == (worker.name, [["B", "app", "op"]])
        assert not WorkerRecord.objects.exists()

    @pytest.mark.rule("RUN-4")
    def test_a_stop_before_the_first_row_gives_all_back(self) -> None:
        """It came while the initializer was at work."""
        register_initializer("app", lambda app: worker.stop())
        register_batch_processor("app", "op", broken)
        batch_id = batches.submit("app", "op", range(3))
        with Worker() as worker:
            worker.run_once()
        assert {row.status for row in batches.iter_rows(batch_id)} == {Status.QUEUED}
        check_invariants()

    @pytest.mark.rule("RUN-1")
    def test_once_is_one_chunk(self) -> None:
        """``run_once`` works off one chunk and tells whether there was one."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", range(12))
        with Worker() as worker:
            assert worker.run_once()
            assert batches.status(batch_id).nsuccess == 10
            assert worker.run_once()
            assert batches.status(batch_id).status is Status.SUCCESS
            assert not worker.run_once()

    @pytest.mark.rule("RUN-1", "INV-9")
    def test_drain_is_all_there_is(self) -> None:
        """``drain`` works until nothing is left and invokes each row once."""
        recording = Recording()
        register_batch_processor("app", "op", recording)
        for _ in range(3):
            batches.submit("app", "op", range(40))
        with Worker() as worker:
            assert worker.drain() == 120
            assert worker.drain() == 0
        assert len(recording.rows) == len({row.key for row in recording.rows}) == 120
        check_invariants()

    @pytest.mark.rule("RUN-4")
    def test_stop_gives_back_what_was_not_begun(self) -> None:
        """The row in hand is finished and recorded; the others are queued again, unblamed."""
        worker = Worker()

        def stop_at_third(row: Row) -> None:
            if row.line == 3:
                worker.stop()

        register_batch_processor("app", "op", stop_at_third)
        batch_id = batches.submit("app", "op", range(10))
        with worker:
            assert worker.drain() == 3
        rows = BatchRow.objects.filter(batch=batch_id).order_by("line")
        assert [row.status for row in rows] == [Status.SUCCESS] * 3 + [Status.QUEUED] * 7
        assert {(row.lost, row.retries) for row in rows} == {(0, 0)}
        check_invariants()
        assert drain() == 7
        assert batches.status(batch_id).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("RUN-4", "INI-3")
    def test_stop_finishes_what_is_complete_and_closes_the_blocks(self) -> None:
        """Stopped at its last row, a batch is finished all the same."""
        from alya_django import register_initializer

        worker = Worker()
        initializer = CountingInitializer()
        register_initializer("app", initializer)
        register_batch_processor("app", "op", lambda row: worker.stop())
        batch_id = batches.submit("app", "op", [1])
        with worker:
            worker.run()
        assert batches.status(batch_id).status is Status.SUCCESS
        assert initializer.blocks[0].closed == 1

    @pytest.mark.rule("RUN-2")
    def test_slow_rows_are_recorded_as_they_end(self, settings) -> None:
        """In a chunk that takes long, what is done is recorded every FLUSH_SECONDS."""
        settings.ALYA = {"FLUSH_SECONDS": 0}
        seen: list[int] = []
        register_batch_processor(
            "app", "op", lambda row: seen.append(BatchRow.objects.filter(status=Status.SUCCESS).count())
        )
        batches.submit("app", "op", range(4))
        drain()
        assert seen == [0, 1, 2, 3]

    @pytest.mark.rule("ABT-5")
    def test_rows_after_an_abort_are_not_begun(self, settings) -> None:
        """The worker notices at the next flush that its claim is gone, and drops the rest of the chunk."""
        settings.ALYA = {"FLUSH_SECONDS": 0}
        recording: list[int] = []

        def abort_at_third(row: Row) -> RowResult:
            recording.append(row.line)
            if row.line == 3:
                batches.abort(row.batch_id)
            return RowResult.success(output_lines={"a": "x"})

        register_batch_processor("app", "op", abort_at_third)
        batch_id = batches.submit("app", "op", range(9))
        assert drain() == 2
        summary = batches.status(batch_id)
        assert recording == [1, 2, 3]
        assert (summary.status, summary.nsuccess, summary.naborted, summary.output_files) == (Status.ABORTED, 2, 7, {})
        assert batches.line(batch_id, 3).result is None
        check_invariants()

    def test_one_line_is_logged_for_a_chunk(self, caplog) -> None:
        """At INFO there is a line per chunk, and none with a payload."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", ["secret"] * 5)
        with caplog.at_level(logging.INFO):
            drain()
        lines = [record.getMessage() for record in caplog.records if str(batch_id) in record.getMessage()]
        assert len(lines) == 1
        assert lines[0].startswith(f"app/op {batch_id}: 5 rows from line 1 in ")
        assert "secret" not in caplog.text

    def test_the_exceptions_of_a_chunk_are_logged_once(self, caplog) -> None:
        """Many rows that fail of one fault make one warning, with the first of them."""
        register_batch_processor("app", "op", broken)
        batches.submit("app", "op", range(5))
        drain(raise_errors=False)
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        (said,) = [record.getMessage().split(": ")[1] for record in warnings]
        assert said.startswith("5 rows failed by an exception, line 1 by ZeroDivisionError at tests.processors:")

    def test_debug_keeps_no_statements(self, settings, caplog) -> None:
        """With DEBUG on a worker warns, and clears Django's log of statements after each chunk."""
        settings.DEBUG = True
        register_batch_processor("app", "op", echo)
        batches.submit("app", "op", range(5))
        with Worker() as worker:
            worker.round()
            assert len(connection.queries) == 0
        assert "DEBUG is on" in caplog.text

    def test_beats(self, settings) -> None:
        """The record's heartbeat moves while the worker works."""
        settings.ALYA = {"HEARTBEAT_SECONDS": 0}
        with Worker() as worker:
            WorkerRecord.objects.update(heartbeat="2000-01-01T00:00Z")
            worker.round()
            assert WorkerRecord.objects.get().heartbeat.year > 2000

    def test_tells_its_rate(self, settings) -> None:
        """With the heartbeat goes how many rows a second the worker ends."""
        settings.ALYA = {"HEARTBEAT_SECONDS": 0}
        register_batch_processor("app", "op", echo)
        batches.submit("app", "op", range(5))
        with Worker() as worker:
            worker.drain()
            worker.round()
            batches.submit("app", "op", range(5))
            worker.round()
            worker.round()
            assert WorkerRecord.objects.get().rate > 0


class RunTests:
    def test_works_until_stopped(self) -> None:
        """An endless worker takes what comes until it is told to end."""
        worker = Worker()
        register_batch_processor("app", "op", lambda row: worker.stop() if row.input == "last" else None)
        first = batches.submit("app", "op", range(20))
        last = batches.submit("app", "op", ["last"])
        with worker:
            worker.run()
        assert batches.status(first).nsuccess >= 10
        assert batches.status(last).status is Status.SUCCESS

    def test_stops_while_it_rests(self, settings) -> None:
        """A long rest is cut short."""
        settings.ALYA = {"POLL_SECONDS": 60}
        worker = Worker()
        stopper = threading.Timer(0.2, worker.stop)
        started = time.monotonic()
        with worker:
            stopper.start()
            worker.run()
        stopper.join()
        assert time.monotonic() - started < 30

    def test_sweeps_at_the_start(self, settings) -> None:
        """What was left is seen to before the first claim."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        order: list[str] = []
        worker = Worker()

        def process(row: Row) -> None:
            order.append(slow_queries.result(query_id).status)
            worker.stop()

        query_id = slow_queries.submit("nobody", "knows", {})
        register_batch_processor("app", "op", process)
        batches.submit("app", "op", [1])
        with worker:
            worker.run()
        assert order == [Status.FAILED]

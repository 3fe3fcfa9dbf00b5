from __future__ import annotations

import os
import signal
from collections import Counter
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, ProgrammingError
from django.db.models.functions import Now
from django.utils.timezone import localtime

from alya_django import (
    RetryLater,
    Row,
    Status,
    batches,
    own_queries,
    register_batch_processor,
    register_slow_query_processor,
)
from alya_django.engine import supervisor
from alya_django.engine import worker as engine_worker
from alya_django.management.commands import alya_worker
from alya_django.models import Batch, BatchRow, Worker, database
from tests.concurrency.connections import wait_until
from tests.processors import echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


@pytest.fixture(autouse=True)
def signals():
    """Give the signals back that the command takes."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


class AlyaWorkerTests:
    def test_says_what_it_serves_and_what_it_did(self, capsys) -> None:
        """A line at the start, and with --drain a line at the end."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", range(12))
        call_command("alya_worker", "--drain")
        first, last = capsys.readouterr().out.splitlines()
        assert first.endswith(" serves app/op (batch).")
        assert last == "12 rows ended."
        assert batches.status(batch_id).status is Status.SUCCESS

    @pytest.mark.rule("RUN-11")
    def test_a_drain_says_what_it_leaves(self, capsys) -> None:
        """How many rows were put off, and until when; not those of a batch that is held."""

        def later(row: Row) -> None:
            raise RetryLater(row.input)

        register_batch_processor("app", "op", later)
        batches.submit("app", "op", [3_600, 7_200])
        held = batches.submit("app", "op", [3_600])
        Batch.objects.filter(pk=held).update(held_at=Now())
        BatchRow.objects.filter(batch=held).update(retry_at=Now() + timedelta(hours=3))
        call_command("alya_worker", "--drain")
        *_, ended, left = capsys.readouterr().out.splitlines()
        first, last = (localtime(row.retry_at) for row in BatchRow.objects.exclude(batch=held).order_by("line"))
        assert ended == "0 rows ended."
        assert left == (
            f"2 rows wait for another try: the first until {first:%Y-%m-%d %H:%M:%S}, "
            f"the last until {last:%Y-%m-%d %H:%M:%S}."
        )

    def test_once_is_one_chunk(self) -> None:
        """Ten rows of an op that is new to the worker."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", range(12))
        call_command("alya_worker", "--once")
        assert batches.status(batch_id).nsuccess == 10

    @pytest.mark.rule("SEC-30")
    def test_once_quotes_nothing_of_what_ends_it(self, monkeypatch) -> None:
        """It says it as logs do; what the database says of a statement has the values in it."""

        def refuse(*args, **kwargs) -> None:
            raise DatabaseError("DETAIL: Key (iban)=(DE89370400440532013000)")

        register_batch_processor("app", "op", echo)
        batches.submit("app", "op", [1])
        monkeypatch.setattr(type(database()), "record_rows", refuse)
        with pytest.raises(CommandError, match=r"^DatabaseError at [^()]*$"):
            call_command("alya_worker", "--once")

    def test_ends_gently_at_the_first_signal(self) -> None:
        """It passes the signal on, and returns when the row in hand is done; the signals are then as they were."""
        before = signal.getsignal(signal.SIGTERM)

        def op(row: Row) -> None:
            # Any thread of the worker may get the signal, but its handler runs here.
            handler, seen = signal.getsignal(signal.SIGTERM), []
            signal.signal(signal.SIGTERM, lambda number, frame: seen.append(handler(number, frame)))
            os.kill(os.getppid(), signal.SIGTERM)
            wait_until(lambda: seen, "the signal is passed on")

        register_batch_processor("app", "op", op)
        batch_id = batches.submit("app", "op", [1, 2])
        call_command("alya_worker")
        assert [row.status for row in batches.iter_rows(batch_id)] == [Status.SUCCESS, Status.QUEUED]
        assert signal.getsignal(signal.SIGTERM) is before
        assert not Worker.objects.exists()

    def test_once_ends_gently_at_a_signal(self) -> None:
        """It needs no supervisor for that; a second signal has its ordinary effect."""
        seen = []

        def op(row: Row) -> None:
            signal.raise_signal(signal.SIGTERM)
            seen.append(signal.getsignal(signal.SIGTERM))

        register_batch_processor("app", "op", op)
        batch_id = batches.submit("app", "op", [1, 2])
        call_command("alya_worker", "--once")
        assert [row.status for row in batches.iter_rows(batch_id)] == [Status.SUCCESS, Status.QUEUED]
        assert seen == [signal.SIG_DFL]

    @pytest.mark.rule("RUN-3")
    def test_an_error_that_is_no_outage_ends_it(self, monkeypatch) -> None:
        """To wait would not help."""

        def fail(self, **options) -> None:
            if "databases" in options:
                raise ProgrammingError("a fault")

        monkeypatch.setattr(alya_worker.Command, "check", fail)
        register_batch_processor("app", "op", echo)
        with pytest.raises(ProgrammingError):
            call_command("alya_worker", "--drain")

    def test_begins_anew_when_a_file_has_changed(self, monkeypatch) -> None:
        """All workers have stopped by then."""
        begun = []
        monkeypatch.setattr(alya_worker.Files, "have_changed", lambda self: True)
        monkeypatch.setattr(alya_worker, "begin_anew", lambda: begun.append(Worker.objects.count()))
        register_batch_processor("app", "op", echo)
        call_command("alya_worker", "--reload")
        assert begun == [0]

    @pytest.mark.rule("RUN-9")
    def test_fails_where_workers_cannot_live(self, monkeypatch) -> None:
        """It says so, and leaves nothing running."""

        def die(self) -> None:
            raise RuntimeError("no life here")

        monkeypatch.setattr(supervisor, "EARLY_DEATHS_MAX", 2)
        monkeypatch.setattr(engine_worker.Worker, "__enter__", die)
        register_batch_processor("app", "op", echo)
        with pytest.raises(CommandError, match=r"^The worker processes keep dying\.$"):
            call_command("alya_worker")

    def test_refuses_processes_that_could_not_write(self, monkeypatch) -> None:
        """Where one writes at a time there is one worker."""
        monkeypatch.setattr(type(database()), "allows_many_writers", False)
        register_batch_processor("app", "op", echo)
        with pytest.raises(CommandError) as caught:
            call_command("alya_worker", "--processes", "2")
        assert str(caught.value) == "SQLite lets one process write at a time: --processes is 1."

    @pytest.mark.rule("RUN-10")
    def test_replaces_a_process_after_max_rows(self, tmp_path) -> None:
        """What the rows of a process leave behind ends with it; none has more, whatever the pace of its op."""
        pids = tmp_path / "pids"
        parent = os.getpid()

        def op(row: Row) -> None:
            with pids.open("a") as file:
                file.write(f"{os.getpid()}\n")
            if row.line == 90:
                os.kill(parent, signal.SIGTERM)

        register_batch_processor("app", "op", op)
        batches.submit("app", "op", range(90))
        call_command("alya_worker", "--max-rows", "30")
        rows = Counter(pids.read_text().split())
        assert list(rows.values()) == [30, 30, 30]
        assert str(parent) not in rows

    @pytest.mark.parametrize("value", ["0", "-1", "many"])
    def test_refuses_a_number_of_processes_that_is_none(self, value) -> None:
        """The option is named."""
        with pytest.raises(CommandError, match=rf"argument --processes: '{value}' is no whole number above 0\.$"):
            call_command("alya_worker", "--processes", value)

    @pytest.mark.parametrize(
        ("options", "where"),
        [
            ([], ""),
            (["--app", "typo"], " for --app typo"),
            (["--app", "a", "--op", "b"], " for --app a and --op b"),
            (["--kind", "slow-query"], " for --kind slow-query"),
        ],
    )
    def test_refuses_to_serve_nothing(self, options, where) -> None:
        """A worker that could only wait says so, and what to do."""
        with pytest.raises(CommandError) as raised:
            call_command("alya_worker", *options)
        assert str(raised.value) == (
            f"No processor is registered{where}; AppConfig.ready() is the place to register one."
        )

    @pytest.mark.rule("SCO-4")
    @pytest.mark.parametrize("options", [[], ["--kind", "slow-query"], ["--op", "abort"]])
    def test_refuses_to_serve_nothing_of_the_project(self, options, capsys) -> None:
        """Alya's own slow queries are no reason to start a worker, unless their app is named."""
        own_queries.register()
        with pytest.raises(CommandError, match=r"^No processor is registered"):
            call_command("alya_worker", *options)
        call_command("alya_worker", "--drain", "--app", "alya")
        assert capsys.readouterr().out.splitlines()[0].endswith(" serves Alya's own slow queries.")

    @pytest.mark.rule("SCO-1")
    def test_refuses_one_name_that_nobody_has(self) -> None:
        """A typo among several names is not left out silently."""
        register_batch_processor("app", "op", echo)
        with pytest.raises(CommandError, match=r"^No processor is registered for --op typo; AppConfig"):
            call_command("alya_worker", "--app", "app", "--op", "op", "--op", "typo")

    @pytest.mark.rule("SCO-1")
    def test_serves_the_ops_and_the_kind_it_is_told(self, capsys) -> None:
        """Options that are given again add to each other."""
        for op in ("a", "b", "c"):
            register_batch_processor("app", op, echo)
            register_slow_query_processor("app", op, echo)
            batches.submit("app", op, [1])
        call_command("alya_worker", "--drain", "--op", "a", "--op", "C", "--kind", "batch")
        first, last = capsys.readouterr().out.splitlines()
        assert first.endswith(" serves app/a (batch), app/c (batch).")
        assert last == "2 rows ended."

    def test_refuses_what_is_no_name(self) -> None:
        """An app that cannot be one is an error of the command line."""
        with pytest.raises(CommandError, match="app: 'a b' is no name"):
            call_command("alya_worker", "--app", "a b")

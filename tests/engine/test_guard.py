"""Rows whose code leaves the connection, the context or the worker in another state than it found them."""

from __future__ import annotations

import asyncio
import logging
from copy import deepcopy

import pytest
from django.db import connection, transaction

from alya_django import (
    BatchProcessor,
    ErrorMessage,
    InitBlock,
    Row,
    RowFailed,
    Status,
    batches,
    register_batch_processor,
    register_initializer,
)
from alya_django.models import Batch
from alya_django.testing import drain
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite, pytest.mark.usefixtures("registry")]

LEFT_OPEN = ErrorMessage(
    "processing_error", vals=("TransactionLeftOpen: A transaction was left open; it was rolled back.",), msgid=10
)


def begin_by_hand(row: Row) -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE alya_batches SET input_file = 'left'")


def turn_autocommit_off(row: Row) -> None:
    transaction.set_autocommit(False)
    Batch.objects.update(input_file="left")


def leave_an_atomic_block(row: Row) -> None:
    transaction.atomic().__enter__()
    Batch.objects.update(input_file="left")


def fail_inside(row: Row) -> None:
    begin_by_hand(row)
    raise ValueError("inside")


class OpenTransactionTests:
    @pytest.mark.rule("ERR-3")
    @pytest.mark.parametrize("leave", [begin_by_hand, turn_autocommit_off, leave_an_atomic_block, fail_inside])
    def test_what_a_row_leaves_open_is_rolled_back_and_its_failure(self, leave) -> None:
        """The row fails, what it wrote is gone, and the other rows are committed as ever."""

        def process(row: Row) -> None:
            if row.line == 2:
                leave(row)

        register_batch_processor("app", "op", process)
        batch_id = batches.submit("app", "op", range(30))
        drain(raise_errors=False)
        connection.close()
        result = batches.result(batch_id)
        assert (result.status, result.nsuccess, result.nfailed) == (Status.FAILED, 29, 1)
        assert result.rows[1].messages == (LEFT_OPEN,)
        assert Batch.objects.get(pk=batch_id).input_file == ""
        check_invariants()

    @pytest.mark.rule("MKD-2")
    def test_what_mark_done_leaves_open_is_rolled_back_and_kept(self) -> None:
        """The worker goes on, on a connection without a past."""

        class Leaving(BatchProcessor):
            def do_batch_job(self, row: Row) -> None:
                """Succeed."""

            def mark_done(self, details) -> None:
                leave_an_atomic_block(None)

        register_batch_processor("app", "op", Leaving)
        batch_id = batches.submit("app", "op", [1])
        drain(raise_errors=False)
        connection.close()
        batch = Batch.objects.get(pk=batch_id)
        assert (batch.status, batch.input_file) == (Status.SUCCESS, "")
        assert "TransactionLeftOpen" in batch.mark_done_error


class ConnectionTests:
    def test_a_row_may_close_the_connection(self) -> None:
        """The next statement opens another."""
        register_batch_processor("app", "op", lambda row: connection.close())
        batch_id = batches.submit("app", "op", range(3))
        drain()
        assert batches.status(batch_id).status is Status.SUCCESS

    def test_a_lost_connection_costs_the_row_that_lost_it(self) -> None:
        """The rows after it have a new one."""

        def process(row: Row) -> None:
            if row.line == 2:
                connection.connection.close()
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")

        register_batch_processor("app", "op", process)
        batch_id = batches.submit("app", "op", range(5))
        drain(raise_errors=False)
        summary = batches.status(batch_id)
        assert (summary.nsuccess, summary.nfailed) == (4, 1)
        check_invariants()


class ContextTests:
    @pytest.mark.rule("ERR-3")
    def test_what_a_row_does_to_its_context_is_its_own(self) -> None:
        """Rows share neither the context nor what lies in it."""
        seen = []

        def process(row: Row) -> None:
            seen.append(deepcopy(row.context))
            row.context["n"] = row.line
            row.context["list"].append(row.line)

        register_batch_processor("app", "op", process)
        batches.submit("app", "op", range(3), context={"list": [0]})
        drain()
        assert seen == [{"list": [0]}] * 3


class PoisonTests:
    @pytest.mark.rule("ERR-3")
    def test_a_row_failed_that_was_never_made_fails_its_row_alone(self) -> None:
        """A subclass that forgets its base has no messages."""

        class Forgetful(RowFailed):
            def __init__(self, why: str) -> None:
                self.why = why

        def process(row: Row) -> None:
            if row.line == 1:
                raise Forgetful("no")

        register_batch_processor("app", "op", process)
        batch_id = batches.submit("app", "op", range(2))
        drain(raise_errors=False)
        first, second = batches.result(batch_id).rows
        assert first.messages[0].vals[0].startswith("AttributeError")
        assert second.status is Status.SUCCESS

    @pytest.mark.rule("ERR-3")
    def test_a_cancelled_coroutine_fails_its_row_alone(self) -> None:
        """CancelledError is no Exception, and no reason for the worker to end."""

        class Cancelled(BatchProcessor):
            async def do_batch_job(self, row: Row) -> None:
                if row.line == 1:
                    raise asyncio.CancelledError

        register_batch_processor("app", "op", Cancelled)
        batch_id = batches.submit("app", "op", range(2))
        drain(raise_errors=False)
        assert [row.status for row in batches.iter_rows(batch_id)] == [Status.FAILED, Status.SUCCESS]

    def test_an_initializer_whose_error_cannot_be_described(self, caplog) -> None:
        """The rows are given back whatever the exception does when it is printed."""

        class Unspeakable(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        def fail(app: str) -> InitBlock:
            raise Unspeakable

        register_initializer("app", fail)
        register_batch_processor("app", "op", lambda row: None)
        batch_id = batches.submit("app", "op", [1])
        with caplog.at_level(logging.ERROR):
            drain(raise_errors=False)
        assert "The initializer of app 'app' failed: " in caplog.text
        assert batches.line(batch_id, 1).status is Status.QUEUED

    def test_a_class_may_register_another_while_it_is_made(self, registry) -> None:
        """Registering takes no lock while user code runs."""

        class Nesting(BatchProcessor):
            def __init__(self) -> None:
                register_batch_processor("app", "inner", lambda row: None)

            def do_batch_job(self, row: Row) -> None:
                """Succeed."""

        register_batch_processor("app", "outer", Nesting)
        assert ("app", "inner") in registry
        assert ("app", "outer") in registry


class LongMarkDoneTests:
    @pytest.mark.rule("MKD-3")
    def test_counts_although_another_took_over(self) -> None:
        """A call that took longer than its lease, and was begun again elsewhere, is one that has returned."""

        class Long(BatchProcessor):
            calls = 0

            def do_batch_job(self, row: Row) -> None:
                """Succeed."""

            def mark_done(self, details) -> None:
                Long.calls += 1
                Batch.objects.filter(pk=details.id).update(
                    finisher="00000000-0000-0000-0000-000000000001", finisher_until="2999-01-01T00:00Z"
                )

        register_batch_processor("app", "op", Long)
        batch_id = batches.submit("app", "op", [1])
        drain()
        assert Batch.objects.get(pk=batch_id).marked_done_at is not None
        Batch.objects.update(finisher_until="2000-01-01T00:00Z")
        drain()
        assert Long.calls == 1

    def test_one_app_at_rest_keeps_no_other_waiting(self, monkeypatch) -> None:
        """However many ends an app's failing initializer keeps back, those of other apps are told."""
        monkeypatch.setattr("alya_django.engine.deliver.DELIVERIES", 2)
        told = []

        class Telling(BatchProcessor):
            def do_batch_job(self, row: Row) -> None:
                """Succeed."""

            def mark_done(self, details) -> None:
                told.append(details.app)

        def fail(app: str) -> None:
            raise OSError("down")

        register_initializer("ill", fail)
        for app in ("ill", "well"):
            register_batch_processor(app, "op", Telling)
        for app in ("ill", "ill", "ill", "well"):
            batches.abort(batches.submit(app, "op", [1]))
        drain(raise_errors=False)
        assert told == ["well"]

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial

import pytest
from django.db import transaction

from alya_django import (
    InvalidInput,
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    signals,
    slow_queries,
)
from alya_django.models import Batch
from alya_django.status import Kind
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import echo, fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


@contextmanager
def listening(signal):
    """Keep what a signal sends."""
    received = []

    def receive(sender, **arguments):
        received.append((sender, arguments))

    signal.connect(receive)
    try:
        yield received
    finally:
        signal.disconnect(receive)


@contextmanager
def breaking(signal):
    """Have a receiver that raises."""

    def fail(sender, **arguments):
        raise ZeroDivisionError("division by zero")

    signal.connect(fail)
    try:
        yield
    finally:
        signal.disconnect(fail)


class BatchSubmittedTests:
    @pytest.mark.rule("SUB-1")
    def test_is_sent_after_the_commit(self, django_capture_on_commit_callbacks):
        """Whoever listens hears of a batch when others can see it, not before."""
        with listening(signals.batch_submitted) as received, django_capture_on_commit_callbacks(execute=True):
            batch_id = batches.submit("Bank", "Echo", [1, 2])
            assert received == []
        ((sender, arguments),) = received
        assert sender is Batch
        del arguments["signal"]
        assert arguments == {"batch_id": batch_id, "app": "bank", "op": "echo", "kind": Kind.BATCH}

    @pytest.mark.rule("SQS-1")
    def test_tells_a_slow_query(self, django_capture_on_commit_callbacks):
        """A slow query is told with its kind."""
        with listening(signals.batch_submitted) as received, django_capture_on_commit_callbacks(execute=True):
            query_id = slow_queries.submit("bank", "report", {})
        ((_, arguments),) = received
        assert (arguments["batch_id"], arguments["kind"]) == (query_id, Kind.SLOW_QUERY)

    @pytest.mark.rule("API-7")
    def test_is_not_sent_of_what_is_rolled_back(self, django_capture_on_commit_callbacks):
        """A submit that the caller takes back was never told."""

        def submit_and_fail():
            with transaction.atomic():
                batches.submit("bank", "echo", [1])
                raise LookupError

        with (
            listening(signals.batch_submitted) as received,
            django_capture_on_commit_callbacks(execute=True),
            pytest.raises(LookupError),
        ):
            submit_and_fail()
        assert received == []

    def test_is_not_sent_of_what_is_refused(self, django_capture_on_commit_callbacks):
        """A batch without rows is not told."""
        with (
            listening(signals.batch_submitted) as received,
            django_capture_on_commit_callbacks(execute=True),
            pytest.raises(InvalidInput),
        ):
            batches.submit("bank", "echo", [])
        assert received == []

    def test_bears_a_receiver_that_raises(self, django_capture_on_commit_callbacks, caplog):
        """The submit stands, and the other receivers are told."""
        with (
            breaking(signals.batch_submitted),
            listening(signals.batch_submitted) as received,
            caplog.at_level(logging.ERROR, "alya_django"),
            django_capture_on_commit_callbacks(execute=True),
        ):
            batch_id = batches.submit("bank", "echo", [1])
        assert batches.status(batch_id).status is Status.QUEUED
        assert len(received) == 1
        assert "The receiver breaking.<locals>.fail failed: ZeroDivisionError at tests.test_signals:" in caplog.text

    def test_bears_a_receiver_without_a_name(self, django_capture_on_commit_callbacks, caplog):
        """What can be called and fails is logged by its type."""

        def fail(sender, **arguments):
            raise ZeroDivisionError

        receiver = partial(fail)
        signals.batch_submitted.connect(receiver)
        try:
            with django_capture_on_commit_callbacks(execute=True):
                batch_id = batches.submit("bank", "echo", [1])
        finally:
            signals.batch_submitted.disconnect(receiver)
        assert batches.status(batch_id).status is Status.QUEUED
        assert "The receiver partial failed: ZeroDivisionError at tests.test_signals:" in caplog.text


class BatchFinishedTests:
    @pytest.mark.rule("DON-2")
    def test_is_sent_once_with_the_details(self, registry):
        """A finished batch is told with what is kept of it, when a reader finds the same."""
        register_batch_processor("bank", "fail", fail_odd)
        batch_id = batches.submit("bank", "fail", [1, 2, 3], context={"a": 1}, input_file="in.csv", requested_by="eve")
        with listening(signals.batch_finished) as received:
            drain()
            drain()
        ((sender, arguments),) = received
        details = arguments["details"]
        assert sender is Batch
        assert (details.id, details.app, details.op, details.kind) == (batch_id, "bank", "fail", Kind.BATCH)
        assert (details.context, details.input_file, details.requested_by) == ({"a": 1}, "in.csv", "eve")
        assert (details.status, details.nrows) == (Status.FAILED, 3)
        assert (details.nsuccess, details.nfailed, details.naborted) == (1, 2, 0)
        assert details.requested_at <= details.started_at <= details.done_at
        assert details.init_block is None
        check_invariants()

    def test_finds_the_state_committed(self, registry):
        """A receiver that asks for the batch gets its final state."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1])
        seen = []

        def receive(sender, details, **arguments):
            seen.append(batches.result(details.id).status)

        signals.batch_finished.connect(receive)
        try:
            drain()
        finally:
            signals.batch_finished.disconnect(receive)
        assert seen == [Status.SUCCESS]
        assert batches.status(batch_id).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("SQD-5")
    def test_tells_a_slow_query(self, registry):
        """An answered slow query is told too."""
        register_slow_query_processor("bank", "report", echo)
        query_id = slow_queries.submit("bank", "report", 1)
        with listening(signals.batch_finished) as received:
            drain()
        ((_, arguments),) = received
        assert (arguments["details"].id, arguments["details"].status) == (query_id, Status.SUCCESS)
        check_invariants()

    @pytest.mark.rule("ABT-1", "SQA-1")
    @pytest.mark.parametrize("verbs", [batches, slow_queries], ids=["batch", "slow query"])
    def test_is_sent_of_an_abort_after_the_commit(self, verbs, django_capture_on_commit_callbacks):
        """An abort is told once it is committed, once."""
        rows = [1] if verbs is batches else 1
        batch_id = verbs.submit("bank", "echo", rows)
        with listening(signals.batch_finished) as received:
            with django_capture_on_commit_callbacks(execute=True):
                verbs.abort(batch_id)
                assert received == []
            with django_capture_on_commit_callbacks(execute=True):
                verbs.abort(batch_id)
        ((_, arguments),) = received
        assert (arguments["details"].id, arguments["details"].status) == (batch_id, Status.ABORTED)
        check_invariants()

    def test_bears_a_receiver_that_raises(self, registry, caplog):
        """The batch ends all the same, and the others are told."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [1])
        with (
            breaking(signals.batch_finished),
            listening(signals.batch_finished) as received,
            caplog.at_level(logging.ERROR, "alya_django"),
        ):
            drain()
        assert batches.status(batch_id).status is Status.SUCCESS
        assert len(received) == 1
        check_invariants()

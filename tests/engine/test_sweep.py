from __future__ import annotations

import logging

import pytest

from alya_django import ErrorMessage, Status, batches, register_batch_processor, slow_queries
from alya_django.db import RowEnding
from alya_django.engine.worker import Worker
from alya_django.models import Batch, BatchRow
from alya_django.models import Worker as WorkerRecord
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import Recording, echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


class UnservedTests:
    def test_a_batch_that_nobody_serves_keeps_waiting(self) -> None:
        """Within CONFIG_FAILURE_SECONDS an op that no worker knows costs nothing but time."""
        batch_id = batches.submit("app", "op", [1, 2])
        assert drain() == 0
        assert batches.status(batch_id).status is Status.QUEUED

    @pytest.mark.rule("ERR-1", "ERR-4")
    def test_fails_with_message_2_after_the_time_allowed(self, settings, caplog) -> None:
        """All its rows fail for the missing processor, and the batch is finished as any other."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        batch_id = batches.submit("app", "op", [1, 2, 3])
        with caplog.at_level(logging.ERROR):
            assert drain() == 0
        result = batches.result(batch_id)
        assert (result.status, result.nfailed) == (Status.FAILED, 3)
        expected = ErrorMessage(
            "configerror", vals=("No BatchProcessor is registered for app 'app' and op 'op'.",), msgid=2
        )
        assert {row.messages for row in result.rows} == {(expected,)}
        assert "No BatchProcessor is registered" in caplog.text
        check_invariants()

    @pytest.mark.rule("ERR-1", "SQD-3")
    def test_a_slow_query_fails_likewise(self, settings) -> None:
        """The message names the kind of processor that is missing."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        register_batch_processor("app", "op", echo)
        query_id = slow_queries.submit("app", "op", {})
        drain()
        answer = slow_queries.result(query_id)
        assert answer.status is Status.FAILED
        assert answer.messages[0].vals == ("No SlowQueryProcessor is registered for app 'app' and op 'op'.",)
        check_invariants()

    def test_an_op_of_another_worker_is_not_judged(self, settings) -> None:
        """What any worker serves is served."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        WorkerRecord.objects.create(name="other", host="other", pid=1, version="1", ops=[["B", "app", "op"]])
        batch_id = batches.submit("app", "op", [1])
        drain()
        assert batches.status(batch_id).status is Status.QUEUED

    def test_a_worker_that_has_long_been_silent_serves_nothing(self, settings) -> None:
        """The record of a worker that died keeps no batch waiting for ever."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        WorkerRecord.objects.create(
            name="dead", host="dead", pid=1, version="1", ops=[["B", "app", "op"]], heartbeat="2000-01-01T00:00Z"
        )
        batch_id = batches.submit("app", "op", [1])
        drain()
        assert batches.status(batch_id).status is Status.FAILED

    def test_a_narrowed_worker_judges_only_its_app(self, settings) -> None:
        """A worker of one app leaves the batches of others alone."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("other", "op", [1])
        drain(app="app")
        assert batches.status(batch_id).status is Status.QUEUED

    def test_a_waiting_batch_is_not_judged(self, settings) -> None:
        """Who submits may register later, as long as the batch waits."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        batch_id = batches.submit("app", "op", [1], wait=True)
        drain()
        assert batches.status(batch_id).status is Status.WAIT

    @pytest.mark.rule("MKD-4")
    def test_an_aborted_batch_that_nobody_serves_is_closed(self, settings) -> None:
        """Its end is told to nobody, and it is not looked at for ever."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        batch_id = batches.submit("app", "op", [1])
        batches.abort(batch_id)
        drain()
        assert Batch.objects.get(pk=batch_id).marked_done_at is not None


class SweepTests:
    @pytest.mark.rule("MKD-1")
    def test_leaves_the_end_of_the_other_kind_to_who_serves_it(self) -> None:
        """A processor for the batches of an op says nothing about its slow queries."""
        register_batch_processor("app", "op", echo)
        query_id = slow_queries.submit("app", "op", {})
        slow_queries.abort(query_id)
        drain()
        assert Batch.objects.get(pk=query_id).marked_done_at is None

    @pytest.mark.rule("FIN-3")
    def test_finishes_what_nobody_finished(self, make_claimer, make_recorder) -> None:
        """A batch whose last rows were recorded by a worker that then died is finished by the next sweep."""
        recording = Recording()
        register_batch_processor("app", "op", recording)
        batch_id = batches.submit("app", "op", [1, 2])
        chunk = make_claimer(1).take()
        endings = [RowEnding(row.id, Status.SUCCESS, "{}", None, None) for row in chunk.rows]
        make_recorder(1).record(batch_id, chunk.claim, endings)
        assert drain() == 0
        assert batches.status(batch_id).status is Status.SUCCESS
        assert len(recording.done) == 1
        check_invariants()

    def test_leaves_running_and_finished_batches_alone(self, make_claimer) -> None:
        """A batch with a row in somebody's hands stays as it is, one that has ended too."""
        register_batch_processor("app", "op", echo)
        finished = batches.submit("app", "op", [1])
        drain()
        running = batches.submit("app", "op", [1])
        make_claimer(1).take()
        before = list(Batch.objects.order_by("pk").values())
        drain()
        assert list(Batch.objects.order_by("pk").values()) == before
        assert batches.status(finished).status is Status.SUCCESS
        assert batches.status(running).status is Status.IN_PROGRESS

    def test_looks_again_into_batches_with_rows_that_are_due(self) -> None:
        """A drained batch whose rows are due again is worked off."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1])
        Batch.objects.filter(pk=batch_id).update(drained=True, status=Status.IN_PROGRESS)
        BatchRow.objects.filter(batch=batch_id).update(retry_at="2000-01-01T00:00Z")
        with Worker() as worker:
            assert worker.round() is None
            assert worker.drain() == 1
        check_invariants()

from __future__ import annotations

import threading

import pytest
from django.db import OperationalError

from alya_django import Row, Status, batches, register_batch_processor
from alya_django.engine.worker import Worker
from alya_django.models import Worker as WorkerRecord
from tests.concurrency.connections import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]

LONG_AGO = "2000-01-01T00:00Z"


class HeartbeatTests:
    def test_goes_on_through_a_long_row(self, settings) -> None:
        """A worker that a row keeps busy is seen alive, by a thread on a connection of its own."""
        settings.ALYA = {"HEARTBEAT_SECONDS": 0.02}

        def take_long(row: Row) -> None:
            WorkerRecord.objects.update(heartbeat=LONG_AGO)
            wait_until(lambda: WorkerRecord.objects.get().heartbeat.year > 2000, "the heart beats")

        register_batch_processor("app", "op", take_long)
        batch_id = batches.submit("app", "op", [1])
        with Worker(beats_alone=True) as worker:
            worker.drain()
        assert batches.status(batch_id).status is Status.SUCCESS

    @pytest.mark.rule("ADM-43")
    def test_says_that_the_worker_is_to_stop(self, settings) -> None:
        """Who was told to stop, and has a row in hand, is seen to be stopping."""
        settings.ALYA = {"HEARTBEAT_SECONDS": 0.02}
        seen = []

        def take_long(row: Row) -> None:
            seen.append(WorkerRecord.objects.get().is_stopping)
            worker.stop()
            wait_until(lambda: WorkerRecord.objects.get().is_stopping, "the heart beats")

        register_batch_processor("app", "op", take_long)
        batches.submit("app", "op", [1])
        with Worker(beats_alone=True) as worker:
            worker.drain()
        assert seen == [False]

    @pytest.mark.parametrize("error", [OSError("gone"), OperationalError("the server is gone")])
    def test_goes_on_after_a_beat_that_failed(self, settings, monkeypatch, caplog, error) -> None:
        """It is logged in one line; the next beat uses a new connection."""
        settings.ALYA = {"HEARTBEAT_SECONDS": 0.02}
        beat, failures = type(WorkerRecord.objects.all()).beat, [error]

        def fail_once(self, rate, **state):
            if failures:
                raise failures.pop()
            return beat(self, rate, **state)

        monkeypatch.setattr(type(WorkerRecord.objects.all()), "beat", fail_once)
        with Worker(beats_alone=True):
            WorkerRecord.objects.update(heartbeat=LONG_AGO)
            wait_until(lambda: WorkerRecord.objects.get().heartbeat.year > 2000, "the heart beats again")
        (record,) = [record for record in caplog.records if record.name.startswith("alya_django")]
        assert record.getMessage().startswith(f"A heartbeat failed: {type(error).__name__} at ")
        assert not record.exc_info

    @pytest.mark.rule("RUN-5")
    def test_ends_with_the_worker(self, settings) -> None:
        """No thread is left, and no record comes back."""
        settings.ALYA = {"HEARTBEAT_SECONDS": 0.01}
        with Worker(beats_alone=True):
            assert any(thread.name == "alya-heartbeat" for thread in threading.enumerate())
        assert not any(thread.name == "alya-heartbeat" for thread in threading.enumerate())
        assert not WorkerRecord.objects.exists()

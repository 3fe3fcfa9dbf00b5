"""A database that goes away while a worker runs: the worker waits, goes on by itself, and loses nothing."""

from __future__ import annotations

import json

import pytest
from django.db import connection

from alya_django import Status, batches
from alya_django.models import BatchProgress, Worker
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

END_OTHERS = (
    "SELECT PG_TERMINATE_BACKEND(pid) FROM pg_stat_activity "
    "WHERE datname = CURRENT_DATABASE() AND pid <> PG_BACKEND_PID()"
)


def ended(batch_id) -> int:
    return sum(BatchProgress.objects.filter(batch=batch_id).values_list("nsuccess", flat=True))


def stop(worker) -> str:
    worker.terminate()
    output, _ = worker.communicate(timeout=30)
    assert worker.returncode == 0, output
    return output


class WakeTests:
    @pytest.mark.rule("RUN-7")
    def test_an_idle_worker_does_not_wait_for_its_poll(self, environment, manage) -> None:
        """With a poll of an hour a submitted batch is begun at once."""
        environment["ALYA"] = json.dumps({"POLL_SECONDS": 3_600})
        worker = manage("alya_worker")
        wait_until(is_listened_to, "the worker rests")
        batch_id = batches.submit("acceptance", "sleep", [0])
        wait_until(lambda: not batches.result(batch_id).try_later, "the batch has ended", seconds=10)
        stop(worker)
        check_invariants()


class OutageTests:
    @pytest.mark.rule("RUN-3")
    def test_backends_that_are_terminated(self, manage) -> None:
        """Every connection of the worker ends three times; each row succeeds once."""
        batch_id = batches.submit("acceptance", "sleep", [0.01] * 600)
        worker = manage("alya_worker")
        for rows in (50, 150, 250):
            wait_until(lambda: ended(batch_id) >= rows, "rows have ended", seconds=40)  # noqa: B023
            with connection.cursor() as cursor:
                cursor.execute(END_OTHERS)
        wait_until(lambda: not batches.result(batch_id).try_later, "the batch has ended", seconds=60)
        assert (batches.status(batch_id).status, batches.status(batch_id).nsuccess) == (Status.SUCCESS, 600)
        assert "does not answer, the worker waits" in stop(worker)
        assert not Worker.objects.exists()
        check_invariants()


def is_listened_to() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM pg_stat_activity WHERE query = 'LISTEN alya'")
        return bool(cursor.fetchone()[0])

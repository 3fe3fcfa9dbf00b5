"""The supervisor in this process; what a death does to real commands is among the acceptance tests."""

from __future__ import annotations

import os
import signal

import pytest
from django.db import OperationalError, connection

from alya_django import Row, Status, batches, register_batch_processor
from alya_django.engine import supervisor as module
from alya_django.engine.recover import Recovered, Recovery
from alya_django.engine.scope import Scope
from alya_django.engine.supervisor import Supervisor
from alya_django.engine.worker import Worker
from alya_django.models import BatchRow, database
from alya_django.models import Worker as WorkerRecord
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


@pytest.fixture(autouse=True)
def haste(settings, monkeypatch):
    """Rest for no longer than a test wants to take."""
    settings.ALYA = {"HEARTBEAT_SECONDS": 0.1}
    monkeypatch.setattr(module, "LATE_SECONDS", 0.05)


def draining(**options) -> Supervisor:
    return Supervisor(Worker.drain, processes=1, scope=Scope(), restarts=False, **options)


class DrainTests:
    @pytest.mark.rule("RUN-1", "REC-1")
    def test_works_off_what_a_late_commit_brings_to_light(self, monkeypatch) -> None:
        """Rows of a dead worker that show only when all has been drained are not left behind."""
        register_batch_processor("app", "op", kill_worker_once)
        batch_id = batches.submit("app", "op", range(3))
        bury, late = Recovery.bury, []

        def see_nothing_at_first(self, number, overdue):
            late.append(number)
            return Recovered() if len(late) == 1 else bury(self, number, overdue)

        monkeypatch.setattr(Recovery, "bury", see_nothing_at_first)
        monkeypatch.setattr(Recovery, "recover", lambda self: Recovered())
        assert draining().run()
        assert len(late) >= 2
        assert batches.status(batch_id).nsuccess == 3
        check_invariants()

    def test_tells_how_many_rows_have_ended(self) -> None:
        """From what the children show, all of it by the end."""
        told: list[int] = []
        register_batch_processor("app", "op", echo)
        batches.submit("app", "op", range(30))
        supervisor = draining(on_rows=told.append)
        assert supervisor.run()
        assert sum(told) == supervisor.rows == 30


class OutageTests:
    @pytest.mark.rule("RUN-3")
    def test_asks_again_after_a_rest(self, monkeypatch, caplog) -> None:
        """The rows of the dead wait for the database, and it is not asked without a pause."""
        register_batch_processor("app", "op", kill_worker_once)
        batch_id = batches.submit("app", "op", range(3))
        bury, calls = Recovery.bury, []

        def fail_twice(self, number, overdue):
            calls.append(number)
            if len(calls) <= 2:
                raise OperationalError("gone")
            return bury(self, number, overdue)

        monkeypatch.setattr(Recovery, "bury", fail_twice)
        monkeypatch.setattr(Recovery, "recover", lambda self: Recovered())
        assert draining().run()
        assert caplog.text.count("The rows of the dead wait") == 2
        assert len(calls) == 3
        assert batches.status(batch_id).nsuccess == 3


class LostTests:
    @pytest.mark.rule("REC-5")
    def test_a_drain_declared_dead_goes_on_under_another_name(self, settings) -> None:
        """It finds its record gone when it beats, and claims no more under the old number."""
        settings.ALYA = {"HEARTBEAT_SECONDS": 0}
        names: list[str] = []

        def be_buried(row: Row) -> None:
            if not names:
                names.append(worker.name)
                Recovery(database()).bury(WorkerRecord.objects.get().pk)

        register_batch_processor("app", "op", be_buried)
        batch_id = batches.submit("app", "op", range(3))
        with Worker() as worker:
            worker.drain()
            assert worker.name != names[0]
            assert WorkerRecord.objects.get().name == worker.name
        assert batches.status(batch_id).status is Status.SUCCESS
        assert set(BatchRow.objects.values_list("done_by", flat=True)) == {worker.name}
        check_invariants()


def kill_worker_once(row: Row) -> None:
    """Take the worker along at the first attempt of the first row, once its connection is seen to be in order."""
    connection.ensure_connection()
    if row.line == 1 and row.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)

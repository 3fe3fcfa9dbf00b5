"""The supervisor in this process; what a death does to real commands is among the acceptance tests."""

from __future__ import annotations

import os
import signal
import time

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

    @pytest.mark.rule("RUN-11")
    def test_logs_how_many_rows_have_ended(self, monkeypatch, caplog) -> None:
        """Now and then, and at the end; each is told of once."""
        caplog.set_level("INFO", "alya_django.engine")
        monkeypatch.setattr(module, "LOG_ROWS_SECONDS", 0)
        register_batch_processor("app", "op", echo)
        batches.submit("app", "op", range(30))
        assert draining().run()
        logged = [record.args for record in caplog.records if "rows have ended" in record.msg]
        assert sum(rows for _, rows, _ in logged) == logged[-1][0] == 30


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


class StopTests:
    @pytest.mark.rule("RUN-4")
    def test_a_second_signal_kills_what_still_runs(self, monkeypatch) -> None:
        """It does not wait for the row in hand, and then the signal takes its course."""
        parent, course = os.getpid(), []
        kill = os.kill

        def note_own(pid: int, signum: int) -> None:
            if pid == os.getpid() == parent:
                course.append(signum)
            else:
                kill(pid, signum)

        def hang(row: Row) -> None:
            for _ in range(2):
                kill(parent, signal.SIGTERM)
                time.sleep(0.2)
            time.sleep(3_600)

        monkeypatch.setattr(module.os, "kill", note_own)
        register_batch_processor("app", "op", hang)
        batches.submit("app", "op", [1])
        before = signal.getsignal(signal.SIGTERM)
        assert draining().run()
        assert course == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.rule("RUN-4")
    def test_a_signal_while_a_child_is_born_reaches_it(self, monkeypatch) -> None:
        """Nobody could pass it on at that moment."""
        close_all = module.connections.close_all

        def close_and_stop() -> None:
            close_all()
            supervisor.stop()

        monkeypatch.setattr(module.connections, "close_all", close_and_stop)
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1] * 2_000)
        supervisor = Supervisor(Worker.run, processes=1, scope=Scope())
        assert supervisor.run()
        assert batches.status(batch_id).try_later

    def test_an_error_of_its_own_is_raised(self, monkeypatch) -> None:
        """What is no outage is not waited out, and no worker stays behind."""

        def fail(self) -> Recovered:
            raise LookupError("a fault")

        monkeypatch.setattr(Recovery, "recover", fail)
        register_batch_processor("app", "op", echo)
        with pytest.raises(LookupError, match="a fault"):
            draining().run()
        assert not WorkerRecord.objects.exists()


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

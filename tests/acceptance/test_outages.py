"""What goes away while a worker runs: the worker waits, goes on by itself, and loses nothing."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from datetime import timedelta

import psutil
import pytest
from django.db import connection, connections
from django.db.models.functions import Now

from alya_django import Status, batches
from alya_django.models import BatchProgress, BatchRow, Worker
from tests.acceptance.questions import is_begun, is_done, is_left
from tests.concurrency.connections import open_transaction, wait_until
from tests.invariants import check_invariants
from tests.network import Proxy, proxy

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

HIDE_PROGRESS = "ALTER TABLE alya_batch_progress RENAME TO hidden"
SHOW_PROGRESS = "ALTER TABLE IF EXISTS hidden RENAME TO alya_batch_progress"
# A worker that is not heard of for a second is dead.
SHORT = {"HEARTBEAT_SECONDS": 0.3, "WORKER_TTL_SECONDS": 1, "SWEEP_SECONDS": 1}
END_OTHERS = (
    "SELECT PG_TERMINATE_BACKEND(pid) FROM pg_stat_activity "
    "WHERE datname = CURRENT_DATABASE() AND pid <> PG_BACKEND_PID()"
)


def ended(batch_id) -> int:
    return sum(BatchProgress.objects.filter(batch=batch_id).values_list("nsuccess", flat=True))


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def stop(worker) -> str:
    worker.terminate()
    output, _ = worker.communicate(timeout=180)
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
        wait_until(lambda: not batches.result(batch_id).try_later, "the batch has ended")
        stop(worker)
        check_invariants()


class DatabaseTests:
    @pytest.mark.rule("RUN-3")
    def test_backends_that_are_terminated(self, manage) -> None:
        """Every connection of the worker ends three times; each row succeeds once."""
        batch_id = batches.submit("acceptance", "sleep", [0.01] * 600)
        worker = manage("alya_worker")
        for rows in (50, 150, 250):
            wait_until(lambda: ended(batch_id) >= rows, "rows have ended")  # noqa: B023
            execute(END_OTHERS)
        wait_until(lambda: is_done(batch_id), "the batch has ended")
        assert (batches.status(batch_id).status, batches.status(batch_id).nsuccess) == (Status.SUCCESS, 600)
        assert "does not answer, the worker waits" in stop(worker)
        assert not Worker.objects.exists()
        check_invariants()

    @pytest.mark.rule("RUN-3")
    @pytest.mark.parametrize("mode", ["fast", "immediate"])
    def test_a_server_that_is_restarted(self, manage, postgresql, mode) -> None:
        """Shut down by an operator, or crashed: the worker is there when it is back, and each row succeeds."""
        batch_id = batches.submit("acceptance", "sleep", [0.01] * 400)
        worker = manage("alya_worker")
        wait_until(lambda: ended(batch_id) >= 50, "rows have ended")
        connections.close_all()
        postgresql.stop(mode)
        postgresql.start()
        wait_until(lambda: is_done(batch_id), "the batch has ended")
        assert batches.status(batch_id).nsuccess == 400
        assert set(BatchRow.objects.values_list("lost", "retries")) == {(0, 0)}
        assert "does not answer, the worker waits" in stop(worker)
        assert not Worker.objects.exists()
        check_invariants()

    @pytest.mark.rule("RUN-3")
    def test_a_server_that_is_not_there_yet(self, manage, postgresql) -> None:
        """A worker that is started waits for it, and works once it is there; one that is told to stop does so."""
        connections.close_all()
        postgresql.stop("fast")
        worker, stopped = manage("alya_worker"), manage("alya_worker")
        for waiting in (worker, stopped):
            assert any("does not answer, the worker waits" in line for line in waiting.stdout)
        stop(stopped)
        postgresql.start()
        batch_id = batches.submit("acceptance", "sleep", [0])
        wait_until(lambda: is_done(batch_id), "the batch has ended")
        assert "Traceback" not in stop(worker)

    @pytest.mark.rule("RUN-3")
    def test_three_failed_rounds_end_the_process(self, manage) -> None:
        """A table that is missing is no outage: the command ends with an error, and its rows can be claimed."""
        batch_id = batches.submit("acceptance", "sleep", [0] * 5)
        execute(HIDE_PROGRESS)
        try:
            worker = manage("alya_worker")
            output, _ = worker.communicate(timeout=90)
        finally:
            execute(SHOW_PROGRESS)
        assert worker.returncode == 1
        assert "A round failed; the worker tries again." in output
        assert "The worker processes keep dying." in output
        assert set(BatchRow.objects.values_list("status", "lost")) == {(Status.QUEUED, 0)}
        assert drained(manage) == "5 rows ended."
        assert batches.status(batch_id).nsuccess == 5
        check_invariants()

    @pytest.mark.rule("RUN-3", "RUN-4")
    def test_a_stop_while_an_abort_does_not_end(self, manage) -> None:
        """The worker stops after a while and leaves its rows to the abort, which is committed later."""
        batch_id = batches.submit("acceptance", "sleep", [0.1] * 50)
        worker = manage("alya_worker")
        wait_until(lambda: is_begun(batch_id), "a row is in progress")
        with open_transaction(lambda: batches.abort(batch_id)):
            output = stop(worker)
            assert is_begun(batch_id)
        assert f"The abort of {batch_id} does not end" in output
        assert batches.status(batch_id).status is Status.ABORTED
        assert drained(manage) == "0 rows ended."
        check_invariants()


@pytest.fixture
def way(environment, postgresql) -> Iterator[Proxy]:
    """The way of the started processes to the database."""
    with proxy(postgresql.host, postgresql.port) as way:
        name = connection.settings_dict
        environment["DATABASE_URL"] = f"postgresql://{name['USER']}@{way.host}:{way.port}/{name['NAME']}"
        yield way


class NetworkTests:
    @pytest.mark.rule("RUN-3")
    def test_that_is_cut(self, way, manage) -> None:
        """For seconds nothing gets through, then the connections break; no row is lost, and none is blamed."""
        batch_id = batches.submit("acceptance", "sleep", [0.01] * 400)
        worker = manage("alya_worker", "--processes", "2")
        wait_until(lambda: ended(batch_id) >= 50, "rows have ended")
        way.cut()
        wait_until(lambda: is_silent(seconds=10), "it has been cut for ten seconds")
        assert not is_done(batch_id)
        way.break_off()
        way.restore()
        wait_until(lambda: is_done(batch_id), "the batch has ended")
        assert batches.status(batch_id).nsuccess == 400
        assert set(BatchRow.objects.values_list("lost", flat=True)) == {0}
        assert "does not answer, the worker waits" in stop(worker)
        assert not Worker.objects.exists()
        check_invariants()

    @pytest.mark.rule("REC-1", "REC-5")
    def test_that_is_cut_for_longer_than_a_worker_may_be_silent(self, way, environment, postgresql, manage) -> None:
        """Another host works off what it had; once back, it goes on under another name."""
        environment["ALYA"] = json.dumps(SHORT)
        batch_id = batches.submit("acceptance", "sleep", [0.02] * 200)
        cut_off = manage("alya_worker")
        wait_until(lambda: ended(batch_id) >= 20, "rows have ended")
        way.cut()
        number = Worker.objects.get().pk
        environment["DATABASE_URL"] = environment["DATABASE_URL"].replace(f":{way.port}/", f":{postgresql.port}/")
        other = manage("alya_worker")
        wait_until(lambda: not Worker.objects.filter(pk=number).exists(), "it counts as dead")
        way.break_off()
        wait_until(lambda: is_done(batch_id), "the other has worked it off")
        way.restore()
        wait_until(lambda: Worker.objects.count() == 2, "it is back")
        assert batches.status(batch_id).nsuccess == 200
        stop(cut_off)
        stop(other)
        assert not Worker.objects.exists()
        check_invariants()


class SpaceTests:
    @pytest.mark.rule("FIN-3")
    def test_none_for_temporary_files(self, environment, manage, project_storage) -> None:
        """The batch waits, and the worker goes on with others; once there is space, the file is whole."""
        environment["ACCEPTANCE_STORAGE_REST_SECONDS"] = "1"
        worker = manage("alya_worker")
        wait_until(Worker.objects.exists, "the worker is there")
        limit_files(worker, 10_000)
        batch_id = batches.submit("acceptance", "write", ["x" * 999] * 50)
        wait_until(lambda: is_left(batch_id), "it was tried to finish the batch")
        other = batches.submit("acceptance", "sleep", [0])
        wait_until(lambda: is_done(other), "another batch has ended")
        assert not is_done(batch_id)
        limit_files(worker, resource.RLIM_INFINITY)
        wait_until(lambda: is_done(batch_id), "the batch has ended")
        with batches.open_output(batch_id, "lines.txt") as file:
            assert file.read() == (b"x" * 999 + b"\n") * 50
        assert f"The output files of {batch_id} wait: the storage failed. OSError (EFBIG)" in stop(worker)
        check_invariants()


def drained(manage) -> str:
    """Drain what there is, and return what the command says last."""
    output, _ = manage("alya_worker", "--drain").communicate(timeout=180)
    return output.splitlines()[-1]


def is_silent(*, seconds: float) -> bool:
    """Tell whether no worker has been heard of for so long."""
    return not Worker.objects.filter(heartbeat__gte=Now() - timedelta(seconds=seconds)).exists()


def limit_files(worker, size: int) -> None:
    """Let no file of a command's processes become larger."""
    command = psutil.Process(worker.pid)
    for process in (command, *command.children()):
        _, most = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (size, most))


def is_listened_to() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM pg_stat_activity WHERE query = 'LISTEN alya'")
        return bool(cursor.fetchone()[0])

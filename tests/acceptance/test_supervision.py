"""Worker processes that die, and what becomes of their rows."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest

from alya_django import Status, batches, slow_queries
from alya_django.models import BatchRow, Worker
from tests.acceptance.questions import is_begun, is_done
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

# Short lives, so that the dead are found out while a test waits.
SHORT = {"HEARTBEAT_SECONDS": 0.3, "WORKER_TTL_SECONDS": 1, "SWEEP_SECONDS": 1, "RETRY_SECONDS": 0}


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "ALYA": json.dumps(SHORT)}


def end(supervisor) -> None:
    """Stop a supervisor: it ends well."""
    supervisor.terminate()
    assert supervisor.wait(60) == 0


def wait_for_end(batch_id, query_id) -> None:
    """Wait until a batch and a slow query have ended."""
    wait_until(lambda: is_done(batch_id), "the batch has ended")
    wait_until(lambda: not slow_queries.result(query_id).try_later, "the query has ended")


def wait_for_child(after: int = 0) -> int:
    """Wait for a worker with a number above another's, and return its process."""
    wait_until(lambda: Worker.objects.filter(pk__gt=after).exists(), "there is a worker")
    return Worker.objects.filter(pk__gt=after).latest("pk").pid


class DeathTests:
    @pytest.mark.sqlite
    @pytest.mark.rule("REC-1")
    def test_another_takes_the_place_of_a_worker_that_was_killed(self, manage) -> None:
        """Its rows are requeued at once, blamed once, and succeed."""
        batch_id = batches.submit("acceptance", "sleep", [0.5] * 6)
        supervisor = manage("alya_worker")
        wait_until(lambda: is_begun(batch_id), "a row is in progress")
        os.kill(wait_for_child(), signal.SIGKILL)
        wait_until(lambda: is_done(batch_id), "the batch has ended")
        end(supervisor)
        assert batches.status(batch_id).status is Status.SUCCESS
        assert set(BatchRow.objects.filter(batch=batch_id).values_list("lost", flat=True)) <= {0, 1}
        check_invariants()

    @pytest.mark.sqlite
    @pytest.mark.rule("REC-6")
    def test_a_row_that_kills_its_worker_fails_alone(self, manage) -> None:
        """After three deaths it fails with message 11; all its neighbours succeed, and the supervisor goes on."""
        batch_id = batches.submit("acceptance", "perform", ["sleep", "die", "sleep", "sleep", "sleep"])
        query_id = slow_queries.submit("acceptance", "perform", "die")
        supervisor = manage("alya_worker")
        wait_for_end(batch_id, query_id)
        end(supervisor)
        rows = list(batches.iter_rows(batch_id))
        assert [row.status for row in rows] == [Status.SUCCESS, Status.FAILED, *[Status.SUCCESS] * 3]
        assert [(message.msgid, message.vals) for message in rows[1].messages] == [
            (11, ("The worker of the row died 3 times.",))
        ]
        assert slow_queries.result(query_id).messages == rows[1].messages
        check_invariants()

    @pytest.mark.sqlite
    @pytest.mark.rule("LIM-1")
    def test_a_row_that_takes_too_long_fails_alone(self, manage) -> None:
        """Its worker is killed, the row fails with message 12, and its neighbours are blamed for nothing."""
        batch_id = batches.submit("acceptance", "limited", ["sleep", "hang", "sleep", "sleep"])
        query_id = slow_queries.submit("acceptance", "limited", "hang")
        supervisor = manage("alya_worker")
        wait_for_end(batch_id, query_id)
        end(supervisor)
        rows = list(batches.iter_rows(batch_id))
        assert [row.status for row in rows] == [Status.SUCCESS, Status.FAILED, Status.SUCCESS, Status.SUCCESS]
        assert [(message.msgid, message.vals) for message in rows[1].messages] == [
            (12, ("The row took longer than its limit of 1 s.",))
        ]
        assert slow_queries.result(query_id).messages == rows[1].messages
        assert set(BatchRow.objects.values_list("lost", flat=True)) == {0}
        check_invariants()

    @pytest.mark.rule("LIM-1")
    def test_threads_and_coroutines_have_the_limit_too(self, manage) -> None:
        """Of the rows in hand only the one that hangs fails."""
        batch_ids = [
            batches.submit("acceptance", op, ["sleep", "hang", "sleep", "sleep"]) for op in ("threads", "coroutines")
        ]
        supervisor = manage("alya_worker")
        for batch_id in batch_ids:
            wait_until(lambda batch_id=batch_id: is_done(batch_id), "the batch has ended")
            assert [row.status for row in batches.iter_rows(batch_id)] == [
                Status.SUCCESS,
                Status.FAILED,
                Status.SUCCESS,
                Status.SUCCESS,
            ]
        end(supervisor)
        check_invariants()

    @pytest.mark.rule("RUN-9")
    def test_the_children_of_a_dead_supervisor_stop(self, manage) -> None:
        """They end the row in hand, give back the rest, and say goodbye."""
        batch_id = batches.submit("acceptance", "sleep", [0.2] * 100)
        supervisor = manage("alya_worker", "--processes", "2")
        wait_until(lambda: Worker.objects.count() == 2, "there are two workers")
        wait_until(lambda: is_begun(batch_id), "a row is in progress")
        supervisor.kill()
        wait_until(lambda: not Worker.objects.exists(), "the workers have gone")
        assert not is_begun(batch_id)
        assert set(BatchRow.objects.values_list("lost", flat=True)) == {0}
        check_invariants()

    @pytest.mark.rule("REC-1", "REC-2", "REC-3")
    def test_the_rows_of_a_lost_host_are_found(self, manage) -> None:
        """All its processes die at once; a supervisor elsewhere requeues their rows."""
        batch_id = batches.submit("acceptance", "sleep", [0.3] * 20)
        lost = manage("alya_worker", "--processes", "2")
        wait_until(lambda: is_begun(batch_id), "a row is in progress")
        processes = [lost, *psutil.Process(lost.pid).children()]
        lost.send_signal(signal.SIGSTOP)
        for process in [*processes[1:], lost]:
            process.kill()
        lost.wait(60)
        other = manage("alya_worker", "--processes", "2")
        wait_until(lambda: is_done(batch_id), "the batch has ended")
        end(other)
        assert batches.status(batch_id).status is Status.SUCCESS
        check_invariants()

    @pytest.mark.rule("REC-5")
    def test_a_worker_taken_for_dead_goes_on_under_another_name(self, manage) -> None:
        """It was only frozen: its late result is refused where another has the row, and it claims anew."""
        batch_id = batches.submit("acceptance", "sleep", [0.2] * 30)
        supervisors = [manage("alya_worker") for _ in range(2)]
        wait_until(lambda: Worker.objects.count() == 2, "there are two workers")
        wait_until(lambda: is_begun(batch_id), "a row is in progress")
        frozen = Worker.objects.earliest("pk")
        os.kill(frozen.pid, signal.SIGSTOP)
        wait_until(lambda: not Worker.objects.filter(pk=frozen.pk).exists(), "it is taken for dead")
        os.kill(frozen.pid, signal.SIGCONT)
        wait_until(lambda: Worker.objects.filter(pid=frozen.pid).exists(), "it has another name")
        wait_until(lambda: is_done(batch_id), "the batch has ended")
        for supervisor in supervisors:
            end(supervisor)
        assert batches.status(batch_id).nsuccess == 30
        check_invariants()

    @pytest.mark.rule("RUN-9")
    def test_gives_up_where_workers_cannot_live(self, manage, environment) -> None:
        """Five that die within a minute, with no row in hand, end the supervisor, and not with 0."""
        environment["ACCEPTANCE_DIE_AT_BIRTH"] = "1"
        supervisor = manage("alya_worker", "--processes", "3")
        output, _ = supervisor.communicate(timeout=180)
        assert supervisor.returncode == 1
        assert "The worker processes keep dying." in output

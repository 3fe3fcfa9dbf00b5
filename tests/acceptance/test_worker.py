from __future__ import annotations

import signal
import subprocess

import pytest

from alya_django import Status, batches
from alya_django.models import BatchRow, Worker
from tests.acceptance.questions import is_begun
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.sqlite]


class WorkerProcessTests:
    @pytest.mark.rule("RUN-4", "RUN-5")
    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_after_the_row_in_hand(self, manage, signum) -> None:
        """It records what is done, gives back the rest, says goodbye and exits with 0."""
        batch_id = batches.submit("acceptance", "sleep", [0.6] * 10)
        worker = manage("alya_worker")
        wait_until(lambda: batches.status(batch_id).nsuccess, "a row has ended, the next is in hand")
        worker.send_signal(signum)
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
        statuses = list(BatchRow.objects.filter(batch=batch_id).values_list("status", flat=True))
        assert Status.IN_PROGRESS not in statuses
        assert statuses.count(Status.SUCCESS) >= 1
        assert statuses.count(Status.QUEUED) >= 1
        assert not Worker.objects.exists()
        check_invariants()

    @pytest.mark.rule("RUN-4")
    def test_a_second_signal_ends_it_at_once(self, manage, tmp_path) -> None:
        """Who cannot wait for the row in hand signals again."""
        begun = tmp_path / "begun"
        batches.submit("acceptance", "stay", [str(begun)])
        worker = manage("alya_worker")
        wait_until(begun.exists, "the processor is at work")
        worker.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(0.5)
        worker.terminate()
        assert worker.wait(60) == -signal.SIGTERM

    @pytest.mark.rule("RUN-1")
    def test_once_works_off_one_chunk(self, manage) -> None:
        """``--once`` ends after ten rows of an op that it does not know yet."""
        batch_id = batches.submit("acceptance", "sleep", [0] * 15)
        worker = manage("alya_worker", "--once")
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
        assert batches.status(batch_id).nsuccess == 10

    @pytest.mark.rule("RUN-1")
    def test_drain_works_off_all(self, manage) -> None:
        """``--drain`` ends when nothing is left, of the app it was narrowed to."""
        mine = batches.submit("acceptance", "sleep", [0] * 15)
        other = batches.submit("flights", "punctuality", [{}])
        worker = manage("alya_worker", "--drain", "--app", "acceptance")
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
        assert "acceptance/sleep (batch)" in output
        assert output.splitlines()[-1] == "15 rows ended."
        assert batches.status(mine).status is Status.SUCCESS
        assert batches.status(other).status is Status.QUEUED

    @pytest.mark.rule("ABT-5", "INV-4")
    def test_an_abort_reaches_a_worker_at_work(self, manage) -> None:
        """The rows of the chunk that were not begun stay unprocessed, and nothing late is written."""
        batch_id = batches.submit("acceptance", "sleep", [0.2] * 50)
        worker = manage("alya_worker")
        wait_until(lambda: is_begun(batch_id), "a row is in progress")
        summary = batches.abort(batch_id)
        wait_until(
            lambda: BatchRow.objects.filter(batch=batch_id, batch__marked_done_at__isnull=False).exists(),
            "the worker has gone on and told of the abort",
        )
        worker.terminate()
        assert worker.wait(60) == 0
        assert batches.status(batch_id) == summary
        assert summary.naborted >= 40
        check_invariants()

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from alya_django import ErrorMessage, Status, batches, register_batch_processor
from alya_django.db import RowEnding
from alya_django.engine.recover import Recovered, Recovery
from alya_django.models import BatchRow, database
from alya_django.models import Worker as WorkerRecord
from alya_django.signals import worker_lost
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]

LONG_AGO = "2000-01-01T00:00Z"


@pytest.fixture
def recovery() -> Recovery:
    return Recovery(database())


@pytest.fixture
def batch_id():
    register_batch_processor("app", "op", echo)
    return batches.submit("app", "op", range(5))


def make_worker(**fields) -> WorkerRecord:
    return WorkerRecord.objects.create(name="worker-1", host="host", pid=1, version="1", **fields)


class RecoveryTests:
    @pytest.mark.rule("REC-1", "REC-7")
    def test_requeues_the_rows_of_a_silent_worker(self, recovery, batch_id, make_claimer) -> None:
        """They are queued again with one death to their name, the record is gone, and others work them off."""
        make_claimer(make_worker(heartbeat=LONG_AGO).pk).take()
        assert recovery.recover() == Recovered(5, 0, True)
        rows = BatchRow.objects.filter(batch=batch_id)
        assert {(row.status, row.lost, row.done_by) for row in rows} == {(Status.QUEUED, 1, None)}
        assert not WorkerRecord.objects.exists()
        assert drain() == 5
        check_invariants()

    @pytest.mark.rule("REC-4", "REC-7")
    def test_leaves_a_live_worker_alone(self, recovery, batch_id, make_claimer) -> None:
        """Its record and its rows stay."""
        make_claimer(make_worker().pk).take()
        assert recovery.recover() == Recovered(0, 0, True)
        assert WorkerRecord.objects.exists()
        assert BatchRow.objects.filter(status=Status.IN_PROGRESS).count() == 5

    @pytest.mark.rule("REC-3")
    def test_requeues_rows_whose_worker_nobody_knows(self, recovery, batch_id, make_claimer) -> None:
        """A claim that was on its way when its worker was removed is found by its number."""
        make_claimer(7).take()
        assert recovery.recover() == Recovered(5, 0, True)

    @pytest.mark.rule("REC-5")
    def test_a_late_outcome_is_refused(self, recovery, batch_id, make_claimer, make_recorder) -> None:
        """Who was wrongly thought dead finds nothing to record under."""
        chunk = make_claimer(7).take()
        recovery.recover()
        endings = [RowEnding(row.id, Status.SUCCESS, "{}", None, None) for row in chunk.rows]
        assert make_recorder(7).record(batch_id, chunk.claim, endings) == 0
        check_invariants()

    @pytest.mark.rule("REC-6")
    def test_a_row_fails_with_the_third_worker_it_loses(self, recovery, batch_id, make_claimer) -> None:
        """Message 11 tells how many; the last of them stays in ``done_by``, and a sweep finishes the batch."""
        BatchRow.objects.filter(batch=batch_id, line=2).update(lost=2)
        make_claimer(7).take()
        assert recovery.recover() == Recovered(4, 1, True)
        line = batches.line(batch_id, 2)
        expected = ErrorMessage("processing_error", vals=("The worker of the row died 3 times.",), msgid=11)
        assert (line.status, line.messages, line.done_by) == (Status.FAILED, (expected,), "worker-7")
        check_invariants()
        assert drain() == 4
        assert batches.status(batch_id).status is Status.FAILED

    @pytest.mark.rule("REC-1")
    def test_buries_a_worker_that_is_known_to_be_dead(self, recovery, batch_id, make_claimer) -> None:
        """However lately it was heard of."""
        worker = make_worker()
        make_claimer(worker.pk).take()
        assert recovery.bury(worker.pk) == Recovered(5, 0, True)
        assert not WorkerRecord.objects.exists()
        check_invariants()

    @pytest.mark.rule("REC-1")
    def test_leaves_what_is_too_much_for_the_next_round(self, recovery, batch_id, make_claimer, monkeypatch) -> None:
        """A round is bounded, by claims and by the rows of a transaction."""
        monkeypatch.setattr("alya_django.engine.recover.TRANSACTION_ROWS", 3)
        make_claimer(7).take()
        assert recovery.recover() == Recovered(3, 0, False)
        assert recovery.recover() == Recovered(2, 0, True)
        check_invariants()

    def test_tells_whom_it_lost(self, recovery, batch_id, make_claimer) -> None:
        """The signal has the worker's name and how many rows it had."""
        heard = []

        def hear(worker, rows, **kwargs) -> None:
            heard.append((worker, rows))

        worker_lost.connect(hear)
        make_claimer(make_worker(heartbeat=LONG_AGO).pk).take()
        BatchRow.objects.update(done_by="worker-1")
        recovery.recover()
        worker_lost.disconnect(hear)
        assert heard == [("worker-1", 5)]

    @pytest.mark.rule("REC-3")
    def test_finds_by_their_processes_who_of_this_host_is_dead(self, recovery, batch_id, make_claimer) -> None:
        """Where nobody may write beside a worker that lives, one that does not must be known before one begins."""
        ended = subprocess.Popen(["true"])
        ended.wait()
        host = socket.gethostname()
        of_dead = WorkerRecord.objects.create(name="dead", host=host, pid=ended.pid)
        for name, place, pid in (("alive", host, os.getpid()), ("elsewhere", "host", ended.pid)):
            WorkerRecord.objects.create(name=name, host=place, pid=pid)
        make_claimer(of_dead.pk).take()
        assert recovery.bury_gone() == Recovered(5, 0, True)
        assert set(WorkerRecord.objects.values_list("name", flat=True)) == {"alive", "elsewhere"}
        check_invariants()

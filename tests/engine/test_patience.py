from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError, ProgrammingError

from alya_django import Status, batches, register_batch_processor
from alya_django.engine.chunk import ChunkRunner
from alya_django.engine.watch import NoWatch
from alya_django.engine.worker import Worker
from alya_django.models import BatchRow, database
from tests.invariants import check_invariants
from tests.processors import Recording

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """Nobody waits for long here."""
    monkeypatch.setattr("alya_django.engine.wakeup.Wakeup._rest", lambda self, seconds, listener: None)


@pytest.fixture
def fail(monkeypatch):
    """Let something raise some errors before it does what it does."""

    def fail(what: type, name: str, *errors: Exception) -> None:
        left, act = list(errors), getattr(what, name)

        def fail_first(self, *args, **kwargs):
            if left:
                raise left.pop(0)
            return act(self, *args, **kwargs)

        monkeypatch.setattr(what, name, fail_first)

    return fail


def worked_off(recording: Recording) -> Worker:
    """Run a worker of its own until the batches have ended."""
    watch = NoWatch()
    watch.count = lambda rows: rows and worker.stop()
    worker = Worker(beats_alone=True, watch=watch)
    register_batch_processor("app", "op", recording)
    return worker


class PatienceTests:
    @pytest.mark.rule("RUN-3")
    @pytest.mark.parametrize("error", [OperationalError("lost"), InterfaceError("closed")])
    def test_outcomes_are_kept_and_offered_again(self, fail, error) -> None:
        """A database that is away while rows are recorded costs no second run of them."""
        recording = Recording()
        worker = worked_off(recording)
        batch_id = batches.submit("app", "op", range(5))
        fail(type(database()), "record_rows", error, error)
        with worker:
            worker.run()
        assert batches.status(batch_id).status is Status.SUCCESS
        assert len(recording.rows) == 5
        check_invariants()

    @pytest.mark.rule("RUN-3")
    def test_rows_that_were_not_begun_are_given_back(self, fail) -> None:
        """What is lost between the claim and the first row leaves no row in progress."""
        recording = Recording()
        worker = worked_off(recording)
        batch_id = batches.submit("app", "op", range(5))
        fail(ChunkRunner, "run", OperationalError("x"))
        with worker:
            worker.run()
        assert batches.status(batch_id).status is Status.SUCCESS
        assert set(BatchRow.objects.values_list("attempts", "lost", "retries")) == {(2, 0, 0)}
        check_invariants()

    @pytest.mark.rule("RUN-3")
    def test_three_failed_rounds_running_end_the_worker(self, fail) -> None:
        """The error is raised; the rows are given back."""
        worker = worked_off(Recording())
        batches.submit("app", "op", range(5))
        fail(type(database()), "record_rows", *[ProgrammingError(str(number)) for number in range(3)])
        with worker, pytest.raises(ProgrammingError, match="2"):
            worker.run()
        assert set(BatchRow.objects.values_list("status", "lost")) == {(Status.QUEUED, 0)}
        check_invariants()

    @pytest.mark.rule("RUN-3")
    def test_a_good_round_begins_the_count_anew(self, fail) -> None:
        """Two failures, a success, and two more do not end the worker."""
        recording = Recording()
        worker = worked_off(recording)
        batch_id = batches.submit("app", "op", range(5))
        fail(type(database()), "record_rows", ProgrammingError("1"), ProgrammingError("2"))
        with worker:
            worker.run()
        assert batches.status(batch_id).status is Status.SUCCESS

    @pytest.mark.rule("RUN-3", "RUN-4")
    def test_a_stop_ends_the_wait(self, fail, monkeypatch) -> None:
        """While the database is away a worker that is to stop stops."""
        worker = worked_off(Recording())
        batch_id = batches.submit("app", "op", range(5))
        fail(type(database()), "record_rows", OperationalError("lost"))

        def still_away(self) -> None:
            worker.stop()
            raise OperationalError("lost")

        monkeypatch.setattr(type(database()), "reopen", still_away)
        with worker:
            worker.run()
        assert batches.status(batch_id).nsuccess == 0
        check_invariants()

    @pytest.mark.rule("RUN-3")
    def test_what_is_no_outage_is_not_waited_out(self, fail, caplog) -> None:
        """A wait that ends by another error is a failed round, and the next one begins anew."""
        worker = worked_off(Recording())
        batch_id = batches.submit("app", "op", range(5))
        fail(type(database()), "record_rows", OperationalError("lost"))
        fail(type(database()), "reopen", ImproperlyConfigured("no such engine"))
        with worker:
            worker.run()
        assert "A round failed; the worker tries again." in caplog.text
        assert batches.status(batch_id).status is Status.SUCCESS
        check_invariants()

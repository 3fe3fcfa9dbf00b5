from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from alya_django import Row, RowResult, Status, batches, register_batch_processor
from alya_django.engine.finish import Finisher
from alya_django.engine.worker import Worker
from alya_django.models import Batch
from alya_django.signals import batch_finished
from tests.concurrency.connections import (
    DEADLINE_SECONDS,
    elsewhere,
    open_transaction,
    somebody_waits_for_a_lock,
    wait_until,
)
from tests.invariants import check_invariants
from tests.processors import Recording, echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


class FinishTests:
    @pytest.mark.rule("FIN-1", "MKD-1")
    def test_workers_that_end_together_finish_once(self) -> None:
        """Ten small batches, four workers: each is finished, told and marked done exactly once."""
        recording = Recording()
        finished = []

        def note(details, **_) -> None:
            finished.append(details.id)

        def write(row: Row) -> RowResult:
            return RowResult.success(output_lines={"all.csv": str(row.line)})

        recording.do_batch_job = write
        recording.chunk_rows = 1
        register_batch_processor("app", "op", recording)
        ids = [batches.submit("app", "op", range(8)) for _ in range(10)]

        def work(_: int) -> int:
            try:
                with Worker() as worker:
                    return worker.drain()
            finally:
                connections.close_all()

        batch_finished.connect(note)
        try:
            with ThreadPoolExecutor(4) as pool:
                assert sum(pool.map(work, range(4))) == 80
        finally:
            batch_finished.disconnect(note)
        assert sorted(finished) == sorted(ids)
        assert sorted(details.id for details in recording.done) == sorted(ids)
        for batch_id in ids:
            with batches.open_output(batch_id, "all.csv") as file:
                assert file.read() == b"1\n2\n3\n4\n5\n6\n7\n8\n"
        check_invariants()

    @pytest.mark.rule("FIN-1")
    def test_waits_for_whoever_has_the_batch_locked(self, make_complete, make_finisher) -> None:
        """A lock held elsewhere delays the finish and does not prevent it."""
        batch_id = make_complete()
        with open_transaction(lambda: Batch.objects.filter(pk=batch_id).locked().get()):
            finish = elsewhere(lambda: make_finisher().finish(batch_id))
            wait_until(somebody_waits_for_a_lock, "the finisher waits for the lock")
        assert finish.result(DEADLINE_SECONDS) is True
        summary = batches.status(batch_id)
        assert (summary.status, summary.nsuccess) == (Status.SUCCESS, 2)

    @pytest.mark.rule("FIN-2")
    def test_holds_no_lock_while_it_copies_or_tells(self, make_complete, make_finisher, monkeypatch) -> None:
        """Others can lock the batch while files are joined and while ``mark_done`` runs."""
        moments = []

        def look(moment: str) -> None:
            with open_transaction(lambda: Batch.objects.filter(pk=batch_id).locked().get()):
                moments.append(moment)

        batch_id = make_complete(mark_done=lambda details: look("mark_done"))
        finisher = make_finisher()
        join = finisher._join_output_files
        monkeypatch.setattr(finisher, "_join_output_files", lambda *args: (look("joining"), join(*args))[1])
        assert finisher.finish(batch_id)
        assert moments == ["joining", "mark_done"]


@pytest.fixture
def make_complete():
    """Make a batch whose rows have ended and which nobody has finished."""

    def make(mark_done=lambda details: None):
        recording = Recording()
        recording.do_batch_job = echo
        recording.mark_done = mark_done
        register_batch_processor("app", "op", recording)
        batch_id = batches.submit("app", "op", [1, 2])
        with pytest.MonkeyPatch.context() as patched, Worker() as worker:
            patched.setattr(Finisher, "finish", lambda self, batch_id: False)
            worker.round()
        return batch_id

    return make

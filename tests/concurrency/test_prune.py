from __future__ import annotations

from datetime import timedelta

import pytest

from alya_django import NotFound, batches, register_batch_processor
from alya_django.models import Batch, BatchFile
from alya_django.retention import Pruned, prune
from alya_django.testing import drain
from tests.concurrency.connections import (
    DEADLINE_SECONDS,
    elsewhere,
    open_transaction,
    somebody_waits_for_a_lock,
    wait_until,
)
from tests.invariants import check_invariants
from tests.processors import echo, fail_odd

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]

AGE = timedelta(days=90)
LONG_AGO = {"requested_at": "2020-01-01T00:00Z", "done_at": "2020-01-01T00:00Z"}


def an_old_batch():
    register_batch_processor("bank", "fail", fail_odd)
    batch_id = batches.submit("bank", "fail", range(4))
    drain()
    Batch.objects.filter(pk=batch_id).update(**LONG_AGO)
    return batch_id


class PruneTests:
    @pytest.mark.rule("PRN-3")
    def test_stops_no_worker(self) -> None:
        """Between its transactions, and while one is open, rows are claimed, recorded and finished."""
        an_old_batch()
        register_batch_processor("bank", "op", echo)
        done = []

        def work(seconds: float) -> None:
            batches.submit("bank", "op", range(3))
            done.append(elsewhere(drain).result(DEADLINE_SECONDS))

        prune(AGE, rest=work)
        with open_transaction(lambda: Batch.objects.filter(pk=an_old_batch()).begin_prune(AGE)):
            work(0)
        assert done == [3] * len(done)
        assert len(done) == 3

    @pytest.mark.rule("PRN-2")
    def test_leaves_a_family_that_a_retry_has_locked(self) -> None:
        """It waits for nobody: what somebody has in hand goes another time."""
        batch_id = an_old_batch()
        with open_transaction(lambda: batches.retry(batch_id, wait=True)):
            assert prune(AGE) == Pruned()
        assert prune(AGE) == Pruned()
        check_invariants()

    @pytest.mark.rule("PRN-2", "PRN-5")
    def test_a_retry_that_comes_too_late_finds_nothing(self) -> None:
        """It waits for the mark, and looks again."""
        batch_id = an_old_batch()
        with open_transaction(lambda: Batch.objects.filter(pk=batch_id).begin_prune(AGE)):
            retry = elsewhere(lambda: batches.retry(batch_id))
            wait_until(somebody_waits_for_a_lock, "the retry waits for the prune")
        with pytest.raises(NotFound):
            retry.result(DEADLINE_SECONDS)

    @pytest.mark.rule("PRN-7")
    def test_leaves_a_file_that_is_being_decided_on(self) -> None:
        """Its record is locked meanwhile."""
        file = BatchFile.objects.create(object_id="x", file_name="x", file_type="x", content_type="")
        BatchFile.objects.update(received_at="2020-01-01T00:00Z")
        with open_transaction(lambda: BatchFile.objects.lock(file.pk)):
            prune(AGE)
        assert BatchFile.objects.exists()
        prune(AGE)
        assert not BatchFile.objects.exists()

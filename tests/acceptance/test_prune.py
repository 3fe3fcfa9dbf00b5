from __future__ import annotations

import signal

import pytest
from django.db.models.functions import Now

from alya_django import NotFound, batches, register_batch_processor
from alya_django.models import Batch, BatchProgress, BatchRow
from alya_django.testing import drain
from tests.concurrency.connections import wait_until
from tests.invariants import check_invariants
from tests.processors import write_lines

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

ROWS = 40_000
OLD = {"requested_at": "2020-01-01T00:00Z", "done_at": "2020-01-01T00:00Z", "marked_done_at": Now()}


class PruneProcessTests:
    @pytest.mark.rule("PRN-4")
    def test_a_killed_prune_is_taken_up_by_the_next(self, manage, registry, project_storage) -> None:
        """Killed while it deletes rows: the batch is gone for all verbs, the rest of it goes with the next run."""
        register_batch_processor("bank", "write", write_lines)
        small = batches.submit("bank", "write", [{"a.csv": "x"}])
        drain()
        large = batches.submit("bank", "write", ({} for _ in range(ROWS)))
        BatchRow.objects.filter(batch=large).update(status="success", result={}, done_by="w", done_at=Now())
        BatchProgress.objects.create(batch_id=large, slot=0, nsuccess=ROWS)
        Batch.objects.filter(pk=large).update(status="success", nsuccess=ROWS, nfailed=0, naborted=0, **OLD)
        Batch.objects.filter(pk=small).update(**OLD)
        check_invariants()
        rows = BatchRow.objects.filter(batch=large)
        pruning = manage("alya_prune", "--older-than", "90d")
        wait_until(lambda: rows.count() < ROWS, "some of the rows are gone")
        pruning.send_signal(signal.SIGKILL)
        pruning.wait(10)
        assert 0 < rows.count() < ROWS
        with pytest.raises(NotFound):
            batches.result(large)
        output, _ = (again := manage("alya_prune", "--older-than", "90d")).communicate(timeout=60)
        assert again.returncode == 0, output
        assert not Batch.objects.exists()
        assert not BatchRow.objects.exists()
        assert not BatchProgress.objects.exists()

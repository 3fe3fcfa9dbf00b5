from __future__ import annotations

import pytest

from alya_django import Status, batches, register_batch_processor, slow_queries
from alya_django import register_slow_query_processor as register_slow_query
from alya_django.db import RowEnding
from alya_django.engine.worker import Worker
from alya_django.models import Batch, BatchRow
from alya_django.models import Worker as WorkerRecord
from alya_django.testing import drain
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


@pytest.fixture
def lookout(registry):
    """What looks out for a worker that serves batches and slow queries of an op."""
    register_batch_processor("app", "op", echo)
    register_slow_query("app", "op", echo)
    with Worker() as worker:
        yield worker._lookout


class LookoutTests:
    @pytest.mark.rule("RUN-8")
    def test_asks_one_statement(self, lookout, django_assert_num_queries) -> None:
        """Whether there is nothing to do, or something."""
        with django_assert_num_queries(1):
            assert not lookout.sees_work()
        batches.submit("app", "op", [1])
        with django_assert_num_queries(1):
            assert lookout.sees_work()

    def test_sees_what_can_be_claimed(self, lookout) -> None:
        """A queued slow query, and one that is due again; not what others serve or what waits."""
        slow_queries.submit("app", "other", {})
        batches.submit("app", "op", [1], wait=True)
        assert not lookout.sees_work()
        slow_queries.submit("app", "op", {})
        assert lookout.sees_work()
        BatchRow.objects.filter(batch__op="op", line=0).update(retry_at="2000-01-01T00:00Z")
        assert lookout.sees_work()
        BatchRow.objects.filter(batch__op="op", line=0).update(retry_at="2100-01-01T00:00Z")
        assert not lookout.sees_work()

    def test_sees_rows_that_are_due_in_a_drained_batch(self, lookout) -> None:
        """The batch must be woken."""
        batch_id = batches.submit("app", "op", [1])
        Batch.objects.filter(pk=batch_id).update(drained=True)
        assert not lookout.sees_work()
        BatchRow.objects.filter(batch=batch_id).update(retry_at="2000-01-01T00:00Z")
        assert lookout.sees_work()

    def test_sees_what_nobody_finished(self, lookout, make_claimer, make_recorder) -> None:
        """A batch whose rows have all ended."""
        batch_id = batches.submit("app", "op", [1])
        chunk = make_claimer(1).take()
        assert not lookout.sees_work()
        make_recorder(1).record(
            batch_id, chunk.claim, [RowEnding(row.id, Status.SUCCESS, "{}", None, None) for row in chunk.rows]
        )
        assert lookout.sees_work()

    def test_sees_what_nobody_was_told_of(self, lookout) -> None:
        """A batch that was aborted, until its mark_done was called."""
        batches.abort(batches.submit("app", "op", [1]))
        assert lookout.sees_work()
        drain()
        assert not lookout.sees_work()

    def test_a_worker_that_was_declared_dead_has_work(self, lookout) -> None:
        """It must find out."""
        WorkerRecord.objects.all().delete()
        assert lookout.sees_work()

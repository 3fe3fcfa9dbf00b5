from __future__ import annotations

import pytest

from alya_django import Status, batches, register_batch_processor, slow_queries
from alya_django import register_slow_query_processor as register_slow_query
from alya_django.db import RowEnding
from alya_django.engine.scope import Scope
from alya_django.engine.worker import Worker
from alya_django.models import Batch, BatchRow
from alya_django.status import Kind
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import Recording, echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


def drain_only(**names) -> int:
    """Drain what is within a scope."""
    with Worker(scope=Scope.of(**names)) as worker:
        return worker.drain()


class ScopeTests:
    @pytest.mark.rule("SCO-1")
    def test_several_apps_ops_and_kinds_narrow_together(self) -> None:
        """A worker takes what is of one of its apps, one of its ops and one of its kinds."""
        for app in ("one", "two", "three"):
            for op in ("a", "b", "c"):
                register_batch_processor(app, op, echo)
                register_slow_query(app, op, echo)
                batches.submit(app, op, [1])
                slow_queries.submit(app, op, 1)
        assert drain_only(apps=["one", "Two"], ops=["A", "b"], kinds=[Kind.BATCH]) == 4
        assert drain_only(apps=["one", "two"], ops=["a", "b"], kinds=[Kind.SLOW_QUERY]) == 4
        assert drain_only(apps=["three"]) == 6
        assert drain() == 4
        check_invariants()

    @pytest.mark.rule("SCO-1")
    def test_names_that_no_processor_has_are_told(self) -> None:
        """A name counts only where the rest of the scope leaves a processor for it."""
        register_batch_processor("one", "a", echo)
        register_slow_query("two", "b", echo)
        assert Scope().unserved() == []
        assert Scope.of(apps=["one", "two"], ops=["a", "b"]).unserved() == []
        scope = Scope.of(apps=["one", "two"], ops=["a", "c"], kinds=[Kind.SLOW_QUERY])
        assert scope.unserved() == [("app", "one"), ("app", "two"), ("op", "a"), ("op", "c"), ("kind", "slow query")]

    @pytest.mark.rule("SCO-2")
    def test_neither_finishes_nor_tells_of_the_others(self, make_claimer, make_recorder) -> None:
        """A batch that is complete, and one whose end nobody was told, are left to a worker of their op."""
        mine, other = Recording(), Recording()
        register_batch_processor("app", "mine", mine)
        register_batch_processor("app", "other", other)
        complete = batches.submit("app", "other", [1])
        chunk = make_claimer(1).take()
        endings = [RowEnding(row.id, Status.SUCCESS, "{}", None, None) for row in chunk.rows]
        make_recorder(1).record(complete, chunk.claim, endings)
        aborted = batches.submit("app", "other", [1])
        batches.abort(aborted)
        drain_only(ops=["mine"])
        assert batches.status(complete).status is Status.IN_PROGRESS
        assert other.done == []
        drain_only(ops=["other"])
        assert {details.id for details in other.done} == {complete, aborted}
        assert mine.done == []

    @pytest.mark.rule("SCO-2")
    def test_does_not_wake_the_others(self, make_claimer, make_recorder) -> None:
        """Rows that are due again in another's batch are none of its business."""
        register_batch_processor("app", "mine", echo)
        register_batch_processor("app", "other", echo)
        batch_id = batches.submit("app", "other", [1])
        chunk = make_claimer(1).take()
        make_recorder(1).requeue(batch_id, chunk.claim)
        drain_only(ops=["mine"])
        assert Batch.objects.get(pk=batch_id).drained
        assert drain_only(ops=["other"]) == 1

    @pytest.mark.rule("SCO-2")
    def test_judges_only_within_its_scope(self, settings) -> None:
        """That an op is served by nobody is found by a worker whose scope it is in."""
        settings.ALYA = {"CONFIG_FAILURE_SECONDS": 0}
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "gone", [1])
        query_id = slow_queries.submit("app", "gone", 1)
        drain_only(ops=["op"])
        assert batches.status(batch_id).status is Status.QUEUED
        drain_only(kinds=[Kind.BATCH])
        assert batches.status(batch_id).status is Status.FAILED
        assert slow_queries.result(query_id).status is Status.QUEUED
        assert BatchRow.objects.get(batch=query_id).status == Status.QUEUED

from __future__ import annotations

import pytest

from alya_django import RowFailed, RowResult, Status, batches, register_batch_processor, slow_queries
from alya_django import register_slow_query_processor as register_slow_query
from alya_django.models import Batch, BatchErrors, BatchProgress, BatchRow
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


@pytest.fixture
def everything():
    """Batches and slow queries in every state, rows too; returns the id of a batch that failed."""

    def process(row):
        if row.input == "fail":
            raise RowFailed("no")
        return RowResult.success(row.input, output_lines={f"{row.line % 3}.csv": "x", "none.csv": ""})

    register_batch_processor("app", "op", process)
    register_slow_query("app", "op", echo)
    batches.submit("app", "op", range(7))
    failed = batches.submit("app", "op", [1, "fail", 3])
    slow_queries.submit("app", "op", {})
    drain()
    batches.abort(batches.submit("app", "op", [1, 2]))
    slow_queries.abort(slow_queries.submit("app", "op", {}))
    batches.submit("app", "op", [1, 2])
    batches.submit("app", "op", [1, 2], wait=True)
    slow_queries.submit("app", "op", {})
    return failed


def break_row(**values):
    def act(failed):
        BatchRow.objects.filter(batch=failed, status=Status.SUCCESS).update(**values)

    return act


def break_batch(**values):
    def act(failed):
        Batch.objects.filter(pk=failed).update(**values)

    return act


class InvariantTests:
    @pytest.mark.rule("INV-1", "INV-2", "INV-3", "INV-4", "INV-5", "INV-6", "INV-7", "INV-8", "INV-10", "INV-11")
    def test_hold_for_batches_in_every_state(self, everything) -> None:
        """After a bit of everything each rule holds."""
        states = set(Batch.objects.values_list("status", flat=True))
        assert states == {Status.SUCCESS, Status.FAILED, Status.ABORTED, Status.QUEUED, Status.WAIT}
        check_invariants()

    @pytest.mark.parametrize(
        ("rule", "act"),
        [
            ("INV-3", break_batch(status=Status.SUCCESS)),
            ("INV-4", break_row(status=Status.QUEUED)),
            ("INV-5", break_row(done_by=None)),
            ("INV-6", break_row(result=None)),
            ("INV-7", lambda failed: BatchRow.objects.filter(batch=failed, line=3).update(line=0)),
            ("INV-8", break_batch(output_files={})),
            ("INV-11", lambda failed: BatchErrors.objects.filter(batch=failed).update(counts={"no": 2})),
            ("nrows = rows", lambda failed: BatchRow.objects.filter(batch=failed, status=Status.FAILED).delete()),
            ("progress", lambda failed: BatchProgress.objects.filter(batch=failed).update(nsuccess=0)),
        ],
    )
    def test_the_check_sees_what_is_broken(self, everything, rule, act) -> None:
        """A check that could not fail would prove nothing."""
        act(everything)
        with pytest.raises(AssertionError, match=rule):
            check_invariants()

from __future__ import annotations

import pytest

from alya_django import (
    BatchInput,
    InvalidInput,
    InvalidState,
    NotFound,
    RowFailed,
    Status,
    WrongType,
    batches,
    register_batch_processor,
    slow_queries,
)
from alya_django.models import Batch, BatchRow
from alya_django.signals import batch_submitted
from alya_django.testing import drain
from tests.invariants import check_invariants

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite, pytest.mark.usefixtures("registry")]


@pytest.fixture
def failing():
    """The lines that fail, to be changed by a test; the processor keeps the keys that it has seen."""
    lines: set[int] = {2, 5}
    keys: list[str] = []

    def process(row):
        keys.append(row.key)
        if row.line in lines:
            raise RowFailed("no")
        return row.input

    register_batch_processor("app", "op", process)
    process.lines, process.keys = lines, keys
    return process


@pytest.fixture
def failed(failing):
    """The id of a batch of which lines 2 and 5 have failed."""
    batch_id = batches.submit(
        "app",
        "op",
        [BatchInput(line, {"n": line}) for line in (1, 2, 5, 9)],
        context={"who": "me"},
        input_file="in.csv",
        requested_by="asha",
        weight=3,
    )
    drain()
    return batch_id


class RetryTests:
    @pytest.mark.rule("RTY-1")
    def test_submits_the_failed_rows_again(self, failed, failing) -> None:
        """The child has the parent's failed lines with their inputs, and all else that the parent was given."""
        failing.lines.clear()
        child = batches.retry(failed)
        assert batches.status(child).status is Status.QUEUED
        rows = BatchRow.objects.filter(batch=child).order_by("line").values_list("line", "input")
        assert list(rows) == [(2, {"n": 2}), (5, {"n": 5})]
        drain()
        batch = Batch.objects.get(pk=child)
        assert (batch.status, batch.nrows, batch.nsuccess) == (Status.SUCCESS, 2, 2)
        assert (batch.app, batch.op, batch.context, batch.input_file) == ("app", "op", {"who": "me"}, "in.csv")
        assert (batch.requested_by, batch.weight, batch.unique_key) == ("asha", 3, None)
        assert batches.status(failed).status is Status.FAILED
        check_invariants()

    @pytest.mark.rule("RTY-1")
    def test_submits_the_aborted_rows_again(self, failing) -> None:
        """Rows that an abort ended can be had again too."""
        parent = batches.submit("app", "op", range(3))
        batches.abort(parent)
        child = batches.retry(parent)
        assert batches.status(child).nrows == 3
        check_invariants()

    @pytest.mark.rule("RTY-7")
    @pytest.mark.parametrize("lines", [None, [2]])
    def test_with_a_key_it_may_be_repeated(self, failed, lines) -> None:
        """The second time the child is told that there is, with its rows in hand; without a key it is refused."""
        child = batches.retry(failed, lines=lines, unique_key="k")
        assert batches.retry(failed, lines=lines, unique_key="k") == child
        assert batches.children(failed) == [child]
        with pytest.raises((InvalidInput, InvalidState)):
            batches.retry(failed, lines=lines)

    @pytest.mark.rule("RTY-2")
    def test_tells_the_lineage_both_ways(self, failed) -> None:
        """The child knows its parent, the parent its children, and both the first of the family."""
        child = batches.retry(failed)
        drain()
        grandchild = batches.retry(child)
        assert batches.children(failed) == [child]
        assert batches.children(child) == [grandchild]
        assert batches.children(grandchild) == []
        assert batches.status(child).parent == failed
        assert batches.status(grandchild).parent == child
        assert batches.status(failed).parent is None
        assert Batch.objects.get(pk=grandchild).root_id == failed

    @pytest.mark.rule("RTY-2")
    def test_a_row_keeps_its_key(self, failed, failing) -> None:
        """A retried row is known by the same key, so what it has done outside is not done twice."""
        child = batches.retry(failed)
        drain()
        batches.retry(child)
        failing.keys.clear()
        drain()
        assert failing.keys == [f"{failed}:2", f"{failed}:5"]

    @pytest.mark.rule("RTY-1")
    def test_can_wait(self, failed) -> None:
        """With wait=True the child is released like any batch."""
        child = batches.retry(failed, wait=True)
        assert batches.status(child).status is Status.WAIT
        assert batches.release(child) == 2

    def test_is_told_like_a_submit(self, failed, django_capture_on_commit_callbacks) -> None:
        """Receivers of batch_submitted hear of it after the commit."""
        heard = []

        def hear(batch_id, app, op, **_) -> None:
            heard.append((batch_id, app, op))

        batch_submitted.connect(hear)
        try:
            with django_capture_on_commit_callbacks(execute=True):
                child = batches.retry(failed)
        finally:
            batch_submitted.disconnect(hear)
        assert heard == [(child, "app", "op")]


class LinesTests:
    @pytest.mark.rule("RTY-1")
    def test_takes_only_the_lines_asked_for(self, failed) -> None:
        """One line can be retried alone."""
        child = batches.retry(failed, lines=[5])
        assert [row.line for row in batches.iter_rows(child)] == [5]

    @pytest.mark.rule("RTY-4")
    @pytest.mark.parametrize("line", [1, 3, 99])
    def test_refuses_a_line_that_has_not_failed(self, failed, line) -> None:
        """A line that succeeded, or is none, is named, and nothing is stored."""
        with pytest.raises(InvalidInput) as raised:
            batches.retry(failed, lines=[2, line])
        assert str(raised.value) == f"line {line}: there is no such row to retry."
        assert raised.value.line == line
        assert batches.children(failed) == []

    def test_refuses_what_is_no_line(self, failed) -> None:
        """Lines are checked as everywhere."""
        with pytest.raises(InvalidInput):
            batches.retry(failed, lines=[0])
        with pytest.raises(InvalidInput, match="lines: is empty"):
            batches.retry(failed, lines=[])


class TakenTests:
    @pytest.mark.rule("RTY-3")
    def test_a_row_in_a_live_child_is_not_taken_again(self, failed) -> None:
        """As long as a child has a row in hand there is nothing to retry."""
        batches.retry(failed, lines=[2])
        with pytest.raises(InvalidInput, match="line 2"):
            batches.retry(failed, lines=[2])
        second = batches.retry(failed)
        assert [row.line for row in batches.iter_rows(second)] == [5]
        with pytest.raises(InvalidState) as raised:
            batches.retry(failed)
        assert str(raised.value) == f"The batch {failed} has no row to retry: its status is failed."
        assert raised.value.status is Status.FAILED
        check_invariants()

    @pytest.mark.rule("RTY-3")
    def test_a_row_that_succeeded_in_a_child_is_not_taken_again(self, failed, failing) -> None:
        """What came right is left alone; what failed again can be retried again."""
        failing.lines.remove(2)
        batches.retry(failed)
        drain()
        again = batches.retry(failed)
        assert [row.line for row in batches.iter_rows(again)] == [5]

    @pytest.mark.rule("RTY-3")
    def test_a_row_that_succeeded_in_a_grandchild_is_not_taken_again(self, failed, failing) -> None:
        """The whole family counts: neither the parent nor the first child takes the row again."""
        child = batches.retry(failed)
        drain()
        failing.lines.clear()
        batches.retry(child)
        drain()
        for batch_id in (failed, child):
            with pytest.raises(InvalidState):
                batches.retry(batch_id)


class RefusedTests:
    @pytest.mark.parametrize("wait", [True, False])
    def test_a_batch_that_has_not_ended(self, failing, wait) -> None:
        """There is nothing to repeat while it may still come right."""
        batch_id = batches.submit("app", "op", [1], wait=wait)
        with pytest.raises(InvalidState) as raised:
            batches.retry(batch_id)
        assert raised.value.status is (Status.WAIT if wait else Status.QUEUED)

    @pytest.mark.rule("RTY-4")
    def test_a_batch_without_failed_rows(self, failing) -> None:
        """A success has nothing to repeat."""
        batch_id = batches.submit("app", "op", [1])
        drain()
        with pytest.raises(InvalidState, match="has no row to retry: its status is success"):
            batches.retry(batch_id)

    @pytest.mark.rule("API-1", "API-2", "API-3")
    def test_ids_that_are_none(self) -> None:
        """Malformed, unknown and of the other kind."""
        with pytest.raises(InvalidInput):
            batches.retry("x")
        with pytest.raises(NotFound):
            batches.retry("00000000-0000-0000-0000-000000000000")
        query_id = slow_queries.submit("app", "op", {})
        for verb in (batches.retry, batches.children):
            with pytest.raises(WrongType):
                verb(query_id)

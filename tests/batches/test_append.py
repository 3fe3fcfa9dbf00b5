from __future__ import annotations

import pytest

from alya_django import BatchInput, InvalidState, Status, batches, register_batch_processor
from alya_django.models import BatchRow
from alya_django.testing import drain
from tests.batches.states import put_into, while_running
from tests.batches.stored import BLOCK_ROWS, inputs, lines, refusing
from tests.batches.values import NAN
from tests.invariants import check_invariants
from tests.processors import echo

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class AppendTests:
    @pytest.mark.rule("APP-3", "APP-4")
    def test_adds_rows_and_returns_how_many_there_are(self):
        """The answer counts earlier and new rows; the batch goes on waiting."""
        batch_id = batches.submit("bank", "echo", ["a"], wait=True)
        assert batches.append(batch_id, ["b", "c"]) == 3
        assert batches.append(batch_id, iter("d")) == 4
        summary = batches.status(batch_id)
        assert (summary.status, summary.nrows) == (Status.WAIT, 4)
        assert inputs(batch_id) == ["a", "b", "c", "d"]
        assert lines(batch_id) == [1, 2, 3, 4]
        check_invariants()

    @pytest.mark.rule("APP-3")
    def test_numbers_rows_on_from_the_largest_line(self):
        """Rows without lines follow the batch's largest line; those with lines fill gaps."""
        batch_id = batches.submit("bank", "echo", [BatchInput(9, "i"), BatchInput(2, "b")], wait=True)
        assert batches.append(batch_id, ["j", BatchInput(4, "d"), "k"]) == 5
        assert lines(batch_id) == [2, 4, 9, 10, 11]
        assert inputs(batch_id) == ["b", "d", "i", "j", "k"]

    @pytest.mark.rule("APP-4")
    def test_releases_when_told(self, registry):
        """The last append may let the batch go."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", ["a"], wait=True)
        assert batches.append(batch_id, ["b"], wait=False) == 2
        assert batches.status(batch_id).status is Status.QUEUED
        assert drain() == 2
        check_invariants()

    @pytest.mark.rule("APP-1")
    @pytest.mark.parametrize("status", [Status.QUEUED, Status.SUCCESS, Status.FAILED, Status.ABORTED])
    @pytest.mark.parametrize("wait", [True, False])
    def test_refuses_a_batch_that_no_longer_waits(self, registry, status, wait):
        """Rows are added to a waiting batch only; the error carries the state."""
        batch_id = put_into(status)
        with refusing(InvalidState) as caught:
            batches.append(batch_id, [6], wait=wait)
        assert str(caught.value) == f"The batch {batch_id} takes no more rows: its status is {status.label}."
        assert caught.value.status is status
        check_invariants()

    @pytest.mark.rule("APP-6")
    def test_refuses_a_child(self, registry):
        """The number of a new row is that of another row of its parent, and so would be its key."""
        child = batches.retry(put_into(Status.FAILED), wait=True)
        nrows = batches.status(child).nrows
        with refusing(InvalidState) as caught:
            batches.append(child, [6])
        assert str(caught.value) == (
            f"The batch {child} repeats rows of another and takes no others: its status is wait."
        )
        assert batches.status(child).nrows == nrows
        check_invariants()

    @pytest.mark.rule("APP-1")
    def test_refuses_a_running_batch(self, registry):
        """A batch that has started takes no more rows."""

        def append(batch_id):
            with pytest.raises(InvalidState) as caught:
                batches.append(batch_id, [6])
            return caught.value

        batch_id, (error,) = while_running(append)
        assert str(error) == f"The batch {batch_id} takes no more rows: its status is in progress."
        assert error.status is Status.IN_PROGRESS
        assert batches.status(batch_id).nrows == 4
        check_invariants()

    @pytest.mark.rule("APP-2")
    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], "rows: is empty: there must be a row."),
            ({"a": 1}, "rows: must be an iterable of rows, not dict."),
            ("abc", "rows: must be an iterable of rows, not str."),
            (None, "rows: must be an iterable of rows, not NoneType."),
            ([6, NAN], "line 4: input: NaN cannot be stored as JSON."),
            ([6, {"a": {1}}], "line 4: input.a: a value of type set cannot be stored as JSON."),
            ([6, BatchInput(0, 1)], "line 0: a line is a number from 1 to 2147483647."),
            ([6, BatchInput(True, 1)], "a line is a whole number, not True."),
            ([BatchInput(5, 1), BatchInput(5, 1)], "line 5: the batch has this line twice."),
            ([6, BatchInput(2, 1)], "line 2: the batch has this line twice."),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_refuses_what_submit_refuses(self, rows, message):
        """One bad row, also one whose line an earlier row has, rejects all."""
        batch_id = batches.submit("bank", "echo", [2, 4], wait=True)
        with refusing() as caught:
            batches.append(batch_id, rows, wait=False)
        assert str(caught.value) == message
        assert (batches.status(batch_id).status, batches.status(batch_id).nrows) == (Status.WAIT, 2)
        assert batches.append(batch_id, [6]) == 3
        check_invariants()

    @pytest.mark.rule("APP-2")
    def test_refuses_a_duplicate_across_blocks(self):
        """A line of a later block is compared with those of earlier appends too."""
        batch_id = batches.submit("bank", "echo", [BatchInput(9_000, "z")], wait=True)
        with refusing() as caught:
            batches.append(batch_id, (BatchInput(n, n) for n in range(1, 9_002)))
        assert str(caught.value) == "line 9000: the batch has this line twice."
        assert caught.value.line == 9_000

    @pytest.mark.rule("APP-2", "SUB-5")
    def test_counts_earlier_rows_towards_the_limit(self, settings):
        """The limit is the batch's, not the call's; exactly the limit is accepted."""
        settings.ALYA = {"BATCH_ROWS_MAX": 3}
        batch_id = batches.submit("bank", "echo", [2, 4], wait=True)
        with refusing() as caught:
            batches.append(batch_id, [6, 8])
        assert str(caught.value) == "rows: has more than 3 rows, the limit."
        assert batches.append(batch_id, [6]) == 3

    @pytest.mark.rule("APP-2", "API-4")
    def test_adds_nothing_when_the_rows_break_off(self):
        """What the iterable raises comes out as it is; earlier rows stay alone."""

        def breaking():
            yield from range(BLOCK_ROWS + 3)
            raise LookupError("the file ends here")

        batch_id = batches.submit("bank", "echo", [1], wait=True)
        with refusing(LookupError):
            batches.append(batch_id, breaking(), wait=False)
        assert batches.status(batch_id).status is Status.WAIT
        assert batches.append(batch_id, [2]) == 2

    @pytest.mark.rule("APP-2")
    def test_takes_rows_that_come_from_the_same_connection(self):
        """The iterable may read the very batch that it is added to."""
        batch_id = batches.submit("bank", "echo", ["a", "b"], wait=True)
        rows = BatchRow.objects.filter(batch=batch_id).order_by("line").values_list("input", flat=True)
        assert batches.append(batch_id, rows.iterator()) == 4
        assert inputs(batch_id) == ["a", "b", "a", "b"]

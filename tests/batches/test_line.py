from __future__ import annotations

from dataclasses import replace

import pytest

from alya_django import ErrorMessage, NotFound, RowFailed, Status, batches, register_batch_processor
from alya_django.testing import drain
from tests.batches.states import while_running
from tests.batches.stored import refusing
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class LineTests:
    def test_tells_what_became_of_one_row(self, registry):
        """One line of a million is found by its number."""
        batch_id, _ = while_running(lambda batch_id: None)
        assert batches.line(batch_id, 1).messages == (ErrorMessage("odd"),)
        assert batches.line(batch_id, 2).result == {}

    def test_of_a_row_that_waits_is_empty(self):
        """Nothing has happened to it yet."""
        row = batches.line(batches.submit("bank", "echo", [1]), 1)
        assert (row.status, row.result, row.messages) == (Status.QUEUED, None, ())
        assert (row.attempts, row.done_by, row.claimed_at, row.done_at) == (0, "", None, None)

    @pytest.mark.rule("API-2")
    def test_says_that_there_is_no_such_line(self):
        """A line that the batch does not have is not found."""
        batch_id = batches.submit("bank", "echo", [1])
        with pytest.raises(NotFound) as caught:
            batches.line(batch_id, 3269)
        assert str(caught.value) == f"The batch {batch_id} has no line 3269."

    @pytest.mark.rule("API-1")
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (0, "line 0: a line is a number from 1 to 2147483647."),
            (2**31, "line 2147483648: a line is a number from 1 to 2147483647."),
            (True, "a line is a whole number, not True."),
            ("1", "a line is a whole number, not '1'."),
        ],
    )
    def test_refuses_what_is_no_line(self, line, message):
        """A line that no row can have is invalid input."""
        batch_id = batches.submit("bank", "echo", [1])
        with refusing() as caught:
            batches.line(batch_id, line)
        assert str(caught.value) == message


class SequelTests:
    @pytest.mark.rule("RTY-6")
    def test_follows_a_line_through_retries(self, registry):
        """What became of it in the children, and in theirs, by batch and oldest first."""
        failing = {1, 2}

        def process(row):
            if row.line in failing:
                raise RowFailed("no")

        register_batch_processor("bank", "pay", process)
        first = batches.submit("bank", "pay", [1, 2, 3])
        drain()
        second = batches.retry(first)
        drain()
        failing.clear()
        third = batches.retry(second, lines=[1])
        drain()
        fourth = batches.retry(first, lines=[2])
        assert batches.line(third, 1) == replace(batches.line(first, 1).sequels[third], sequels={})
        assert {key: row.status for key, row in batches.line(first, 1).sequels.items()} == {
            second: Status.FAILED,
            third: Status.SUCCESS,
        }
        assert list(batches.line(first, 2).sequels) == [second, fourth]
        assert list(batches.line(second, 2).sequels) == []
        assert batches.line(first, 3).sequels == {}

    def test_takes_as_many_statements_whatever_came_of_it(self, registry, django_assert_num_queries):
        """One for the batch, one for the rows of the line."""
        register_batch_processor("bank", "pay", fail_odd)
        batch_id = batches.submit("bank", "pay", [1])
        drain()
        for _ in range(3):
            batches.retry(batch_id)
            drain()
        with django_assert_num_queries(2):
            assert len(batches.line(batch_id, 1).sequels) == 3

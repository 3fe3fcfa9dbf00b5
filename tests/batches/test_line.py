from __future__ import annotations

import pytest

from alya_django import ErrorMessage, NotFound, Status, batches
from tests.batches.states import while_running
from tests.batches.stored import refusing

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

from __future__ import annotations

import pytest
from django.core.cache import cache

from alya_django import BatchInput, BatchResult, ErrorMessage, Status, batches, register_batch_processor
from alya_django.testing import drain
from tests.batches.states import put_into, while_running
from tests.batches.stored import stored
from tests.invariants import check_invariants
from tests.processors import broken, echo, fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class ResultTests:
    @pytest.mark.rule("DON-1")
    @pytest.mark.parametrize("status", [Status.WAIT, Status.QUEUED])
    def test_of_a_batch_that_has_not_begun_is_empty(self, status):
        """There is nothing yet: try later."""
        result = batches.result(put_into(status))
        assert isinstance(result, BatchResult)
        assert (result.status, result.try_later, result.rows, result.output_files) == (status, True, (), {})
        assert (result.nrows, result.nsuccess, result.nfailed, result.naborted) == (2, 0, 0, 0)

    @pytest.mark.rule("DON-1")
    def test_of_a_running_batch_has_live_counts_and_no_rows(self, registry):
        """Of a running batch one learns how far it is, but no rows."""
        _, (result,) = while_running(batches.result)
        assert (result.status, result.try_later, result.rows) == (Status.IN_PROGRESS, True, ())
        assert (result.nrows, result.nsuccess, result.nfailed, result.naborted) == (4, 1, 1, 0)
        check_invariants()

    @pytest.mark.rule("DON-2")
    def test_of_a_finished_batch_has_every_row_in_the_order_of_lines(self, registry):
        """Each row has its line, state, result and messages, and who did it when."""
        register_batch_processor("bank", "fail", fail_odd)
        batch_id = batches.submit("bank", "fail", [BatchInput(8, 1), BatchInput(3, 2), BatchInput(2, 3)])
        drain()
        result = batches.result(batch_id)
        assert (result.status, result.try_later) == (Status.FAILED, False)
        assert (result.nrows, result.nsuccess, result.nfailed, result.naborted) == (3, 2, 1, 0)
        assert [(row.line, row.status, row.result, row.messages) for row in result.rows] == [
            (2, Status.SUCCESS, {}, ()),
            (3, Status.FAILED, None, (ErrorMessage("odd", "line", ("3",)),)),
            (8, Status.SUCCESS, {}, ()),
        ]
        for row in result.rows:
            assert row.attempts == 1
            assert row.done_by
            assert row.requested_at <= row.claimed_at <= row.done_at
        check_invariants()

    @pytest.mark.rule("DON-2")
    @pytest.mark.parametrize("value", [{"a": 1}, [1, None], "x", 0, False, "", 10**1000, 1.5], ids=repr)
    def test_has_what_the_processor_returned(self, registry, value):
        """A result is JSON of any kind, also what counts as false."""
        register_batch_processor("bank", "echo", echo)
        batch_id = batches.submit("bank", "echo", [value])
        drain()
        assert batches.result(batch_id).rows[0].result == value
        check_invariants()

    @pytest.mark.rule("DON-2")
    def test_of_a_broken_processor_has_the_engine_s_message(self, registry):
        """What a processor raised by mistake fails its row, and is told."""
        register_batch_processor("bank", "broken", broken)
        batch_id = batches.submit("bank", "broken", [1])
        drain(raise_errors=False)
        (row,) = batches.result(batch_id).rows
        assert row.messages == (
            ErrorMessage("processing_error", vals=("ZeroDivisionError: division by zero",), msgid=10),
        )
        check_invariants()

    @pytest.mark.rule("DON-3")
    @pytest.mark.parametrize("status", [Status.WAIT, Status.QUEUED, Status.SUCCESS, Status.FAILED, Status.ABORTED])
    def test_is_the_same_with_and_without_the_cache(self, registry, status, django_capture_on_commit_callbacks):
        """The cache changes no answer."""
        with django_capture_on_commit_callbacks(execute=True):
            batch_id = put_into(status)
        warm = batches.result(batch_id), batches.status(batch_id)
        cache.clear()
        assert (batches.result(batch_id), batches.status(batch_id)) == warm
        check_invariants()

    @pytest.mark.rule("DON-4")
    def test_of_an_aborted_batch_keeps_what_had_ended(self, registry):
        """Rows that ended stay as they are; aborted ones have nothing."""
        batch_id, _ = while_running(batches.abort)
        result = batches.result(batch_id)
        assert (result.status, result.output_files) == (Status.ABORTED, {})
        assert (result.nsuccess, result.nfailed, result.naborted) == (1, 1, 2)
        assert [(row.line, row.status, row.result, row.messages) for row in result.rows] == [
            (1, Status.FAILED, None, (ErrorMessage("odd"),)),
            (2, Status.SUCCESS, {}, ()),
            (3, Status.ABORTED, None, ()),
            (4, Status.ABORTED, None, ()),
        ]
        assert all(row.done_at for row in result.rows)
        check_invariants()

    @pytest.mark.rule("DON-5")
    @pytest.mark.parametrize("status", [Status.WAIT, Status.QUEUED, Status.SUCCESS, Status.FAILED, Status.ABORTED])
    def test_changes_nothing(self, registry, status):
        """Reading leaves every batch and row as it is."""
        batch_id = put_into(status)
        before = stored()
        batches.result(batch_id)
        batches.status(batch_id)
        list(batches.iter_rows(batch_id))
        batches.line(batch_id, 1)
        assert stored() == before

from __future__ import annotations

import pytest
from django.core.files.storage import FileSystemStorage
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alya_django import AlreadyDone, BatchProcessor, RowFailed, RowResult, Status, batches, register_batch_processor
from alya_django.models import Batch
from alya_django.status import Kind
from alya_django.testing import drain
from tests.batches.states import put_into, while_running
from tests.batches.stored import BLOCK_ROWS, refusing, stored
from tests.invariants import check_invariants
from tests.processors import Recording, echo, write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class FullStorage(FileSystemStorage):
    """A storage that saves nothing."""

    def save(self, *arguments, **keywords):
        raise OSError("No space left on device")


class AbortTests:
    @pytest.mark.rule("ABT-1")
    @pytest.mark.parametrize("status", [Status.WAIT, Status.QUEUED])
    def test_stops_a_batch_that_has_not_begun(self, registry, status):
        """Every row is aborted, the batch has ended, and the figures say so."""
        batch_id = put_into(status)
        summary = batches.abort(batch_id)
        assert (summary.status, summary.kind, summary.nrows, summary.try_later) == (
            Status.ABORTED,
            Kind.BATCH,
            2,
            False,
        )
        assert (summary.nsuccess, summary.nfailed, summary.naborted) == (0, 0, 2)
        assert summary.output_files == {}
        assert batches.status(batch_id) == summary
        assert Batch.objects.get(pk=batch_id).done_at is not None
        for row in batches.iter_rows(batch_id):
            assert row.status is Status.ABORTED
            assert row.done_at is not None
        register_batch_processor("bank", "echo", echo)
        assert drain() == 0
        check_invariants()

    @pytest.mark.rule("ABT-1", "ABT-2")
    def test_keeps_the_rows_that_have_ended(self, registry):
        """What has succeeded or failed stays, and is counted."""
        batch_id, (summary,) = while_running(batches.abort)
        assert summary.status is Status.ABORTED
        assert (summary.nsuccess, summary.nfailed, summary.naborted) == (1, 1, 2)
        assert batches.status(batch_id) == summary
        check_invariants()

    @pytest.mark.rule("ABT-1", "OUT-1")
    def test_leaves_no_output_files(self, registry):
        """An aborted batch joins no lines, also none of rows that succeeded."""

        class AbortThird(BatchProcessor):
            chunk_rows = 1

            def do_batch_job(self, row):
                if row.line == 3:
                    batches.abort(row.batch_id)
                return RowResult.success(output_lines={"a.csv": "x"})

        register_batch_processor("bank", "write", AbortThird)
        batch_id = batches.submit("bank", "write", range(4))
        drain()
        assert batches.status(batch_id).output_files == {}
        assert batches.status(batch_id).nsuccess == 2
        check_invariants()

    @pytest.mark.rule("ABT-3")
    @pytest.mark.parametrize(("status", "counts"), [(Status.SUCCESS, (2, 0, 0)), (Status.FAILED, (1, 1, 0))])
    def test_tells_that_a_batch_has_ended(self, registry, status, counts):
        """A batch that has succeeded or failed is not stopped; the error carries how it ended."""
        batch_id = put_into(status)
        with refusing(AlreadyDone) as caught:
            batches.abort(batch_id)
        summary = caught.value.summary
        assert str(caught.value) == f"The batch {batch_id} has ended already."
        assert caught.value.status is status
        assert (summary.nsuccess, summary.nfailed, summary.naborted) == counts
        assert summary == batches.status(batch_id)
        check_invariants()

    @pytest.mark.rule("ABT-4")
    def test_tells_an_aborted_batch_as_it_is(self, registry):
        """Aborted again, it answers the same and keeps its time."""
        batch_id, (summary,) = while_running(batches.abort)
        before = stored()
        assert batches.abort(batch_id) == summary
        assert stored() == before
        check_invariants()

    @pytest.mark.rule("ABT-5")
    def test_drops_what_is_being_computed(self, registry, settings):
        """The row in hand leaves nothing, and the others of its claim are not started once it is noticed."""
        settings.ALYA = {"FLUSH_SECONDS": 0}
        started = []

        def abort_second(row):
            started.append(row.line)
            if row.line == 2:
                batches.abort(row.batch_id)
            return RowResult.success("late", output_lines={"a.csv": "late"})

        register_batch_processor("bank", "abort", abort_second)
        batch_id = batches.submit("bank", "abort", range(8))
        drain()
        assert started == [1, 2]
        result = batches.result(batch_id)
        assert (result.status, result.output_files) == (Status.ABORTED, {})
        assert (result.nsuccess, result.nfailed, result.naborted) == (1, 0, 7)
        assert [row.result for row in result.rows] == ["late"] + [None] * 7
        check_invariants()

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.rule("ABT-5")
    def test_drops_a_failure_that_comes_late(self, registry):
        """Messages of a row that was aborted meanwhile are dropped too, those of a broken processor as well."""

        def abort_and_fail(row):
            batches.abort(row.batch_id)
            if row.input:
                raise RowFailed("late")
            raise ZeroDivisionError

        register_batch_processor("bank", "abort", abort_and_fail)
        for value in (True, False):
            batch_id = batches.submit("bank", "abort", [value])
            drain(raise_errors=False)
            (row,) = batches.result(batch_id).rows
            assert (row.status, row.result, row.messages) == (Status.ABORTED, None, ())
        check_invariants()

    @pytest.mark.rule("ABT-6")
    @pytest.mark.parametrize(("processor", "status"), [(write_lines, Status.SUCCESS), (None, Status.FAILED)])
    def test_does_not_win_over_rows_that_have_all_ended(self, registry, settings, processor, status):
        """Where only the output files are missing, the batch is told as it is about to be, and then ends so."""

        def write_and_fail(row):
            return RowResult.failed("odd", output_lines=row.input)

        register_batch_processor("bank", "write", processor or write_and_fail)
        batch_id = batches.submit("bank", "write", [{"a.csv": "x"}])
        working = settings.STORAGES
        settings.STORAGES = {**working, "default": {"BACKEND": "tests.batches.test_abort.FullStorage"}}
        with pytest.raises(OSError, match="No space left on device"):
            drain()
        assert batches.status(batch_id).status is Status.IN_PROGRESS
        with refusing(AlreadyDone) as caught:
            batches.abort(batch_id)
        assert str(caught.value) == f"The batch {batch_id} has ended already."
        assert caught.value.status is status
        assert caught.value.summary.nsuccess + caught.value.summary.nfailed == 1
        settings.STORAGES = working
        drain()
        summary = batches.status(batch_id)
        assert (summary.status, set(summary.output_files)) == (status, {"a.csv"})
        check_invariants()

    @pytest.mark.rule("ABT-8")
    def test_is_delivered_to_mark_done(self, registry):
        """The processor learns once that its batch was aborted, with the context it was submitted with."""
        recording = Recording()
        register_batch_processor("bank", "echo", recording)
        batch_id = batches.submit("bank", "echo", [1, 2], context={"a": 1})
        batches.abort(batch_id)
        drain()
        drain()
        (details,) = recording.done
        assert (details.id, details.status, details.context) == (batch_id, Status.ABORTED, {"a": 1})
        assert (details.nrows, details.nsuccess, details.nfailed, details.naborted) == (2, 0, 0, 2)
        assert details.output_files == {}
        assert recording.rows == []
        check_invariants()

    @pytest.mark.rule("ABT-9")
    def test_takes_the_same_statements_whatever_the_size(self):
        """A large batch costs as many statements as a small one, and none reads rows."""

        def statements(nrows):
            batch_id = batches.submit("bank", "echo", range(nrows))
            with CaptureQueriesContext(connection) as captured:
                batches.abort(batch_id)
            return [query["sql"] for query in captured]

        small, large = statements(1), statements(BLOCK_ROWS + 1)
        assert len(large) == len(small) <= 12
        assert not [sql for sql in large if sql.startswith("SELECT") and 'FROM "alya_batchrows"' in sql]
        check_invariants()

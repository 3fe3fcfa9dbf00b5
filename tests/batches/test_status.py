from __future__ import annotations

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alya_django import Status, Summary, batches, register_batch_processor
from alya_django.status import Kind
from alya_django.testing import drain
from tests.batches.states import put_into, while_running
from tests.invariants import check_invariants
from tests.processors import write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class StatusTests:
    @pytest.mark.rule("STA-1")
    @pytest.mark.parametrize(
        ("status", "counts"),
        [
            (Status.WAIT, (0, 0, 0)),
            (Status.QUEUED, (0, 0, 0)),
            (Status.SUCCESS, (2, 0, 0)),
            (Status.FAILED, (1, 1, 0)),
            (Status.ABORTED, (0, 0, 2)),
        ],
    )
    def test_answers_in_every_state(self, registry, status, counts):
        """The summary has the state and the counts, whatever the state."""
        batch_id = put_into(status)
        for _ in range(2):
            summary = batches.status(batch_id)
            assert type(summary) is Summary
            assert (summary.status, summary.kind, summary.nrows) == (status, Kind.BATCH, 2)
            assert (summary.nsuccess, summary.nfailed, summary.naborted) == counts
            assert summary.try_later is (not status.is_final)
            assert (summary.held, summary.parent, summary.output_files) == (False, None, {})
            cache.clear()
        check_invariants()

    @pytest.mark.rule("STA-1")
    def test_counts_what_has_ended_so_far(self, registry):
        """The figures of a running batch are live."""
        _, (summary,) = while_running(batches.status)
        assert (summary.status, summary.try_later) == (Status.IN_PROGRESS, True)
        assert (summary.nrows, summary.nsuccess, summary.nfailed, summary.naborted) == (4, 1, 1, 0)
        assert summary.output_files == {}
        check_invariants()

    @pytest.mark.rule("STA-1", "OUT-5")
    def test_names_the_output_files(self, registry):
        """A finished batch's summary maps logical names to objects."""
        register_batch_processor("bank", "write", write_lines)
        batch_id = batches.submit("bank", "write", [{"a.csv": "x"}, {"b.csv": "y"}])
        drain()
        assert set(batches.status(batch_id).output_files) == {"a.csv", "b.csv"}
        check_invariants()

    @pytest.mark.rule("STA-2")
    def test_reads_no_rows(self, registry):
        """Whatever the state, no row is looked at."""
        ids = [put_into(status) for status in Status if status is not Status.IN_PROGRESS]
        cache.clear()
        with CaptureQueriesContext(connection) as captured:
            for batch_id in ids:
                batches.status(batch_id)
        assert len(captured) >= len(ids)
        assert not [query["sql"] for query in captured if "alya_batchrows" in query["sql"]]

    @pytest.mark.rule("STA-2")
    def test_reads_no_rows_of_a_running_batch(self, registry):
        """The live figures come from the progress, not from the rows."""

        def capture(batch_id):
            cache.clear()
            with CaptureQueriesContext(connection) as captured:
                batches.status(batch_id)
            return [query["sql"] for query in captured]

        _, (statements,) = while_running(capture)
        assert statements
        assert not [sql for sql in statements if "alya_batchrows" in sql]

    @pytest.mark.rule("STA-3")
    def test_of_a_finished_batch_needs_no_database(self, registry, django_assert_num_queries):
        """Once a batch has ended, the cache answers."""
        batch_id = put_into(Status.SUCCESS)
        with django_assert_num_queries(0):
            summary = batches.status(batch_id)
        assert (summary.status, summary.nsuccess) == (Status.SUCCESS, 2)

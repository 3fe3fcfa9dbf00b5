from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alya_django import Status, batches, register_batch_processor
from alya_django.testing import drain
from tests.batches.states import while_running
from tests.batches.stored import refusing
from tests.invariants import check_invariants
from tests.processors import fail_odd

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class IterRowsTests:
    @pytest.mark.rule("DON-6")
    def test_reads_page_by_page(self):
        """Each statement asks for a limited number of rows, and the first page comes before the second is read."""
        batch_id = batches.submit("bank", "echo", range(4_001))
        with CaptureQueriesContext(connection) as captured:
            rows = batches.iter_rows(batch_id)
            assert next(rows).line == 1
            first_page = len(captured)
            assert [row.line for row in rows] == list(range(2, 4_002))
        pages = [query["sql"] for query in captured if "alya_batchrows" in query["sql"]]
        assert first_page < len(captured)
        assert all("LIMIT" in sql for sql in pages)
        assert len(pages) >= 3

    @pytest.mark.rule("DON-6")
    def test_leaves_inputs_in_the_database(self):
        """What an outcome does not hold is not read."""
        batch_id = batches.submit("bank", "echo", [1])
        with CaptureQueriesContext(connection) as captured:
            list(batches.iter_rows(batch_id))
        assert not [query["sql"] for query in captured if '"alya_batchrows"."input"' in query["sql"]]

    def test_yields_rows_of_an_unfinished_batch_as_they_are(self, registry):
        """It does not wait for the end."""
        _, (rows,) = while_running(lambda batch_id: [(r.line, r.status) for r in batches.iter_rows(batch_id)])
        assert rows == [
            (1, Status.FAILED),
            (2, Status.SUCCESS),
            (3, Status.IN_PROGRESS),
            (4, Status.QUEUED),
        ]

    def test_filters_by_status_and_line(self, registry):
        """A page of a list, or only the failed rows."""
        register_batch_processor("bank", "fail", fail_odd)
        batch_id = batches.submit("bank", "fail", range(6))
        drain()
        assert [row.line for row in batches.iter_rows(batch_id, status=Status.FAILED)] == [1, 3, 5]
        assert [row.line for row in batches.iter_rows(batch_id, after_line=4)] == [5, 6]
        assert [row.line for row in batches.iter_rows(batch_id, status=Status.FAILED, after_line=1)] == [3, 5]
        assert list(batches.iter_rows(batch_id, after_line=6)) == []

    def test_refuses_what_is_no_status(self, registry):
        """A state that no row can have is an error, not an empty answer."""
        batch_id = batches.submit("bank", "echo", [1])
        with refusing() as caught:
            batches.iter_rows(batch_id, status="done")
        assert str(caught.value) == "status: 'done' is no status."
        check_invariants()

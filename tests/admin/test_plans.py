"""How PostgreSQL finds what the pages of batches show, among 20 000 batches and 200 000 rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from alya_django import batches, register_batch_processor, register_file_checker
from alya_django.models import Batch, BatchProgress
from alya_django.testing import isolated_registry
from tests.admin.pages import BATCHES, FILES
from tests.db.test_plans import is_scan, rows_read
from tests.processors import echo

pytestmark = pytest.mark.slow

QUERIES_MAX = 12
# A page of 25 and what its indexes look at beside it; a sixteenth of the batches begin with one digit.
READ_MAX = 1_001
ROWS = 200_000
# Of 20 000 batches every tenth is a batch and not a slow query, every fiftieth of these failed; 40 run, one is held.
HISTORY = """
    INSERT INTO alya_batches (id, app, op, kind, context, input_file, requested_by, status, nrows, nsuccess, nfailed,
        naborted, output_files, requested_at, started_at, done_at, marked_done_at, held_at)
    SELECT GEN_RANDOM_UUID(), 'bank', CASE n % 3 WHEN 0 THEN 'transfer' ELSE 'other' END,
        CASE n % 10 WHEN 0 THEN 'B' ELSE 'Q' END, '{}', CASE n % 10 WHEN 0 THEN 'file-' || n || '.csv' ELSE '' END, '',
        status, 1, CASE status WHEN 'success' THEN 1 WHEN 'failed' THEN 0 END,
        CASE status WHEN 'success' THEN 0 WHEN 'failed' THEN 1 END, CASE WHEN status <> 'inprog' THEN 0 END, '{}',
        NOW() - n * INTERVAL '1 minute', NOW() - INTERVAL '1 day', CASE WHEN status <> 'inprog' THEN NOW() END, NOW(),
        CASE n WHEN 19500 THEN NOW() END
    FROM (
        SELECT n, CASE WHEN n % 500 = 0 AND n > 0 THEN CASE WHEN n > 10000 THEN 'inprog' ELSE 'failed' END
            ELSE 'success' END AS status
        FROM GENERATE_SERIES(1, 20000) AS n
    ) AS made
"""

# What was asked of workers: once about each of the 2 000 batches, and twenty times about the large one.
ASKED = """
    INSERT INTO alya_batches (id, app, op, kind, parent_id, root_id, context, input_file, requested_by, status, nrows,
        nsuccess, nfailed, naborted, output_files, requested_at, started_at, done_at, marked_done_at)
    SELECT GEN_RANDOM_UUID(), 'alya', 'abort', 'Q', id, id, '{}', '', 'asha', 'success', 1, 1, 0, 0, '{}',
        requested_at, requested_at, NOW(), NOW()
    FROM (
        SELECT id, requested_at FROM alya_batches WHERE kind = 'B'
        UNION ALL SELECT id, requested_at FROM alya_batches, GENERATE_SERIES(1, 19) WHERE nrows > 1
    ) AS about
"""
# Each batch came as a file, the large one as twenty; 200 were rejected, and of one type there are but a few.
RECEIVED = """
    INSERT INTO alya_batch_files (batch_id, object_id, error_object_id, file_name, file_type, content_type, size,
        checksum, is_accepted, is_repeat, nfaulty, error_message, metadata)
    SELECT batch_id, n::text, '', 'f.csv', CASE WHEN n < 10 THEN 'fees' ELSE 'payments' END, '', 0, n::text,
        batch_id IS NOT NULL, false, 0, '', '{}'
    FROM (
        SELECT batch_id, ROW_NUMBER() OVER () AS n FROM (
            SELECT id AS batch_id FROM alya_batches
            UNION ALL SELECT id FROM alya_batches, GENERATE_SERIES(1, 19) WHERE nrows > 1
            UNION ALL SELECT NULL FROM GENERATE_SERIES(1, 200)
        ) AS came
    ) AS numbered
"""


@pytest.fixture(scope="module")
def large(django_db_setup: None, django_db_blocker: Any) -> Iterator[UUID]:
    """A batch of many rows beside a long history, with fresh statistics."""
    with django_db_blocker.unblock(), isolated_registry():
        batch_id = batches.submit("bank", "transfer", range(ROWS))
        Batch.objects.filter(pk=batch_id).start()
        with connection.cursor() as cursor:
            cursor.execute(HISTORY)
            cursor.execute(ASKED)
            cursor.execute(RECEIVED)
            cursor.execute(
                "INSERT INTO alya_batch_progress (batch_id, slot, nsuccess, nfailed) "
                "SELECT id, slot, 0, 0 FROM alya_batches, GENERATE_SERIES(0, 3) AS slot WHERE kind = 'B'"
            )
            cursor.execute(
                "UPDATE alya_batchrows SET status = 'inprog', claim = 4294967297, claimed_at = NOW(), done_by = 'w' "
                "WHERE line BETWEEN 100100 AND 100599"
            )
            cursor.execute(
                "UPDATE alya_batchrows SET status = 'failed', done_at = NOW(), done_by = 'w' WHERE line % 1000 = 7"
            )
            cursor.execute("VACUUM ANALYZE alya_batches, alya_batchrows, alya_batch_progress, alya_batch_files")
        BatchProgress.objects.filter(batch=batch_id).delete()
        yield batch_id
        with connection.cursor() as cursor:
            cursor.execute(
                "TRUNCATE alya_batchrows, alya_batches, alya_batch_progress, alya_batch_errors, alya_batch_files"
            )


@pytest.fixture
def client(large: UUID, db: None) -> Client:
    cache.clear()
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    return client


FILTERS: list[dict[str, str]] = [
    {},
    *({"status": status} for status in ("wait", "queued", "inprog", "success", "failed", "aborted")),
    *({"attention": choice} for choice in ("held", "stalled", "failures")),
    *({"kind": kind} for kind in ("B", "Q")),
    *({"since": period} for period in ("1h", "24h", "7d", "30d")),
    {"op": "bank/transfer"},
    {"q": "file-1234"},
    {"q": "a"},
    *({"q": f"{digit:x}bc"} for digit in range(16)),
    {"q": "0123456789abcdef0123456789abcdef"},
    {"kind": "B", "status": "failed"},
    {"after": "2026-01-01T00:00:00+00:00,00000000-0000-0000-0000-000000000000"},
]


class PlanTests:
    @pytest.mark.rule("ADM-7")
    @pytest.mark.parametrize("query", FILTERS, ids=str)
    def test_no_list_reads_a_table(self, query: dict[str, str], client: Client, registry: Any) -> None:
        """Each filter and search has its index: a page reads about what it shows, in a few statements."""
        register_batch_processor("bank", "transfer", echo)
        with CaptureQueriesContext(connection) as captured:
            assert client.get(BATCHES, query).status_code == 200
        assert len(captured) <= QUERIES_MAX
        statements = [one["sql"] for one in captured if "alya_" in one["sql"]]
        for table in ("alya_batches", "alya_batchrows", "alya_batch_progress"):
            assert [one for one in statements if is_scan(one, table)] == []
        assert {one: rows_read(one) for one in statements if rows_read(one) > READ_MAX} == {}

    @pytest.mark.rule("ADM-7")
    @pytest.mark.parametrize("page", ["change", "history", "abort", "release", "retry"])
    def test_no_page_of_a_batch_reads_a_table(self, page: str, large: UUID, client: Client) -> None:
        """The report asks for at most a thousand rows in progress, the questions for none."""
        with CaptureQueriesContext(connection) as captured:
            assert client.get(f"{BATCHES}{large}/{page}/").status_code == 200
        assert len(captured) <= QUERIES_MAX
        statements = [one["sql"] for one in captured if "alya_" in one["sql"]]
        for table in ("alya_batchrows", "alya_batch_progress", "alya_batches", "alya_batch_files"):
            assert [one for one in statements if is_scan(one, table)] == []
        assert {one: rows_read(one) for one in statements if rows_read(one) > READ_MAX} == {}

    @pytest.mark.rule("ADM-7", "ADM-70")
    @pytest.mark.parametrize("file_type", ["", "payments", "fees"])
    @pytest.mark.parametrize("outcome", ["", "accepted", "rejected", "undecided"])
    @pytest.mark.parametrize("scope", ["everything", "only_bank"])
    def test_no_list_of_files_reads_a_table(
        self, scope: str, outcome: str, file_type: str, client: Client, registry: Any, settings: Any
    ) -> None:
        """Of a type that most files have or few, of one outcome or all, and of the apps that a person may see."""
        settings.ALYA = {"ADMIN_SCOPE": f"tests.admin.test_permissions.{scope}"}
        register_file_checker("payments", echo, app="shop", op="order")
        register_file_checker("fees", echo, app="bank", op="fee")
        query = {"outcome": outcome, "file_type": file_type}
        with CaptureQueriesContext(connection) as captured:
            assert client.get(FILES, {name: value for name, value in query.items() if value}).status_code == 200
        assert len(captured) <= QUERIES_MAX
        statements = [one["sql"] for one in captured if "alya_" in one["sql"]]
        assert [one for one in statements if is_scan(one, "alya_batch_files")] == []
        assert {one: rows_read(one) for one in statements if rows_read(one) > READ_MAX} == {}

    @pytest.mark.rule("ADM-9")
    def test_the_endpoint_reads_the_batches_it_is_asked_for(self, large: UUID, client: Client) -> None:
        """One statement says which of them are seen, and one how far they are, by their keys."""
        ids = [large, *Batch.objects.filter(status="inprog").values_list("pk", flat=True)[:24]]
        with CaptureQueriesContext(connection) as captured:
            client.get(f"{BATCHES}progress/", {"ids": ",".join(map(str, ids))})
        statements = [one["sql"] for one in captured if "alya_" in one["sql"]]
        assert len(statements) == 2
        for statement in statements:
            assert not is_scan(statement, "alya_batches")
            assert not is_scan(statement, "alya_batch_progress")
            assert rows_read(statement) < READ_MAX

    def test_failed_lines_are_found_by_their_own_index(self, large: UUID, client: Client) -> None:
        """Those that have not failed are not read."""
        with CaptureQueriesContext(connection) as captured:
            list(client.get(f"{BATCHES}{large}/failed-lines/").streaming_content)
        statements = [one["sql"] for one in captured if "alya_batchrows" in one["sql"]]
        assert [one for one in statements if rows_read(one) > READ_MAX] == []

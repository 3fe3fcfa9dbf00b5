"""The statements of a row's way on a table of 200 000 rows: none may read the table from one end to the other."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from alya_django import Status, batches, register_batch_processor, slow_queries
from alya_django import register_slow_query_processor as register_slow_query
from alya_django.db import RowEnding
from alya_django.engine.deliver import Deliverer
from alya_django.engine.init_blocks import InitBlocks
from alya_django.engine.record import Recorder
from alya_django.engine.scope import Scope
from alya_django.engine.sweep import Sweeper
from alya_django.engine.worker import Worker
from alya_django.models import Batch, BatchRow, database
from alya_django.models import Worker as WorkerRecord
from alya_django.retention import prune
from alya_django.status import Kind
from alya_django.testing import drain, isolated_registry
from tests.processors import echo

# One process fills the tables, for all of these tests.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("plans")]

MANY = 190_000
FEW = 10_000
FINISHED = 5_000
# A chunk has 10 rows at first; reading one is counted at the index, at the table, and once more where it is updated.
FEW_READ = 100
CROWD = """
    WITH batches AS (
        INSERT INTO alya_batches (id, app, op, kind, context, input_file, requested_by, status, nrows, output_files)
        SELECT GEN_RANDOM_UUID(), 'crowd', CASE kind WHEN 'B' THEN 'op' ELSE 'query' END, kind, '{}', '', '', 'queued',
            CASE kind WHEN 'B' THEN 10 ELSE 1 END, '{}'
        FROM (SELECT CASE WHEN n <= 5000 THEN 'B' ELSE 'Q' END AS kind FROM GENERATE_SERIES(1, 15000) AS n) AS kinds
        RETURNING id, kind
    )
    INSERT INTO alya_batchrows (batch_id, line, input)
    SELECT id, line, '{}' FROM batches, GENERATE_SERIES(0, 10) AS line WHERE (kind = 'Q') = (line = 0)
"""

END_CROWD = """
    UPDATE alya_batches
    SET status = 'success', nsuccess = nrows, nfailed = 0, naborted = 0, requested_at = '2026-01-01T00:00Z',
        done_at = '2026-01-01T00:00Z', marked_done_at = '2026-01-01T00:00Z'
    WHERE app = 'crowd'
"""


@pytest.fixture(scope="module")
def tables(django_db_setup: None, django_db_blocker) -> Iterator[None]:
    """One batch of many finished rows, one of as many queued, and statistics of both."""
    with django_db_blocker.unblock(), isolated_registry():
        big = batches.submit("plans", "op", range(MANY))
        BatchRow.objects.filter(batch=big).update(status=Status.SUCCESS, result={}, done_by="earlier")
        Batch.objects.filter(pk=big).update(
            status=Status.SUCCESS,
            nsuccess=MANY,
            nfailed=0,
            naborted=0,
            done_at="2026-01-01T00:00Z",
            marked_done_at="2026-01-01T00:00Z",
        )
        finished = Batch.objects.get(pk=big)
        Batch.objects.bulk_create(_finished_like(finished) for _ in range(FINISHED))
        batches.submit("plans", "other", range(FEW))
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE alya_batchrows")
            cursor.execute(
                "INSERT INTO alya_batch_progress (batch_id, slot, nsuccess, nfailed) "
                "SELECT id, 1, 0, 0 FROM alya_batches WHERE nrows = 0"
            )
            cursor.execute("VACUUM ANALYZE alya_batches")
            cursor.execute("VACUUM ANALYZE alya_batch_progress")
        yield
        with connection.cursor() as cursor:
            cursor.execute(
                "TRUNCATE alya_batchrows, alya_batches, alya_batch_progress, alya_batch_errors, alya_workers"
            )


@pytest.fixture
def plans_of(tables: None, db: None, registry):
    """Run something and return the statements on rows that the planner would answer by a sequential scan."""

    def plans(act, table="alya_batchrows") -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            act()
        statements = [query["sql"] for query in captured if table in query["sql"]]
        assert statements, "nothing was asked of the table"
        return [statement for statement in statements if is_scan(statement, table)]

    return plans


def is_scan(statement: str, table: str) -> bool:
    """Tell whether a statement would read all of a table."""
    if not is_explained(statement):
        return False
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}")
        plan = cursor.fetchone()[0]
    return any(node["Node Type"] == "Seq Scan" and node.get("Relation Name") == table for node in nodes_of(plan))


def rows_read(statement: str) -> int:
    """Return how many rows of tables a statement reads, whether it wants them or not; nothing of it stays."""
    if not is_explained(statement):
        return 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
        plan = cursor.fetchone()[0]
        transaction.set_rollback(True)
    return sum(
        node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
        for node in nodes_of(plan)
        if "Index Name" in node or "Relation Name" in node
    )


def is_explained(statement: str) -> bool:
    return re.match(r"\W*(WITH|SELECT|UPDATE|DELETE)\b", statement) is not None


def nodes_of(plan: str | list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    nodes = [(json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]]
    while nodes:
        node = nodes.pop()
        yield node
        nodes += node.get("Plans", [])


class PlanTests:
    def test_a_scan_is_seen(self, plans_of) -> None:
        """The test can tell: a condition without an index is a scan."""
        assert plans_of(lambda: list(BatchRow.objects.filter(attempts=77)))

    @pytest.mark.rule("CLM-8", "FIN-5")
    def test_a_chunk_is_claimed_processed_and_recorded_without_a_scan(self, plans_of) -> None:
        """From the first chunk to one of the largest, statement by statement."""
        register_batch_processor("plans", "other", echo)
        with Worker() as worker:
            assert plans_of(lambda: [worker.round() for _ in range(4)]) == []

    def test_a_slow_query_is_answered_without_a_scan(self, plans_of) -> None:
        """Claimed straight from its row, recorded and finished."""
        register_slow_query("plans", "query", echo)
        slow_queries.submit("plans", "query", {})
        assert plans_of(drain) == []

    def test_a_batch_is_finished_without_a_scan(self, plans_of, make_small, make_finisher) -> None:
        """Joining the lines of a small batch reads its rows alone."""
        batch_id = make_small()
        assert plans_of(lambda: make_finisher().finish(batch_id)) == []

    @pytest.mark.rule("ABT-9")
    def test_a_batch_is_aborted_without_a_scan(self, plans_of) -> None:
        """The pending rows of a batch are found by its index."""
        batch_id = batches.submit("plans", "op", range(100))
        assert plans_of(lambda: batches.abort(batch_id)) == []

    def test_rows_are_given_back_without_a_scan(self, plans_of) -> None:
        """By the claim alone."""
        assert plans_of(lambda: Recorder(database(), number=1, name="one").requeue(Batch.objects.last().pk, 5)) == []

    def test_a_look_and_a_sweep_scan_nothing(self, plans_of, make_finisher) -> None:
        """What an idle worker asks every second is answered by partial indexes."""
        sweeper = Sweeper(make_finisher(), Deliverer(database(), InitBlocks()), Scope())
        register_batch_processor("plans", "op", echo)
        register_slow_query("plans", "query", echo)
        assert plans_of(sweeper.sweep) == []
        assert plans_of(sweeper.sweep, "alya_batches") == []

    @pytest.mark.rule("RUN-8")
    @pytest.mark.parametrize("table", ["alya_batches", "alya_batchrows", "alya_batch_progress"])
    def test_an_idle_worker_scans_nothing(self, plans_of, table) -> None:
        """Whether there is work is one statement, answered by indexes however much has been done before."""
        register_batch_processor("plans", "op", echo)
        register_slow_query("plans", "query", echo)
        with Worker() as worker:
            assert plans_of(worker._lookout.sees_work, table) == []

    def test_a_line_and_a_page_are_read_without_a_scan(self, plans_of) -> None:
        """Support's question and the stream of a batch's rows."""
        batch_id = Batch.objects.get(op="op", nrows=MANY).pk
        assert plans_of(lambda: batches.line(batch_id, 100_000)) == []
        assert plans_of(lambda: next(batches.iter_rows(batch_id, after_line=150_000))) == []
        assert plans_of(lambda: list(batches.iter_rows(batch_id, status=Status.FAILED))) == []

    def test_rows_are_appended_without_a_scan(self, plans_of) -> None:
        """The largest line of a batch is one step in its index."""
        batch_id = batches.submit("plans", "op", range(10), wait=True)
        assert plans_of(lambda: batches.append(batch_id, range(10))) == []

    @pytest.mark.rule("PRN-3")
    def test_a_large_batch_is_pruned_without_a_scan(self, plans_of) -> None:
        """Piece by piece, each found by its lines, though the batch has nearly all rows of the table."""
        assert plans_of(lambda: prune(timedelta(0), app="plans", op="op", rest=no_rest)) == []
        assert not Batch.objects.filter(nrows=MANY).exists()

    @pytest.mark.rule("PRN-3")
    def test_small_batches_are_pruned_without_a_scan(self, plans_of) -> None:
        """Many together in one statement, each found by its id."""
        with connection.cursor() as cursor:
            cursor.execute(CROWD)
            cursor.execute(END_CROWD)
            cursor.execute("ANALYZE alya_batches, alya_batchrows")
        assert plans_of(lambda: prune(timedelta(1), app="crowd", rest=no_rest)) == []
        assert not Batch.objects.filter(app="crowd").exists()


class CrowdTests:
    """5 000 runnable batches of 10 rows and 10 000 queued slow queries at once."""

    @pytest.fixture
    def crowd(self, db: None) -> None:
        with connection.cursor() as cursor:
            cursor.execute(CROWD)
            cursor.execute("ANALYZE alya_batches, alya_batchrows")

    @pytest.mark.rule("CLM-11")
    def test_a_claim_reads_no_more_than_it_takes(self, crowd: None, registry, make_claimer) -> None:
        """Of batches by turn and by age, and of slow queries: in every statement a few rows, not the crowd."""
        register_batch_processor("crowd", "op", echo)
        register_slow_query("crowd", "query", echo)
        WorkerRecord.objects.create(pk=1, name="one", host="host", pid=1, version="1")
        claimer = make_claimer(1)
        with CaptureQueriesContext(connection) as captured:
            kinds = Counter(claimer.take().batch.kind for _ in range(20))
        assert kinds == {Kind.BATCH: 10, Kind.SLOW_QUERY: 10}
        read = {query["sql"]: rows_read(query["sql"]) for query in captured}
        assert {statement: rows for statement, rows in read.items() if rows > FEW_READ} == {}


def no_rest(seconds: float) -> None:
    """Prune without resting."""


def _finished_like(batch: Batch) -> Batch:
    return Batch(
        app=batch.app,
        op=batch.op,
        kind=batch.kind,
        status=batch.status,
        nsuccess=0,
        nfailed=0,
        naborted=0,
        done_at=batch.done_at,
        marked_done_at=batch.marked_done_at,
    )


@pytest.fixture
def make_small(tables: None):
    """Make a batch of a hundred rows that have ended, each with an output line."""

    def make():
        register_batch_processor("plans", "small", echo)
        batch_id = batches.submit("plans", "small", range(100))
        Batch.objects.filter(pk=batch_id).start()
        BatchRow.objects.filter(batch=batch_id).update(claim=1, status=Status.IN_PROGRESS, done_by="one")
        endings = [
            RowEnding(row_id, Status.SUCCESS, "{}", None, '{"a.csv":"x"}')
            for row_id in BatchRow.objects.filter(batch=batch_id).values_list("pk", flat=True)
        ]
        Recorder(database(), number=1, name="one").record(batch_id, 1, endings)
        return batch_id

    return make

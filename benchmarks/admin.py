"""
How long the pages of a running batch of 10 000 000 rows take.

Three fifths of its rows have ended, every fiftieth of these failed, with 76 errcodes; 25 workers have a full chunk of
500 rows each, a thousand rows were requeued, the rest are queued. Beside it are 24 running batches, which fill the
first page of the list, one of them its child, and 100 000 that ended before. The tables are vacuumed and analysed.

Django's test client asks for each page as a superuser, 50 times after a few that do not count: so the whole way
through middleware, session, view and template is measured, in one process, with a local-memory cache. That cache is
emptied before each request, so no page profits from the one before it: every request asks the database for its
figures, which is once a second in a project. ``p95_ms`` has the time that 95 of 100 requests of a page keep,
``worst_p95_ms`` is the largest of them. The endpoint that moves the list is asked for its 25 batches both ways:
``progress_endpoint_ms`` is with the cache as all who look find it, where one request in a second asks the database for
all of them; ``progress_endpoint_uncached_ms`` is that request. ``max_queries`` is the most statements of one request.

Not shown: a web server, workers that write meanwhile, tables that are not in memory, several who look.

Budgets: 100 ms for each page, 10 ms for the endpoint from the cache, 12 statements.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from django.core.cache import cache
from django.db import connection

from benchmarks import harness

if TYPE_CHECKING:
    from django.test import Client

BATCHES = "/admin/alya_django/batch/"
ROWS = "/admin/alya_django/batchrow/"
WORKERS_LIST = "/admin/alya_django/worker/"
WARM_REQUESTS = 5
FAILED_EVERY = 50
FIRST_FAILED = 7
WORKERS = 25
CHUNK_ROWS = 500
REQUEUED_MAX = 1_000
ERRCODE = "code_1"
MAKE_BATCHES = """
    INSERT INTO alya_batches (id, app, op, kind, context, input_file, requested_by, status, nrows, nsuccess, nfailed,
        naborted, output_files, requested_at, started_at, done_at, marked_done_at)
    SELECT CASE n WHEN 0 THEN %(batch)s::uuid ELSE GEN_RANDOM_UUID() END, 'benchmarks', 'noop', 'B', '{}',
        'payments-' || n || '.csv', 'asha', CASE WHEN n < 25 THEN 'inprog' ELSE 'success' END,
        CASE n WHEN 0 THEN %(rows)s ELSE 1000 END, CASE WHEN n >= 25 THEN 1000 END, CASE WHEN n >= 25 THEN 0 END,
        CASE WHEN n >= 25 THEN 0 END, '{}', at, at, CASE WHEN n >= 25 THEN at END, CASE WHEN n >= 25 THEN at END
    FROM GENERATE_SERIES(0, 100024) AS n, LATERAL (SELECT NOW() - (60 + n) * INTERVAL '1 minute' AS at) AS moments
"""
MAKE_ROWS = """
    INSERT INTO alya_batchrows (batch_id, line, input, status, result, messages, output_lines, attempts, claimed_at,
        done_at, retry_at, done_by, claim)
    SELECT %(batch)s, line, JSONB_BUILD_OBJECT('account', 'DE' || line, 'amount', '12.50', 'reference', 'invoice'),
        status, CASE status WHEN 'success' THEN '{}'::jsonb END,
        CASE status WHEN 'failed' THEN JSONB_BUILD_ARRAY(JSONB_BUILD_OBJECT('errcode',
            CASE WHEN line / %(failed_every)s %% 2 = 0 THEN 'insufficient_funds'
                ELSE 'code_' || line / %(failed_every)s %% 150 END,
            'field', 'amount', 'vals', JSONB_BUILD_ARRAY('12.50'), 'msgid', 0)) END,
        CASE status WHEN 'success' THEN JSONB_BUILD_OBJECT('booked.csv', 'DE' || line || ',12.50') END,
        CASE WHEN line <= %(requeued)s THEN 1 ELSE 0 END,
        CASE WHEN status <> 'queued' THEN NOW() END,
        CASE WHEN status IN ('success', 'failed') THEN NOW() END,
        CASE WHEN line > %(claimed)s AND line <= %(requeued)s THEN NOW() + INTERVAL '1 hour' END,
        CASE WHEN status <> 'queued' THEN 'worker-' || 1 + line %% %(workers)s END,
        CASE status WHEN 'inprog' THEN (1 + line %% %(workers)s) * 4294967296 + 1 END
    FROM GENERATE_SERIES(1, %(rows)s) AS line, LATERAL (
        SELECT CASE
            WHEN line > %(claimed)s THEN 'queued' WHEN line > %(ended)s THEN 'inprog'
            WHEN line %% %(failed_every)s = %(first_failed)s THEN 'failed' ELSE 'success' END AS status
    ) AS states
"""
MAKE_CHILD = """
    WITH child AS (
        UPDATE alya_batches SET parent_id = %(batch)s, root_id = %(batch)s, nrows = 1
        WHERE input_file = 'payments-1.csv' RETURNING id
    )
    INSERT INTO alya_batchrows (batch_id, line, input) SELECT id, %(failed)s, '{}' FROM child
"""
MAKE_PROGRESS = """
    INSERT INTO alya_batch_progress (batch_id, slot, nsuccess, nfailed)
    SELECT batch_id, line %% 16, COUNT(*) FILTER (WHERE status = 'success'), COUNT(*) FILTER (WHERE status = 'failed')
    FROM alya_batchrows WHERE batch_id = %(batch)s GROUP BY 1, 2
    UNION ALL
    SELECT id, slot, 20, 0 FROM alya_batches, GENERATE_SERIES(0, 15) AS slot
    WHERE status = 'inprog' AND id <> %(batch)s
"""
MAKE_ERRORS = """
    INSERT INTO alya_batch_errors (batch_id, counts)
    SELECT %(batch)s, JSONB_OBJECT_AGG(errcode, amount) FROM (
        SELECT messages -> 0 ->> 'errcode' AS errcode, COUNT(*) AS amount FROM alya_batchrows
        WHERE batch_id = %(batch)s AND status = 'failed' GROUP BY 1
    ) AS counted
"""
MAKE_WORKERS = """
    INSERT INTO alya_workers (id, name, host, pid, version, ops)
    SELECT number, 'worker-' || number, 'benchmarks', number, '', '[["B", "benchmarks", "noop"]]'
    FROM GENERATE_SERIES(1, %(workers)s) AS number
"""


@dataclass(frozen=True)
class Lines:
    """Where the lines of the batch are in its order: first those that have ended, last those that wait."""

    rows: int

    @property
    def ended(self) -> int:
        return self.rows * 3 // 5

    @property
    def claimed(self) -> int:
        return self.ended + min(WORKERS * CHUNK_ROWS, self.rows // 10)

    @property
    def requeued(self) -> int:
        return self.claimed + min(REQUEUED_MAX, self.rows // 10)

    @property
    def failed(self) -> int:
        """A failed line in the midst of those that have ended."""
        return self.ended // 2 // FAILED_EVERY * FAILED_EVERY + FIRST_FAILED


@dataclass(frozen=True)
class Page:
    """Where a page is, and what it contains if it is the right one."""

    address: str
    contains: str


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask for the pages of a large batch.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--requests", type=int, default=50)
    options = parser.parse_args()
    lines = Lines(options.rows)
    with harness.alya("benchmarks.admin_settings"):
        batch_id = fill(lines)
        print("filled", flush=True)
        client = superuser()
        measured = {name: measure(client, page, options.requests) for name, page in pages(batch_id, lines).items()}
        endpoint = endpoint_of_list()
        uncached = measure(client, endpoint, options.requests)
        cached = measure(client, endpoint, options.requests, empties_cache=False)
    p95_by_page = {name: p95_ms for name, (p95_ms, _queries) in measured.items()}
    harness.report(
        f"pages of a batch of {options.rows:,} rows",
        {
            "rows": options.rows,
            "p95_ms": p95_by_page,
            "queries": {name: queries for name, (_p95_ms, queries) in measured.items()},
            "worst_p95_ms": max(p95_by_page.values()),
            "max_queries": max(queries for _p95_ms, queries in (*measured.values(), uncached)),
            "progress_endpoint_ms": cached[0],
            "progress_endpoint_uncached_ms": uncached[0],
        },
    )


def fill(lines: Lines) -> UUID:
    """Make the batch and what is beside it, and return its id."""
    batch_id = uuid4()
    values = {
        "batch": batch_id,
        "rows": lines.rows,
        "ended": lines.ended,
        "claimed": lines.claimed,
        "requeued": lines.requeued,
        "failed": lines.failed,
        "failed_every": FAILED_EVERY,
        "first_failed": FIRST_FAILED,
        "workers": WORKERS,
    }
    with connection.cursor() as cursor:
        for statement in (MAKE_BATCHES, MAKE_ROWS, MAKE_CHILD, MAKE_PROGRESS, MAKE_ERRORS, MAKE_WORKERS):
            cursor.execute(statement, values)
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")
    return batch_id


def superuser() -> Client:
    """Return a client for somebody who may see everything."""
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    return client


def pages(batch_id: UUID, lines: Lines) -> dict[str, Page]:
    """Return the pages to ask for, by their names."""
    batch = f"{BATCHES}{batch_id}/"
    rows = f"{ROWS}?batch={batch_id}"

    def link(line: int) -> str:
        return f"{batch}line/{line}/"

    return {
        "batch_list": Page(BATCHES, f"{batch}change/"),
        "batch": Page(f"{batch}change/", ERRCODE),
        "rows": Page(rows, link(1)),
        "rows_deep": Page(f"{rows}&after={lines.failed - 1}", link(lines.failed)),
        "rows_failed": Page(f"{rows}&status=failed&after={lines.failed - 1}", link(lines.failed)),
        "rows_success": Page(f"{rows}&status=success&after={lines.failed}", link(lines.failed + 1)),
        "rows_queued": Page(f"{rows}&status=queued", link(lines.requeued + 1)),
        "rows_in_progress": Page(f"{rows}&status=inprog", link(lines.ended + 1)),
        "rows_errcode": Page(f"{rows}&errcode={ERRCODE}", link(FAILED_EVERY + FIRST_FAILED)),
        "line": Page(link(lines.failed), link(lines.failed + FAILED_EVERY)),
        "workers": Page(WORKERS_LIST, f"worker-{WORKERS}"),
    }


def endpoint_of_list() -> Page:
    """Return the endpoint as the first page of the list asks for it."""
    from alya_django.models import Batch

    running = [str(pk) for pk in Batch.objects.filter(status="inprog").values_list("pk", flat=True)]
    return Page(f"{BATCHES}progress/?ids={','.join(running)}", running[-1])


def measure(client: Client, page: Page, requests: int, *, empties_cache: bool = True) -> tuple[float, int]:
    """Return how many milliseconds 95 of 100 requests keep, and the most statements that one has."""
    asked = []
    for _ in range(WARM_REQUESTS + requests):
        if empties_cache:
            cache.clear()
        asked.append(ask(client, page))
    del asked[:WARM_REQUESTS]
    in_order = sorted(seconds for seconds, _queries in asked)
    return in_order[math.ceil(requests * 0.95) - 1] * 1_000, max(queries for _seconds, queries in asked)


def ask(client: Client, page: Page) -> tuple[float, int]:
    """Return how many seconds a page took, and how many statements; raise an error if it is not the right one."""
    queries = 0

    def count(execute: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal queries
        queries += 1
        return execute(*arguments)

    with connection.execute_wrapper(count):
        started = time.perf_counter()
        response = client.get(page.address)
        seconds = time.perf_counter() - started
    if response.status_code != 200 or page.contains not in response.content.decode():
        raise RuntimeError(f"{page.address} answers {response.status_code}, or without {page.contains}.")
    return seconds, queries


if __name__ == "__main__":
    main()

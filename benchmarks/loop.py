"""One process of ``throughput``: the loop that the worker is measured against."""

import os
import sys
from itertools import count

import psycopg

from benchmarks import harness

CHUNK_ROWS = 500
CLAIMS_PER_WORKER = 2**32

TAKE = """
    SELECT id, line, input FROM alya_batchrows
    WHERE batch_id = %s AND status = 'queued' AND retry_at IS NULL
    ORDER BY line LIMIT %s FOR UPDATE SKIP LOCKED
"""
CLAIM = """
    UPDATE alya_batchrows
    SET status = 'inprog', claim = %s, attempts = attempts + 1, claimed_at = STATEMENT_TIMESTAMP(), done_by = %s
    WHERE id = ANY(%s)
"""
RECORD = """
    UPDATE alya_batchrows AS r
    SET status = v.status, result = v.result, claim = NULL, done_at = STATEMENT_TIMESTAMP()
    FROM UNNEST(%s::bigint[], %s::text[], %s::jsonb[]) AS v (id, status, result)
    WHERE r.id = v.id AND r.claim = %s
"""
COUNT = """
    INSERT INTO alya_batch_progress AS p (batch_id, slot, nsuccess, nfailed) VALUES (%s, %s, %s, 0)
    ON CONFLICT (batch_id, slot) DO UPDATE SET nsuccess = p.nsuccess + EXCLUDED.nsuccess
"""


def noop(line: int, value: object) -> None:
    """Succeed."""


def work(connection: psycopg.Connection, batch_id: str) -> None:
    """Work off the queued rows of a batch."""
    number = os.getpid()
    for claim in count(number * CLAIMS_PER_WORKER + 1):
        rows = connection.execute(TAKE, [batch_id, CHUNK_ROWS]).fetchall()
        if not rows:
            return
        ids = [row_id for row_id, _, _ in rows]
        connection.execute(CLAIM, [claim, f"loop-{number}", ids])
        connection.commit()
        for _, line, value in rows:
            noop(line, value)
        recorded = connection.execute(RECORD, [ids, ["success"] * len(ids), ["{}"] * len(ids), claim])
        connection.execute(COUNT, [batch_id, number % 16, recorded.rowcount])
        connection.commit()


if __name__ == "__main__":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        harness.wait_for_start()
        work(connection, sys.argv[1])

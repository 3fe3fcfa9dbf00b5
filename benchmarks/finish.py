"""
How fast a worker finishes a batch into an output file beside a loop that only copies, and how much memory it takes.

The rows have ended already: they are made by one INSERT, as if workers had recorded them, each with one line of 60
bytes for the same file. What is measured is one sweep of a worker: it sees that the batch is complete, joins the lines
in the order of rows, saves the file in a local directory, ends the batch and calls ``mark_done``. The loop reads the
same lines with psycopg through a cursor of the server, and writes them to a file in the same directory: no lease, no
final state, one file whose name it knows. Both files must be alike. The memory is the largest resident size of this
process during the first finish, above what it was just before.

Not shown: many files, several lines a row, a storage that is further away than a directory.

Budget: at least 100 000 rows a second, and less than 80 MB.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import tempfile
import time
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from django.db import connection

from benchmarks import harness

FILE = "payments.csv"
FETCH_ROWS = 2_000
SLOTS = 16

MAKE_ROWS = """
    INSERT INTO alya_batchrows (batch_id, line, input, status, result, output_lines, attempts, done_by, done_at)
    SELECT %s, n, '{}', 'success', '{}',
        JSONB_BUILD_OBJECT(%s, 'DE' || LPAD(n::text, 20, '0') || ',12.50,invoice ' || LPAD(n::text, 23, '0')),
        1, 'made', NOW()
    FROM GENERATE_SERIES(1, %s) AS n
"""
COUNT_ROWS = """
    INSERT INTO alya_batch_progress (batch_id, slot, nsuccess, nfailed)
    SELECT batch_id, line %% %s, COUNT(*), 0 FROM alya_batchrows GROUP BY 1, 2
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Finish a batch, and copy its lines by hand.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    growth: list[float] = []

    with harness.alya(), tempfile.TemporaryDirectory(dir=os.environ["STORAGE_DIR"]) as folder:
        copied = Path(folder, FILE)

        def finish() -> float:
            batch_id = make_complete(options.rows)
            with harness.memory_growth(growth):
                return rate_of_finish(batch_id, options.rows)

        def copy() -> float:
            return rate_of_copy(make_complete(options.rows), options.rows, copied)

        median = harness.compare(finish, copy, rounds=options.rounds)
        check_alike(make_complete(options.rows), options.rows, copied)
    harness.report(
        f"finish of {options.rows:,} rows / copy by hand",
        {
            "rows": options.rows,
            "rows_per_s": median.ours,
            "copy_rows_per_s": median.theirs,
            "ratio": median.ratio,
            "rss_growth_mb": growth[0],
            "busy_percent": median.busy,
        },
    )


def make_complete(rows: int) -> UUID:
    """Return the only batch, whose rows have ended and which nobody has finished."""
    from alya_django.models import Batch

    harness.empty_tables()
    batch = Batch.objects.create(
        id=uuid4(), kind="B", app="benchmarks", op="noop", status="inprog", nrows=rows, drained=True
    )
    with connection.cursor() as cursor:
        cursor.execute(MAKE_ROWS, [batch.id, FILE, rows])
        cursor.execute(COUNT_ROWS, [SLOTS])
        cursor.execute("ANALYZE")
        cursor.execute("CHECKPOINT")
    return batch.id


def rate_of_finish(batch_id: UUID, rows: int) -> float:
    """Return how many rows a second a sweep finishes."""
    from alya_django import batches
    from alya_django.engine.worker import Worker

    with Worker() as worker:
        started = time.perf_counter()
        worker.run_once()
        seconds = time.perf_counter() - started
    if batches.status(batch_id).try_later:
        raise RuntimeError("The worker has not finished the batch.")
    return rows / seconds


def rate_of_copy(batch_id: UUID, rows: int, path: Path) -> float:
    """Return how many rows a second the loop copies."""
    started = time.perf_counter()
    with (
        psycopg.connect(os.environ["DATABASE_URL"]) as by_hand,
        by_hand.cursor("lines") as cursor,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        cursor.itersize = FETCH_ROWS
        cursor.execute(
            "SELECT output_lines FROM alya_batchrows "
            "WHERE batch_id = %s AND status IN ('success', 'failed') AND output_lines IS NOT NULL ORDER BY line",
            [batch_id],
        )
        for (output_lines,) in cursor:
            file.write(f"{output_lines[FILE]}\n")
    return rows / (time.perf_counter() - started)


def check_alike(batch_id: UUID, rows: int, copied: Path) -> None:
    """Raise an error unless a finish makes the file that the loop has made."""
    from alya_django import batches

    rate_of_finish(batch_id, rows)
    with batches.open_output(batch_id, FILE) as file:
        if not filecmp.cmp(file.name, copied, shallow=False):
            raise RuntimeError("The two files differ.")


if __name__ == "__main__":
    main()

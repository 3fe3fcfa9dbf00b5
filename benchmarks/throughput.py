"""
How many rows a second the worker takes through claim, no-op and record, beside a loop written by hand.

The loop is what a project would write with psycopg for this one table: claim 500 rows in the order of lines with SKIP
LOCKED, commit, call the processor, end them with one guarded UPDATE, count, commit. It serves one batch and one op,
chooses nothing, checks nothing, beats no heart, and finishes nothing. Both sides work on Alya's tables and indexes,
with fsync on, in as many processes; these are connected before they start together. Measured by the database's clock
from the first claim to the last recording, on a table that was just filled and analysed.

``--atomic`` has the worker process rows in the transactions that record them, beside the plain op (``vs_plain``). More
rows than 100 000, or a ``--history`` of rows that have ended before, are measured beside 100 000 rows in empty tables
(``vs_100k``).

Not shown: processors that do something, input larger than 100 bytes, results, many small batches, a server on another
host.

Budgets: at least 0.75 of the loop; atomic at least 0.5 of plain; many rows, or a history, at least 0.85 of few.
"""

from __future__ import annotations

import argparse
from statistics import median

from django.db import connection

from benchmarks import harness

FEW_ROWS = 100_000
FILL = """
    WITH batch AS (
        INSERT INTO alya_batches (id, app, op, kind, context, input_file, requested_by, status,
            nrows, nsuccess, nfailed, naborted, output_files, done_at, marked_done_at)
        VALUES (GEN_RANDOM_UUID(), 'benchmarks', 'noop', 'B', '{}', '', '', 'success', %(rows)s, %(rows)s, 0, 0, '{}',
            NOW(), NOW())
        RETURNING id
    )
    INSERT INTO alya_batchrows (batch_id, line, input, status, result, attempts, claimed_at, done_at, done_by)
    SELECT batch.id, line, '{"account": "DE1", "amount": "12.50"}', 'success', '{}', 1, NOW(), NOW(), 'history'
    FROM batch, GENERATE_SERIES(1, %(rows)s) AS line
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Work off a batch of no-op rows, and the same rows by hand.")
    parser.add_argument("--rows", type=int, default=FEW_ROWS)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--atomic", action="store_true", help="Measure an atomic op beside a plain one.")
    parser.add_argument("--history", type=int, default=0, help="So many rows have ended before.")
    options = parser.parse_args()

    with harness.alya():
        if options.atomic:
            title, figures = beside_plain(options)
        elif options.history or options.rows > FEW_ROWS:
            title, figures = beside_few(options)
        else:
            title, figures = beside_loop(options)
    harness.report(
        f"{title}, {options.processes} process(es)", {"rows": options.rows, "processes": options.processes, **figures}
    )


def beside_loop(options: argparse.Namespace) -> tuple[str, harness.Figures]:
    """Measure the worker beside the loop."""
    round_ = harness.compare(
        lambda: rate_of("worker", options.rows, options.processes),
        lambda: rate_of("loop", options.rows, options.processes),
        rounds=options.rounds,
    )
    figures = {"rows_per_s": round_.ours, "loop_rows_per_s": round_.theirs, "ratio": round_.ratio}
    return "worker / loop", {**figures, "busy_percent": round_.busy}


def beside_plain(options: argparse.Namespace) -> tuple[str, harness.Figures]:
    """Measure the atomic op beside the plain one."""
    round_ = harness.compare(
        lambda: rate_of("worker", options.rows, options.processes, op="noop-atomic"),
        lambda: rate_of("worker", options.rows, options.processes),
        rounds=options.rounds,
    )
    figures = {"rows_per_s": round_.ours, "plain_rows_per_s": round_.theirs, "vs_plain": round_.ratio}
    return "atomic / plain", {**figures, "busy_percent": round_.busy}


def beside_few(options: argparse.Namespace) -> tuple[str, harness.Figures]:
    """Measure many rows, or rows beside a history, beside few rows in empty tables."""
    few = median(rate_of("worker", FEW_ROWS, options.processes) for _ in range(options.rounds))
    harness.empty_tables()
    if options.history:
        with connection.cursor() as cursor:
            cursor.execute(FILL, {"rows": options.history})
    many = median(
        rate_of("worker", options.rows, options.processes, afresh=not options.history) for _ in range(options.rounds)
    )
    figures = {"history": options.history, "rows_per_s": many, "few_rows_per_s": few, "vs_100k": many / few}
    return "many / few", figures


def rate_of(side: str, rows: int, processes: int, *, op: str = "noop", afresh: bool = True) -> float:
    """Return how many rows a second so many processes of one side work off, in empty tables if ``afresh``."""
    from alya_django import batches

    if afresh:
        harness.empty_tables()
    batch_id = batches.submit("benchmarks", op, harness.payments(rows))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        cursor.execute("CHECKPOINT")
    harness.run_together(f"benchmarks.{side}", str(batch_id), processes=processes)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*) FILTER (WHERE status = 'success' AND result = '{}' AND claim IS NULL), "
            "(SELECT SUM(nsuccess) FROM alya_batch_progress WHERE batch_id = %(id)s), "
            "EXTRACT(EPOCH FROM MAX(done_at) - MIN(claimed_at)) FROM alya_batchrows WHERE batch_id = %(id)s",
            {"id": batch_id},
        )
        ended, counted, seconds = cursor.fetchone()
    if not ended == counted == rows:
        raise RuntimeError(f"The {side} ended {ended} and counted {counted} of {rows} rows.")
    return rows / float(seconds)


if __name__ == "__main__":
    main()

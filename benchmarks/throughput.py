"""
How many rows a second the worker takes through claim, no-op and record, beside a loop written by hand.

The loop is what a project would write with psycopg for this one table: claim 500 rows in the order of lines with SKIP
LOCKED, commit, call the processor, end them with one guarded UPDATE, count, commit. It serves one batch and one op,
chooses nothing, checks nothing, beats no heart, and finishes nothing. Both sides work on Alya's tables and indexes,
with fsync on, in as many processes; these are connected before they start together. Measured by the database's clock
from the first claim to the last recording, on a table that was just filled and analysed.

Not shown: processors that do something, input larger than 100 bytes, results, many small batches, a table with a past,
a server on another host.

Budget: at least 0.75 of the loop.
"""

from __future__ import annotations

import argparse

from django.db import connection

from benchmarks import harness


def main() -> None:
    parser = argparse.ArgumentParser(description="Work off a batch of no-op rows, and the same rows by hand.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    with harness.alya():
        median = harness.compare(
            lambda: rate_of("worker", options.rows, options.processes),
            lambda: rate_of("loop", options.rows, options.processes),
            rounds=options.rounds,
        )
    harness.report(
        f"worker / loop, {options.processes} process(es)",
        {
            "rows": options.rows,
            "processes": options.processes,
            "rows_per_s": median.ours,
            "loop_rows_per_s": median.theirs,
            "ratio": median.ratio,
            "busy_percent": median.busy,
        },
    )


def rate_of(side: str, rows: int, processes: int) -> float:
    """Return how many rows a second so many processes of one side work off."""
    from alya_django import batches

    harness.empty_tables()
    batch_id = batches.submit("benchmarks", "noop", harness.payments(rows))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        cursor.execute("CHECKPOINT")
    harness.run_together(f"benchmarks.{side}", str(batch_id), processes=processes)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*) FILTER (WHERE status = 'success' AND result = '{}' AND claim IS NULL), "
            "(SELECT SUM(nsuccess) FROM alya_batch_progress), "
            "EXTRACT(EPOCH FROM MAX(done_at) - MIN(claimed_at)) FROM alya_batchrows"
        )
        ended, counted, seconds = cursor.fetchone()
    if not ended == counted == rows:
        raise RuntimeError(f"The {side} ended {ended} and counted {counted} of {rows} rows.")
    return rows / float(seconds)


if __name__ == "__main__":
    main()

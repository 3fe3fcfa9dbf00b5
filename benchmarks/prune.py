"""
How much a prune of 1 000 000 rows takes from the workers, and how fast it is.

Batches of 10 000 rows each ended long ago; beside them is one that a worker command works off with a no-op, as in
``throughput``. In each round ``alya_prune`` deletes a share of them, as a command of its own with the rests it takes
by itself. The rate of the worker's rows is measured from its start to its end, and for some seconds before and after
that: the round's ratio is the rate beside it over the mean of the two without. ``vs_without`` is the median of the
ratios; the other figures are those of that round. What the server does later to reclaim the space is in what is
measured without.

Not shown: objects in a storage, batches of few rows, a server on another host.

Budget: at least 0.8.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

from django.db import connection

from benchmarks import harness

BATCH_ROWS = 10_000
WARM_SECONDS = 3.0
MAKE_OLD = """
    WITH batches AS (
        INSERT INTO alya_batches (id, app, op, kind, context, input_file, requested_by, status, nrows, nsuccess,
            nfailed, naborted, output_files, requested_at, started_at, done_at, marked_done_at)
        SELECT GEN_RANDOM_UUID(), 'benchmarks', 'noop', 'B', '{}', '', '', 'success', %(each)s, %(each)s, 0, 0, '{}',
            NOW() - age, NOW() - age, NOW() - age, NOW()
        FROM GENERATE_SERIES(1, %(batches)s) AS n,
            LATERAL (SELECT (100 + 10 * (n %% %(rounds)s)) * INTERVAL '1 day' AS age) AS ages
        RETURNING id
    ), progress AS (
        INSERT INTO alya_batch_progress (batch_id, slot, nsuccess, nfailed) SELECT id, 1, %(each)s, 0 FROM batches
    )
    INSERT INTO alya_batchrows (batch_id, line, input, status, result, attempts, claimed_at, done_at, done_by)
    SELECT id, line, '{"account": "DE1", "amount": "12.50"}', 'success', '{}', 1, NOW(), NOW(), 'history'
    FROM batches, GENERATE_SERIES(1, %(each)s) AS line
"""
MAKE_LOAD = """
    WITH batch AS (
        INSERT INTO alya_batches (id, app, op, kind, context, input_file, requested_by, status, nrows, output_files)
        VALUES (GEN_RANDOM_UUID(), 'benchmarks', 'noop', 'B', '{}', '', '', 'queued', %(rows)s, '{}')
        RETURNING id
    )
    INSERT INTO alya_batchrows (batch_id, line, input)
    SELECT id, line, '{"account": "DE1", "amount": "12.50"}' FROM batch, GENERATE_SERIES(1, %(rows)s) AS line
"""
COUNT_ENDED = """
    SELECT EXTRACT(EPOCH FROM CLOCK_TIMESTAMP())::float8, SUM(p.nsuccess + p.nfailed), MAX(b.nrows)
    FROM alya_batches AS b JOIN alya_batch_progress AS p ON p.batch_id = b.id
    WHERE b.requested_at > NOW() - INTERVAL '1 day'
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Prune old rows while a worker is busy.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--load", type=int, default=3_000_000, help="So many rows are there to be worked off.")
    parser.add_argument("--seconds", type=float, default=5.0, help="How long the worker is measured without.")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    with harness.alya():
        fill(options.rows, options.load, options.rounds)
        with harness.worker():
            wait_until_busy()
            rounds, before = [], rate_while(lambda: time.sleep(options.seconds))
            for number in reversed(range(options.rounds)):
                pruning: list[float] = []
                beside = rate_while(lambda pruning=pruning, age=95 + 10 * number: pruning.append(rate_of_prune(age)))
                after = rate_while(lambda: time.sleep(options.seconds))
                rounds.append((beside / (before + after) * 2, beside, (before + after) / 2, pruning[0]))
                print(f"round {len(rounds)}: {rounds[-1][0]:.2f}", flush=True)
                before = after
        check_empty(options.load)
    ratio, beside, without, pruned = sorted(rounds)[(len(rounds) - 1) // 2]
    harness.report(
        f"prune of {options.rows:,} rows beside a worker",
        {
            "rows": options.rows,
            "pruned_rows_per_s": pruned,
            "rows_per_s_beside": beside,
            "rows_per_s_without": without,
            "vs_without": ratio,
        },
    )


def fill(rows: int, load: int, rounds: int) -> None:
    """Make what is old, and what is to be worked off."""
    with connection.cursor() as cursor:
        each = min(rows // rounds, BATCH_ROWS)
        cursor.execute(MAKE_OLD, {"each": each, "batches": rows // each, "rounds": rounds})
        cursor.execute(MAKE_LOAD, {"rows": load})
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def wait_until_busy() -> None:
    """Wait until the worker has found its pace."""
    while not ended()[1]:
        time.sleep(harness.START_ASKED_EVERY_SECONDS)
    time.sleep(WARM_SECONDS)


def rate_while(act: Callable[[], object]) -> float:
    """Return how many rows a second end while something is done."""
    began, first = ended()
    act()
    over, last = ended()
    return (last - first) / (over - began)


def ended() -> tuple[float, int]:
    """Return the time of the database and how many rows of the load have ended; raise an error if it is no load."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT_ENDED)
        moment, rows, wanted = cursor.fetchone()
    if rows is not None and rows == wanted:
        raise RuntimeError("The worker has nothing left to do; --load more.")
    return moment, rows or 0


def rate_of_prune(days: int) -> float:
    """Return how many rows a second the command deletes."""
    command = [sys.executable, "-m", "django", "alya_prune", "--older-than", f"{days}d", "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows: int = json.loads(done.stdout)["rows"]
    return rows / (time.perf_counter() - started)


def check_empty(load: int) -> None:
    """Raise an error unless what is left is the load."""
    from alya_django.models import BatchRow

    if (left := BatchRow.objects.count()) != load:
        raise RuntimeError(f"{left} rows are left, not {load}.")


if __name__ == "__main__":
    main()

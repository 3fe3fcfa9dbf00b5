"""
How fast ``batches.submit`` stores rows beside a raw COPY, and how much memory it takes.

Both sides read the same generator of small objects, encode each as JSON, and write to the same table with all its
indexes, in one transaction, on a server with fsync on. The raw side is one COPY of the same three columns: it checks
nothing, looks for no duplicate, and tells nobody. The memory is the largest resident size of this process during its
first submit, above what it was just before.

COPY encodes while the server stores, on two cores: on a machine that is busy with something else it loses that, and
the ratio is too good. Believe it only where ``busy_percent``, taken just before, is near 0.

Not shown: a source slower than a generator, larger rows, a server on another host, submits side by side.

Budget: at least 0.6 of COPY, and less than 60 MB for 1 000 000 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import islice
from uuid import uuid4

import psycopg

from benchmarks import harness

COPY_BLOCK_ROWS = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description="Submit a batch, and copy the same rows by hand.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    growth: list[float] = []

    def submit() -> float:
        harness.empty_tables()
        with harness.memory_growth(growth):
            return rate_of_submit(options.rows)

    def copy() -> float:
        harness.empty_tables()
        return rate_of_copy(options.rows)

    with harness.alya():
        median = harness.compare(submit, copy, rounds=options.rounds)
    harness.report(
        f"submit of {options.rows:,} rows / COPY",
        {
            "rows": options.rows,
            "rows_per_s": median.ours,
            "copy_rows_per_s": median.theirs,
            "ratio": median.ratio,
            "rss_growth_mb": growth[0],
            "busy_percent": median.busy,
        },
    )


def rate_of_submit(rows: int) -> float:
    """Return how many rows a second ``batches.submit`` stores."""
    from alya_django import batches

    started = time.perf_counter()
    batches.submit("benchmarks", "noop", harness.payments(rows))
    return rows / (time.perf_counter() - started)


def rate_of_copy(rows: int) -> float:
    """Return how many rows a second one COPY stores."""
    batch_id = uuid4()
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    numbered = enumerate(harness.payments(rows), start=1)
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection, connection.cursor() as cursor:
        started = time.perf_counter()
        with cursor.copy("COPY alya_batchrows (batch_id, line, input) FROM STDIN") as copy:
            while block := "".join(
                f"{batch_id}\t{line}\t{encode(payment)}\n" for line, payment in islice(numbered, COPY_BLOCK_ROWS)
            ):
                copy.write(block.replace("\\", "\\\\"))
        connection.commit()
        return rows / (time.perf_counter() - started)


if __name__ == "__main__":
    main()

"""
What a large batch costs the others: slow queries and small batches behind it, with one worker that is busy with it.

A worker command with its defaults works off one batch of no-op rows. First slow queries are submitted one by one,
each after the answer to the one before, and timed from the submit to the answer, which is looked for every 5 ms. Then
ten batches of 100 rows are submitted, each after the end of the one before; of each, how many rows of the large batch
ended between its submit and its end, as a share of all rows. The largest share counts.

Not shown: processors that take long, of which a worker in the middle of a row cannot be had; several large batches; a
network.

Budget: 1 s for 99 of 100 slow queries, and a share of 0.02, behind a batch of 1 000 000 rows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from uuid import UUID

from benchmarks import harness

ASKED_EVERY_SECONDS = 0.005
DEADLINE_SECONDS = 120
SMALL_BATCHES = 10
SMALL_ROWS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description="Submit slow queries and small batches behind a large one.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    options = parser.parse_args()
    with harness.alya():
        from alya_django import batches

        large = batches.submit("benchmarks", "noop", harness.payments(options.rows))
        with harness.worker():
            wait_until(lambda: ended(large) > 0)
            seconds = sorted(answer_seconds() for _ in range(options.queries))
            shares = [ended_behind_a_small_batch(large) / options.rows for _ in range(SMALL_BATCHES)]
            left = options.rows - ended(large)
    if not left:
        print("The large batch ended too early for the figures to mean anything: give it more --rows.", flush=True)
    harness.report(
        f"behind a batch of {options.rows:,} rows",
        {
            "rows": options.rows,
            "rows_left": left,
            "queries": options.queries,
            "slow_query_p50_s": seconds[len(seconds) // 2],
            "slow_query_p99_s": seconds[int(len(seconds) * 0.99)],
            "small_batch_share": max(shares),
        },
    )


def answer_seconds() -> float:
    """Return how long a slow query took from its submit to its answer."""
    from alya_django import slow_queries

    submitted = time.perf_counter()
    query_id = slow_queries.submit("benchmarks", "clock", {})
    wait_until(lambda: is_final(query_id))
    return time.perf_counter() - submitted


def ended_behind_a_small_batch(large: UUID) -> int:
    """Return how many rows of the large batch ended between the submit and the end of a small one."""
    from alya_django import batches

    before = ended(large)
    small = batches.submit("benchmarks", "noop", harness.payments(SMALL_ROWS))
    wait_until(lambda: is_final(small))
    return ended(large) - before


def is_final(batch_id: UUID) -> bool:
    """Tell whether a batch has ended, by its table: the cache may be a second behind."""
    from alya_django.models import Batch

    return Batch.objects.finished().filter(pk=batch_id).exists()


def ended(batch_id: UUID) -> int:
    """Return how many rows of a batch have ended by now."""
    from alya_django.models import BatchProgress

    return sum(BatchProgress.objects.filter(batch=batch_id).total())


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError("The worker does nothing.")
        time.sleep(ASKED_EVERY_SECONDS)


if __name__ == "__main__":
    main()

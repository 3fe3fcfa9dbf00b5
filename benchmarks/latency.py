"""
How long it takes from a submit to the start of the processor, with one idle worker.

A worker command is started with its defaults. Slow queries are submitted one by one, with a pause of up to a tenth of
a second between them, so that the worker is idle each time and no poll is met on purpose; the processor answers with
the time. Both processes are on this machine and have the same clock.

Not shown: a busy worker, a server on another host.

Budget: 10 ms for half of them, 50 ms for 99 of 100.
"""

from __future__ import annotations

import argparse
import random
import time

from benchmarks import harness

PAUSE_SECONDS = 0.1
ASKED_EVERY_SECONDS = 0.05
DEADLINE_SECONDS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description="Submit slow queries to an idle worker.")
    parser.add_argument("--submits", type=int, default=300)
    options = parser.parse_args()
    with harness.alya(), harness.worker():
        delay()
        delays = sorted(delay() for _ in range(options.submits))
    harness.report(
        "submit to the start of the processor",
        {
            "submits": options.submits,
            "p50_ms": delays[len(delays) // 2] * 1_000,
            "p99_ms": delays[int(len(delays) * 0.99)] * 1_000,
        },
    )


def delay() -> float:
    """Return how many seconds one submit waited, after a pause."""
    from alya_django import slow_queries

    time.sleep(random.uniform(PAUSE_SECONDS / 2, PAUSE_SECONDS))
    submitted = time.time()
    query_id = slow_queries.submit("benchmarks", "clock", {})
    until = time.monotonic() + DEADLINE_SECONDS
    # The first look comes late, so that asking does not take the processors from what is measured.
    time.sleep(ASKED_EVERY_SECONDS)
    while (answer := slow_queries.result(query_id)).try_later:
        if time.monotonic() > until:
            raise RuntimeError("The worker does not answer.")
        time.sleep(ASKED_EVERY_SECONDS)
    return float(answer.result) - submitted


if __name__ == "__main__":
    main()

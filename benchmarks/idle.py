"""
What a worker with nothing to do costs: its share of one processor, and its statements a minute.

One worker command with its defaults, all of its processes together, on tables with a past of finished batches. The
server counts: it logs every statement of connections other than this one, BEGIN and COMMIT included.

Not shown: what the server spends on them.

Budget: less than 1 percent, at most 90 statements.
"""

from __future__ import annotations

import argparse
import time

import psutil
from django.db import connection

from benchmarks import harness

SETTLE_SECONDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch a worker that has nothing to do.")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with harness.alya() as server, harness.worker() as process:
        with connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET log_statement = 'all'")
            cursor.execute("SELECT PG_RELOAD_CONF()")
        time.sleep(SETTLE_SECONDS)
        statements, seconds = server.statements_logged(), cpu_seconds(process.pid)
        time.sleep(options.seconds)
        statements, seconds = server.statements_logged() - statements, cpu_seconds(process.pid) - seconds
    harness.report(
        "one idle worker",
        {
            "seconds": options.seconds,
            "cpu_percent": seconds / options.seconds * 100,
            "statements_per_min": statements / options.seconds * 60,
        },
    )


def cpu_seconds(pid: int) -> float:
    """Return how long the processes of a command have used a processor."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(used.user + used.system for used in times)


if __name__ == "__main__":
    main()

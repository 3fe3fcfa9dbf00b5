"""
How long the rows of a killed worker wait until they run again.

A row hangs in its first attempt. Its worker is killed by SIGKILL, once alone, and once together with its supervisor
as if the host were gone, with another worker command idle beside it. Measured is the time from the kill to the start
of the row's second attempt. All processes are on this machine and have the same clock.

Not shown: a host whose network is cut off, whose locks the server ends only when it misses it.

Budget: 1 s where the supervisor lives, 25 s where it does not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import harness

DEADLINE_SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill workers, and wait for their rows.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heartbeat", type=float, default=5.0, help="seconds; a worker is dead after four")
    options = parser.parse_args()
    os.environ["ALYA"] = json.dumps(
        {"HEARTBEAT_SECONDS": options.heartbeat, "WORKER_TTL_SECONDS": options.heartbeat * 4}
    )
    with harness.alya():
        child = statistics.median(child_killed() for _ in range(options.rounds))
        host = statistics.median(host_lost() for _ in range(options.rounds))
    harness.report(
        "from the kill of a worker until its row runs again",
        {"rounds": options.rounds, "child_killed_s": child, "host_lost_s": host},
    )


def child_killed() -> float:
    """Kill a worker that has a supervisor, and return how many seconds its row waited."""
    harness.empty_tables()
    with harness.worker():
        batch_id, pid = hang()
        killed = time.time()
        os.kill(pid, signal.SIGKILL)
        return started_again(batch_id) - killed


def host_lost() -> float:
    """Kill a worker and its supervisor, and return how many seconds its row waited for another one's."""
    harness.empty_tables()
    with harness.worker() as lost:
        batch_id, pid = hang()
        with harness.worker():
            # Stopped first, the supervisor cannot see its child die.
            lost.send_signal(signal.SIGSTOP)
            killed = time.time()
            os.kill(pid, signal.SIGKILL)
            lost.kill()
            return started_again(batch_id) - killed


def hang() -> tuple[Any, int]:
    """Submit a row that hangs, wait until a worker has it, and return its batch and that worker's process."""
    from alya_django import batches
    from alya_django.models import BatchRow, Worker

    batch_id = batches.submit("benchmarks", "stall", [None])
    wait_until(lambda: BatchRow.objects.filter(batch=batch_id, claim__isnull=False).exists())
    pid: int = Worker.objects.get(name=BatchRow.objects.get(batch=batch_id).done_by).pid
    return batch_id, pid


def started_again(batch_id: Any) -> float:
    """Return when the row of a batch began to run for the last time."""
    from alya_django import batches

    wait_until(lambda: not batches.result(batch_id).try_later)
    return float(batches.line(batch_id, 1).result)


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        if time.monotonic() > until:
            raise RuntimeError("The workers do not get on.")
        time.sleep(0.01)


if __name__ == "__main__":
    main()

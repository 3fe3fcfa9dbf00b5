"""
Celery with Redis: messages in a broker that writes nothing to disk, nothing kept of a task that ended.

Measured by the clock of the tasks, from the first one's start to the last one's; each process says at its end how many
it did.

Its guide to optimizing advises to prefetch many short tasks (64 or 128); results, which nobody wants, are ignored, and
tasks acknowledged early, which is the default. Workers with the solo pool run tasks in the process that fetches them.

Tried: the pools solo, prefork and threads, of which solo is twice as fast as prefork; to prefetch 64, 128, 1000 and
all; hiredis, which is a little faster.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import redis
from celery import Celery, signals

from benchmarks.peers import program

WORKER = ["worker", "--pool=solo", "--without-gossip", "--without-mingle", "--without-heartbeat"]
PREFETCH = 128
POLL_SECONDS = 0.1

app = Celery("benchmarks.peers.celery", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=PREFETCH,
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
)
started: list[float] = []


@app.task(name="noop")
def noop(account: str, amount: str, reference: str) -> None:
    """Note the time, and succeed."""
    started.append(time.time())


@signals.worker_shutdown.connect
def note(**_: object) -> None:
    """Write how many tasks this process did, and when it began the first and the last of them."""
    if started:
        Path(os.environ["NOTES"], str(os.getpid())).write_text(f"{len(started)} {started[0]} {started[-1]}")


def enqueue(payments: program.Payments) -> None:
    """Send all through one connection: Celery has no bulk."""
    broker().flushdb()
    with app.producer_pool.acquire(block=True) as producer:
        for payment in payments:
            noop.apply_async(kwargs=payment, producer=producer)


def work() -> program.Worked:
    """Run workers until nothing is left, and stop them."""
    with tempfile.TemporaryDirectory() as notes:
        os.environ["NOTES"] = notes
        with ExitStack() as stack:
            command = ["celery", "--app=benchmarks.peers.celery:app", *WORKER, "--hostname=worker{}"]
            workers = program.start_workers(stack, *command, "--loglevel=WARNING")
            # For a moment, a message on its way to a worker is in neither place.
            while any([left(), left()]):
                if any(worker.poll() for worker in workers):
                    raise SystemExit("A worker failed.")
            for worker in workers:
                worker.terminate()
        counts, first, last = zip(*(path.read_text().split() for path in Path(notes).iterdir()), strict=True)
    return program.Worked(sum(map(int, counts)), max(map(float, last)) - min(map(float, first)))


def left() -> int:
    """Wait a little, and return how many messages no task has begun with."""
    time.sleep(POLL_SECONDS)
    return broker().llen("celery") + broker().hlen("unacked")


def broker() -> redis.Redis:
    return redis.Redis.from_url(os.environ["REDIS_URL"])


if __name__ == "__main__":
    settings = f"{' '.join(WORKER)}, worker_prefetch_multiplier={PREFETCH}, results ignored, early acks, hiredis"
    program.main("celery redis hiredis", settings, enqueue=enqueue, work=work)

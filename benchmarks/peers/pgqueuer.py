"""
pgqueuer: jobs in PostgreSQL, taken and ended by the batch, run in an event loop.

Measured by its own log of jobs, from the first one picked to the last success.

Its guide to performance advises larger batches for short jobs, one direct connection of asyncpg for each worker, and
its settings for autovacuum; its command runs on uvloop. Unlogged tables, which it offers too, may lose jobs: no.
The command itself fails with the newest typer, so the worker is started by its API.

Tried: batches of 10 to 2000; a connection or a pool; autovacuum as advised or not.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import asyncpg
import uvloop
from pgqueuer.db import AsyncpgDriver
from pgqueuer.domain.types import QueueExecutionMode
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

from benchmarks.peers import program

BATCH_SIZE = 500
TIMES = """
    SELECT COUNT(*) FILTER (WHERE status = 'successful'),
           EXTRACT(EPOCH FROM MAX(created) - MIN(created) FILTER (WHERE status = 'picked'))
    FROM pgqueuer_log
"""


def enqueue(payments: program.Payments) -> None:
    """Make the tables, tune them as advised, and fill them in one batch."""
    uvloop.run(fill([json.dumps(payment).encode() for payment in payments]))


async def fill(payloads: list[bytes]) -> None:
    queries = Queries(AsyncpgDriver(await asyncpg.connect(os.environ["DATABASE_URL"])))
    await queries.install()
    await queries.optimize_autovacuum()
    await queries.enqueue(["noop"] * len(payloads), payloads, [0] * len(payloads))


def work() -> program.Worked:
    """Run workers until nothing is left."""
    program.run_workers("benchmarks.peers.pgqueuer", "worker")
    return asyncio.run(worked())


async def drain() -> None:
    """Be a worker."""
    driver = AsyncpgDriver(await asyncpg.connect(os.environ["DATABASE_URL"]))
    manager = QueueManager(Queries(driver))

    @manager.entrypoint("noop")
    async def noop(job: Job) -> None:
        """Succeed."""

    await manager.run(mode=QueueExecutionMode.drain, batch_size=BATCH_SIZE)


async def worked() -> program.Worked:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    tasks, seconds = await connection.fetchrow(TIMES)
    return program.Worked(tasks, float(seconds))


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        uvloop.run(drain())
    else:
        settings = f"batch_size={BATCH_SIZE}, asyncpg, uvloop, autovacuum as advised, durable tables"
        program.main("pgqueuer asyncpg uvloop", settings, enqueue=enqueue, work=work)

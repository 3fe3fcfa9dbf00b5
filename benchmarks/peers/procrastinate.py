"""
procrastinate: jobs in PostgreSQL, each taken and ended in a transaction of its own, run in an event loop.

Measured by the times that its trigger writes for every job, from the first start to the last success.

Tried: 5 to 50 jobs at once; LISTEN on and off; ended jobs deleted or kept. Beyond 20 at once nothing changes.
"""

from __future__ import annotations

import asyncio
import os

import procrastinate
import psycopg

from benchmarks.peers import program

CONCURRENCY = 20
WORKER = ["worker", "--one-shot", "--no-listen-notify", f"--concurrency={CONCURRENCY}"]
TIMES = """
    SELECT COUNT(*) FILTER (WHERE type = 'succeeded'),
           EXTRACT(EPOCH FROM MAX(at) FILTER (WHERE type = 'succeeded') - MIN(at) FILTER (WHERE type = 'started'))
    FROM procrastinate_events
"""

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"], max_size=CONCURRENCY),
    import_paths=["benchmarks.peers.procrastinate"],
)


@app.task(name="noop")
async def noop(account: str, amount: str, reference: str) -> None:
    """Succeed."""


def enqueue(payments: program.Payments) -> None:
    """Make the tables, and fill them in one batch."""

    async def defer() -> None:
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            await noop.batch_defer_async(*payments)

    asyncio.run(defer())


def work() -> program.Worked:
    """Run workers until nothing is left."""
    program.run_workers("procrastinate", "--app=benchmarks.peers.procrastinate.app", *WORKER)
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        tasks, seconds = connection.execute(TIMES).fetchone()
    return program.Worked(tasks, float(seconds))


if __name__ == "__main__":
    settings = f"{' '.join(WORKER)}, a pool of {CONCURRENCY} connections"
    program.main("procrastinate psycopg", settings, enqueue=enqueue, work=work)

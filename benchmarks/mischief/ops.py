"""Thirty ops: of every flavour some whose rows do their work, and as many whose rows misbehave now and then."""

from __future__ import annotations

import os
import time
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection

from alya_django import (
    BatchDetails,
    BatchProcessor,
    Row,
    RowResult,
    SlowQueryProcessor,
    register_batch_processor,
    register_slow_query_processor,
)
from benchmarks.mischief.ways import ATOMIC, ATOMIC_QUERY, BATCH, COROUTINES, QUERY, THREADS, WAYS

APP = "mischief"
GOOD, BAD = "good", "bad"
COUNTS = {BATCH: 3, ATOMIC: 4, THREADS: 2, COROUTINES: 2, QUERY: 2, ATOMIC_QUERY: 2}
# Innocent rows lose their workers too, where processes are killed at random.
ATTEMPTS = 8
LIMIT_SECONDS = 10
ROW_SECONDS = 0.002


class Work:
    """What all ops share: a row leaves a trace in a table and then does what its input says."""

    max_attempts = ATTEMPTS
    time_limit = LIMIT_SECONDS

    def perform(self, row: Row) -> Any:
        time.sleep(ROW_SECONDS)
        leave_trace(row)
        return WAYS[row.input].act(row) if row.input else None

    def mark_done(self, details: BatchDetails) -> None:
        """Behave."""


class Mischief:
    """What bad ops do at the end of a batch: nothing, raise, or take the worker along the first time."""

    def mark_done(self, details: BatchDetails) -> None:
        match details.id.int % 3:
            case 1:
                raise ValueError("mark_done")
            case 2 if is_first(details):
                os._exit(1)


class Batch(Work, BatchProcessor):
    def do_batch_job(self, row: Row) -> Any:
        answer = self.perform(row)
        return RowResult.success(output_lines={"lines.txt": f"{row.line}"}) if answer is None else answer


class AtomicBatch(Batch):
    atomic = True


class Threads(Batch):
    concurrency = 4


class Coroutines(Work, BatchProcessor):
    concurrency = 4

    async def do_batch_job(self, row: Row) -> Any:
        await sync_to_async(leave_trace)(row)
        return WAYS[row.input].act(row) if row.input else None


class Query(Work, SlowQueryProcessor):
    def do_slow_query(self, row: Row) -> Any:
        return self.perform(row)


class AtomicQuery(Query):
    atomic = True


PROCESSORS: dict[str, type[Any]] = {
    BATCH: Batch,
    ATOMIC: AtomicBatch,
    THREADS: Threads,
    COROUTINES: Coroutines,
    QUERY: Query,
    ATOMIC_QUERY: AtomicQuery,
}


def name(nature: str, flavour: str, number: int) -> str:
    """Return the name of an op."""
    return f"{nature}.{flavour}.{number}"


def leave_trace(row: Row) -> None:
    """Write down that a row was processed; what is undone leaves none."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO effects (batch_id, line) VALUES (%s, %s)", [row.batch_id, row.line])


def is_first(details: BatchDetails) -> bool:
    """Tell whether nobody has been told of a batch before."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO told (batch_id) VALUES (%s) ON CONFLICT DO NOTHING", [details.id])
        return bool(cursor.rowcount)


for flavour, processor in PROCESSORS.items():
    register = register_slow_query_processor if issubclass(processor, SlowQueryProcessor) else register_batch_processor
    misbehaving = type(f"Bad{processor.__name__}", (Mischief, processor), {})
    for number in range(COUNTS[flavour]):
        register(APP, name(GOOD, flavour, number), processor)
        register(APP, name(BAD, flavour, number), misbehaving)

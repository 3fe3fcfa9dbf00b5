"""Processors that take no time, so that what is measured is Alya; and some for workers that are to die."""

import time

from django.db import connection

from alya_django import (
    RetryLater,
    Row,
    RowFailed,
    RowResult,
    register_batch_processor,
    register_slow_query_processor,
)


@register_batch_processor("benchmarks", "noop")
@register_batch_processor("benchmarks", "noop-atomic", atomic=True)
def noop(row: Row) -> None:
    """Succeed."""


@register_slow_query_processor("benchmarks", "clock")
def clock(row: Row) -> float:
    """Answer with the time at which it was asked."""
    return time.time()


@register_batch_processor("benchmarks", "mixed", chunk_rows=40)
def mixed(row: Row) -> RowResult:
    """Fail every seventh row, put off every eleventh once, and let every third that succeeds write a line."""
    if row.line % 11 == 0 and row.attempt == 1:
        raise RetryLater(0.01)
    if row.line % 7 == 0:
        raise RowFailed("seventh")
    return RowResult.success(row.input, output_lines={"thirds.csv": f"{row.line}"} if row.line % 3 == 0 else {})


register_batch_processor("benchmarks", "mixed-atomic", mixed, atomic=True, chunk_rows=40)


@register_slow_query_processor("benchmarks", "answer")
def answer(row: Row) -> dict[str, int]:
    """Answer at once."""
    return {"attempt": row.attempt}


@register_batch_processor("benchmarks", "stall", max_attempts=100)
def stall(row: Row) -> float:
    """Hang until the worker dies, and when run again succeed with the time."""
    if row.attempt == 1:
        time.sleep(3_600)
    return time.time()


@register_batch_processor("benchmarks", "effect", max_attempts=1_000)
@register_batch_processor("benchmarks", "atomic_effect", max_attempts=1_000, atomic=True)
def effect(row: Row) -> None:
    """Leave a trace in a table, after some work."""
    time.sleep(0.002)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO effects (batch_id, line) VALUES (%s, %s)", [row.batch_id, row.line])

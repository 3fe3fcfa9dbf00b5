"""Processors that take no time, so that what is measured is Alya."""

import time

from alya_django import (
    RetryLater,
    Row,
    RowFailed,
    RowResult,
    register_batch_processor,
    register_slow_query_processor,
)


@register_batch_processor("benchmarks", "noop")
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

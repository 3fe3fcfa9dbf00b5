"""Processors for the tests, each doing one thing."""

from __future__ import annotations

import threading
from typing import Any

from alya_django import (
    BatchDetails,
    BatchProcessor,
    InitBlock,
    QueryResult,
    Row,
    RowFailed,
    RowResult,
    SlowQueryProcessor,
)


def echo(row: Row) -> Any:
    """Succeed with the input as the result."""
    return row.input


def fail_odd(row: Row) -> None:
    """Fail the rows with odd lines on purpose."""
    if row.line % 2:
        raise RowFailed("odd", field="line", vals=(str(row.line),))


def broken(row: Row) -> None:
    """Raise what no processor should."""
    raise ZeroDivisionError("division by zero")


def write_lines(row: Row) -> RowResult:
    """Give each row's input, an object of file names and texts, to the output files."""
    return RowResult.success(output_lines=row.input)


class Recording(BatchProcessor):
    """Echo, and keep every row and every call of mark_done."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.done: list[BatchDetails] = []

    def do_batch_job(self, row: Row) -> Any:
        self.rows.append(row)
        return row.input

    def mark_done(self, details: BatchDetails) -> None:
        self.done.append(details)


class RecordingQuery(SlowQueryProcessor):
    """Answer a slow query with its input, and keep every row and every call of mark_done."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.done: list[BatchDetails] = []

    def do_slow_query(self, row: Row) -> QueryResult:
        self.rows.append(row)
        return QueryResult.success(row.input)

    def mark_done(self, details: BatchDetails) -> None:
        self.done.append(details)


class CountingBlock(InitBlock):
    """An init block that knows its thread, can be declared dead, and counts its closings."""

    def __init__(self) -> None:
        self.is_dead = False
        self.closed = 0
        self.thread = threading.get_ident()

    def is_alive(self) -> bool:
        return not self.is_dead

    def close(self) -> None:
        self.closed += 1


class CountingInitializer:
    """Make CountingBlocks and keep them; ``failures`` are raised first."""

    def __init__(self, *failures: Exception) -> None:
        self.blocks: list[CountingBlock] = []
        self.failures = list(failures)
        self.calls = 0

    def init(self, app: str) -> CountingBlock:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        self.blocks.append(CountingBlock())
        return self.blocks[-1]

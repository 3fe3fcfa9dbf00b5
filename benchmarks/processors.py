"""Processors that take no time, so that what is measured is Alya."""

import time

from alya_django import Row, register_batch_processor, register_slow_query_processor


@register_batch_processor("benchmarks", "noop")
def noop(row: Row) -> None:
    """Succeed."""


@register_slow_query_processor("benchmarks", "clock")
def clock(row: Row) -> float:
    """Answer with the time at which it was asked."""
    return time.time()

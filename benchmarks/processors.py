"""Processors that take no time, so that what is measured is Alya."""

from alya_django import Row, register_batch_processor


@register_batch_processor("benchmarks", "noop")
def noop(row: Row) -> None:
    """Succeed."""

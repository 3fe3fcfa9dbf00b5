"""Checkers that look at no more than they must, so that what is measured is Alya."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from alya_django import BatchInput, FaultyLine, register_file_checker
from alya_django.intake import read_csv, read_xlsx

COLUMNS = ("account", "amount", "reference")


@register_file_checker("plain", app="benchmarks", op="noop")
@register_file_checker("atomic", app="benchmarks", op="noop-atomic")
@register_file_checker("unique", app="benchmarks", op="noop", unique_by=COLUMNS)
def check_payments(file: BinaryIO, file_name: str, context: dict[str, Any]) -> Iterator[BatchInput | FaultyLine]:
    """Yield the lines of a CSV file; those that are too long or too short are faulty."""
    return read_csv(file, columns=COLUMNS)


@register_file_checker("sheets", app="benchmarks", op="noop")
def check_sheet(file: BinaryIO, file_name: str, context: dict[str, Any]) -> Iterator[BatchInput | FaultyLine]:
    """Yield the rows of a workbook."""
    return read_xlsx(file, columns=COLUMNS)

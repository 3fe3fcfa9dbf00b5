"""What may be said on a command line: each turns a text into a value, or names what is wrong with it."""

from __future__ import annotations

import json
import math
from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from alya_django.intake.patterns import Mapping
from alya_django.status import Kind

KINDS = {"batch": Kind.BATCH, "slow-query": Kind.SLOW_QUERY}
LINES_MAX = 100_000
INTERVAL_SECONDS_MIN = 0.1
UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def count(text: str) -> int:
    """Return a whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text!r} is no whole number above 0.")
    return int(text)


def seconds(text: str) -> float:
    """Return a number of seconds, of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ArgumentTypeError(f"{text!r} is no number of seconds.")
    return value


def interval(text: str) -> float:
    """Return how many seconds lie between two looks, as WATCH_SECONDS at least 0.1."""
    value = seconds(text)
    if value < INTERVAL_SECONDS_MIN:
        raise ArgumentTypeError(f"{text!r} is less than {INTERVAL_SECONDS_MIN} seconds.")
    return value


def json_object(text: str) -> dict[str, Any]:
    """Return a JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ArgumentTypeError(f"{text!r} is no JSON object.")
    return value


def mapping(text: str) -> Mapping:
    """Return the mapping that a text such as TXN*.csv=payments gives."""
    pattern, _, file_type = text.rpartition("=")
    if not pattern or not file_type:
        raise ArgumentTypeError(f"{text!r} is not PATTERN=TYPE.")
    return Mapping(pattern, file_type)


def age(text: str) -> timedelta:
    """Return how long a text such as 90d, 12h or 4w is."""
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in UNITS:
        raise ArgumentTypeError(f"{text!r} is no age: it is a whole number and h, d or w, such as 90d.")
    try:
        return timedelta(**{UNITS[unit]: int(number)})
    except OverflowError:
        raise ArgumentTypeError(f"{text!r} is longer than there are days.") from None


def lines(text: str) -> set[int]:
    """Return the lines that a text such as 3,7,10-20 names."""
    named: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise ArgumentTypeError(f"{part!r} is neither a line nor a range of lines.")
        span = range(int(first), int(last or first) + 1)
        if len(named) + len(span) > LINES_MAX:
            raise ArgumentTypeError(f"these are more than {LINES_MAX:,} lines.")
        named.update(span)
    return named

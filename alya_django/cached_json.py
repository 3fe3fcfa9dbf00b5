"""Read what a cache holds as if a stranger had written it: what is not as it must be raises, and is no entry."""

from __future__ import annotations

import json
from typing import TypeVar

from alya_django.validation import JSON, encode_json

Part = TypeVar("Part")

CHARS_MAX = 1_000_000
COUNT_MAX = 2**53
SECONDS_MAX = 100_000_000_000


def read(text: object) -> JSON:
    """Return the value of a text; raise unless it is one that any program could write again."""
    if len(part(str, text)) > CHARS_MAX:
        raise ValueError(f"It has more than {CHARS_MAX} characters.")
    value = json.loads(part(str, text))
    # Python reads NaN, halves of characters and arrays of any depth, and fails over them later.
    encode_json(value, "cached")
    return value


def part(kind: type[Part], value: object) -> Part:
    """Return a value of just this type: True is no number."""
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} is no {kind.__name__}.")
    return value


def count(value: object) -> int:
    """Return a number of rows or bytes."""
    number = part(int, value)
    if not 0 <= number <= COUNT_MAX:
        raise ValueError(f"{number} counts nothing.")
    return number


def moment(value: object) -> float:
    """Return a time in seconds since 1970, before the next few thousand years are over."""
    seconds = value if isinstance(value, float) else float(count(value))
    if not 0 <= seconds <= SECONDS_MAX:
        raise ValueError(f"{seconds} is no time.")
    return seconds


def texts(value: object) -> dict[str, str]:
    """Return texts by their names."""
    return {name: part(str, text) for name, text in part(dict, value).items()}

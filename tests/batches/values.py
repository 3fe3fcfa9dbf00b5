"""Values that cannot be stored, or are hard on an encoder."""

from __future__ import annotations

import datetime
import decimal
import itertools
import math
from typing import Any

from alya_django import InvalidInput

NAN, INFINITY = math.nan, math.inf
UNSTORABLE = {
    "NaN": ({"delay": NAN}, "input.delay: NaN cannot be stored as JSON."),
    "infinity": ([INFINITY], "input[0]: Infinity cannot be stored as JSON."),
    "minus infinity": (-INFINITY, "input: Infinity cannot be stored as JSON."),
    "NUL": ({"name": "a\0b"}, "input.name: a NUL character cannot be stored as JSON."),
    "NUL in a key": ({"a\0b": 1}, "input: a NUL character in a key cannot be stored as JSON."),
    "surrogate": ({"name": "\ud800"}, "input.name: a lone surrogate cannot be stored as JSON."),
    "surrogate in a key": ({"\ud800": 1}, "input: a lone surrogate in a key cannot be stored as JSON."),
    "Decimal": (
        {"amount": decimal.Decimal("1.10")},
        "input.amount: a Decimal (give amounts as strings) cannot be stored as JSON.",
    ),
    "bytes": (b"raw", "input: a value of type bytes cannot be stored as JSON."),
    "set": ({"tags": {1}}, "input.tags: a value of type set cannot be stored as JSON."),
    "datetime": ([datetime.datetime(2013, 1, 1)], "input[0]: a value of type datetime cannot be stored as JSON."),
    "key": ({(1, 2): 3}, "input: the key (1, 2) cannot be stored as JSON."),
}


class AsyncRows:
    """Rows that can be read by an event loop alone."""

    def __aiter__(self):
        return self


def a_value(name: str) -> Any:
    """Return a value that is hard on an encoder."""
    if name == "circular":
        value: list[Any] = []
        value.append(value)
        return value
    if name == "deep":
        return nested(100_000)
    return 10**5000


def deepest(act) -> Any:
    """Do something with the most deeply nested value that is not refused."""
    for depth in range(1_100, 0, -1):
        try:
            return act(nested(depth))
        except InvalidInput:
            continue
    raise AssertionError("No depth is accepted.")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in itertools.repeat(None, depth):
        value = [value]
    return value

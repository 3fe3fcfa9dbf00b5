"""What a writer of the cache may put in place of what is there: a table of keys, types and values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.core.cache import cache

SECRET = "secret.txt"


class Hostile:
    """What a cache that pickles may hand out: an object that answers nothing but by raising."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError

    def __bool__(self) -> bool:
        raise RuntimeError


VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "below zero": -1,
    "zero": 0,
    "huge": 10**400,
    "fraction": 1.5,
    "tiny": 5e-324,
    "endless": float("inf"),
    "no number": float("nan"),
    "empty text": "",
    "text": "success",
    "other text": SECRET,
    "digits": "7",
    "NUL": "\0",
    "half a character": "\ud800",
    "mark-up": "<script>alert(1)</script>",
    "long text": "x" * 2_000_000,
    "array": [],
    "arrays": [[1, 2]] * 3,
    "pairs": [[1e10, 5], [1e10, 7]],
    "object": {},
    "files": {"a.csv": SECRET, "b.csv": SECRET, "\ud800": "\0"},
    "numbers": {"a.csv": 5},
}
"""What a forger may write in place of any field."""
TEXTS: dict[str, Any] = {
    "bytes": b"\xff",
    "number": 17,
    "huge number": 10**400,
    "set": {1},
    "object": Hostile(),
    "no JSON": "no JSON",
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep below": '{"status":' * 600 + "1" + "}" * 600,
    "long": json.dumps({"status": "success", "rest": "x" * 3_000_000}),
    "state": "success",
    "unknown state": "ended",
}
"""What a forger may write in place of a whole entry."""
FIELDS = {
    "SUMMARY": (
        "status",
        "kind",
        "nrows",
        "nsuccess",
        "nfailed",
        "naborted",
        "held",
        "totalsMismatch",
        "outputFiles",
        "parent",
    ),
    "RESULT": ("result", "messages"),
    "OUTFILES": ("report", "b.csv"),
    "FIGURES": (
        "id",
        "kind",
        "status",
        "nrows",
        "nsuccess",
        "nfailed",
        "naborted",
        "held",
        "read_at",
        "started_at",
        "moved_at",
        "samples",
    ),
}
"""What is in each entry that is an object."""


def key(batch_id: UUID, part: str) -> str:
    return f"ALYA_{{{batch_id}}}_{part}"


def forgeries(batch_id: UUID, part: str) -> Iterator[str]:
    """Write one forged entry after the other in place of a good one, and yield the name of each."""
    name = key(batch_id, part)
    good = cache.get(name)
    for title, text in TEXTS.items():
        cache.set(name, text)
        yield title
    for field in FIELDS.get(part, ()):
        for title, value in VALUES.items():
            cache.set(name, json.dumps({**json.loads(good), field: value}))
            yield f"{field}: {title}"
    cache.set(name, good)


def forge(batch_id: UUID, part: str, **fields: Any) -> None:
    """Write other fields into what is cached of a batch, as far as there is any."""
    stored = json.loads(cache.get(key(batch_id, part)) or "{}")
    cache.set(key(batch_id, part), json.dumps({**stored, **fields}))

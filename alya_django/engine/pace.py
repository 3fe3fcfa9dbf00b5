"""How long the rows of an op take on this worker, and so how many of them to claim at once."""

from __future__ import annotations

from alya_django.conf import settings
from alya_django.registry import Registration

START_ROWS = 10
START_SECONDS = 0.001
NEWS = 0.5
ATOMIC_ROWS = 50


class Pace:
    """What a worker has learnt of its ops' speed: a moving average of the seconds a row takes."""

    def __init__(self) -> None:
        self._seconds: dict[Registration, float] = {}
        self._atomic_rows: dict[Registration, int] = {}

    def seconds(self, registration: Registration) -> float:
        """Return how long a row takes, 1 ms before the first was seen."""
        return self._seconds.get(registration, START_SECONDS)

    def chunk_rows(self, registration: Registration) -> int:
        """
        Return how many rows make about CHUNK_SECONDS of work: 10 at first, at most CHUNK_ROWS.

        There is one for each that are processed at once. Of an atomic op there are at most 50, fewer where the
        database has refused.
        """
        rows = START_ROWS
        if registration in self._seconds:
            rows = max(1, int(settings.CHUNK_SECONDS / self._seconds[registration]))
        rows = max(rows, registration.options.concurrency)
        if registration.options.atomic:
            rows = min(rows, self._atomic_rows.get(registration, ATOMIC_ROWS))
        return min(rows, registration.options.chunk_rows or rows, int(settings.CHUNK_ROWS))

    def learn(self, registration: Registration, rows: int, seconds: float) -> None:
        """Take in how long some rows took."""
        measured = max(seconds / rows, 1e-9)
        earlier = self._seconds.get(registration, measured)
        self._seconds[registration] = earlier + NEWS * (measured - earlier)

    def refused(self, registration: Registration) -> None:
        """Claim half as many rows of an atomic op: they lock what other workers want too."""
        self._atomic_rows[registration] = max(1, self._atomic_rows.get(registration, ATOMIC_ROWS) // 2)

    def agreed(self, registration: Registration) -> None:
        """Claim one row more of an atomic op: a chunk went through without a refusal."""
        self._atomic_rows[registration] = min(ATOMIC_ROWS, self._atomic_rows.get(registration, ATOMIC_ROWS) + 1)

"""How long the rows of an op take on this worker, and so how many of them to claim at once."""

from __future__ import annotations

from alya_django.conf import settings
from alya_django.registry import Registration

START_ROWS = 10
START_SECONDS = 0.001
NEWS = 0.5
ATOMIC_START_ROWS = 50
AGREEMENTS = 20


class Pace:
    """What a worker has learnt of its ops' speed: a moving average of the seconds a row takes."""

    def __init__(self) -> None:
        self._seconds: dict[Registration, float] = {}
        self._atomic_rows: dict[Registration, int] = {}
        self._agreements: dict[Registration, int] = {}

    def seconds(self, registration: Registration) -> float:
        """Return how long a row takes, 1 ms before the first was seen."""
        return self._seconds.get(registration, START_SECONDS)

    def chunk_rows(self, registration: Registration) -> int:
        """
        Return how many rows make about CHUNK_SECONDS of work: 10 at first, at most CHUNK_ROWS.

        There is one for each that are processed at once.
        """
        rows = START_ROWS
        if registration in self._seconds:
            rows = max(1, int(settings.CHUNK_SECONDS / self._seconds[registration]))
        rows = max(rows, registration.options.concurrency)
        return min(rows, registration.options.chunk_rows or rows, int(settings.CHUNK_ROWS))

    def learn(self, registration: Registration, rows: int, seconds: float) -> None:
        """Take in how long some rows took."""
        measured = max(seconds / rows, 1e-9)
        earlier = self._seconds.get(registration, measured)
        self._seconds[registration] = earlier + NEWS * (measured - earlier)

    def atomic_rows(self, registration: Registration) -> int:
        """Return how many rows of an atomic op may share a transaction: 50 at first."""
        return self._atomic_rows.get(registration, ATOMIC_START_ROWS)

    def is_contended(self, registration: Registration) -> bool:
        """Return whether the database has ever refused a transaction of an atomic op."""
        return registration in self._agreements

    def refused(self, registration: Registration) -> None:
        """Let half as many rows of an atomic op share a transaction: they lock what others want too."""
        self._agreements[registration] = 0
        self._atomic_rows[registration] = max(1, self.atomic_rows(registration) // 2)

    def agreed(self, registration: Registration, rows: int) -> None:
        """
        Let more rows share a transaction, where one of as many as may share it has gone through.

        Twice as many, or one more after 20 times where the database has ever refused; at most CHUNK_ROWS.
        """
        may_share = self.atomic_rows(registration)
        if rows < may_share:
            return
        if registration not in self._agreements:
            may_share *= 2
        else:
            self._agreements[registration] += 1
            may_share += self._agreements[registration] % AGREEMENTS == 0
        self._atomic_rows[registration] = min(may_share, int(settings.CHUNK_ROWS))

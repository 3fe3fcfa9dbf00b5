"""What files look like, look after look, and which of them have not changed for long enough."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

Identity = tuple[int, int]
"""A file's device and number there: what it stays when it is renamed."""


class Look(NamedTuple):
    """What a file looked like, and since when it looks so, by the clock that only goes forward."""

    size: int
    modified_ns: int
    since: float


class Looks:
    """
    What files look like now, and looked like the last time.

    Args:
        age_seconds: How long ago a file must have been changed last.
        settle_seconds: How long a file must have been seen unchanged, at two looks at least.
    """

    def __init__(self, *, age_seconds: float, settle_seconds: float) -> None:
        self._age_seconds = age_seconds
        self._settle_seconds = settle_seconds
        self._before: dict[Identity, Look] = {}
        self._now: dict[Identity, Look] = {}

    def __bool__(self) -> bool:
        return bool(self._now)

    def begin(self) -> None:
        """Begin a look; what is not looked at until the next one is forgotten."""
        self._before, self._now = self._now, {}

    def break_off(self) -> None:
        """End a look early: what was not looked at now has been looked at before."""
        self._now = {**self._before, **self._now}

    def is_settled(self, status: os.stat_result) -> bool:
        """Take in what a file looks like, and tell whether it is old enough, and has not changed for long enough."""
        now = time.monotonic()
        identity, look = (status.st_dev, status.st_ino), Look(status.st_size, status.st_mtime_ns, now)
        earlier = self._before.get(identity)
        is_same = earlier is not None and earlier[:2] == look[:2]
        self._now[identity] = look = earlier if earlier is not None and is_same else look
        return (
            is_same and now - look.since >= self._settle_seconds and time.time() - status.st_mtime >= self._age_seconds
        )

"""Ask a cache that may be down: what fails is a miss, told now and then; what takes long is not asked for a while."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache

from alya_django import log_words

logger = logging.getLogger("alya_django")
Answer = TypeVar("Answer")

SLOW_SECONDS = 1.0
REST_SECONDS = 5.0
TELL_SECONDS = 5.0


class BestEffort:
    """
    The way to the caches of one process.

    How long a call may hang is for the cache's own time-outs to say. One that took over SLOW_SECONDS, whether it
    failed or not, is the last for REST_SECONDS: a cache is of use only while it is faster than the database. Then
    one caller tries again, while the others still do without.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Trust all caches again."""
        self._rests_until: dict[str, float] = {}
        self._told_at: dict[str, float] = {}

    def __call__(self, alias: str, act: Callable[[BaseCache], Answer]) -> Answer | None:
        """Return what a cache answers; None where it fails or is left alone."""
        started = monotonic()
        if started < self._rests_until.get(alias, started):
            return None
        if alias in self._rests_until:
            self._rests_until[alias] = started + REST_SECONDS
        try:
            cache = caches[alias]
            started = monotonic()
            return act(cache)
        except Exception as error:
            self._tell(alias, error)
            return None
        finally:
            self._judge(alias, started)

    def _judge(self, alias: str, started: float) -> None:
        ended = monotonic()
        if ended - started < SLOW_SECONDS:
            self._rests_until.pop(alias, None)
        else:
            self._rests_until[alias] = ended + REST_SECONDS

    def _tell(self, alias: str, error: Exception) -> None:
        now = monotonic()
        if now - self._told_at.get(alias, -TELL_SECONDS) >= TELL_SECONDS:
            self._told_at[alias] = now
            logger.warning("The cache %r does not answer: %s", alias, log_words.of_error(error))

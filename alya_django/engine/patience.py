"""Wait out a database that does not answer: lost, starting, or out of something."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TypeVar

from alya_django import log_words
from alya_django.db import Database
from alya_django.engine.wakeup import Wakeup

logger = logging.getLogger("alya_django.engine")
Answer = TypeVar("Answer")

BACK_OFF_SECONDS = 1.0
BACK_OFF_SECONDS_MAX = 30.0


class Patience:
    """
    The patience of one worker with its database, which ends only when the worker is to stop.

    Inside a transaction there is none: what was done in it is gone, and with it what would be done again.
    """

    def __init__(self, store: Database, wakeup: Wakeup, *, is_stopping: Callable[[], bool]) -> None:
        self._store = store
        self._wakeup = wakeup
        self._is_stopping = is_stopping
        self._back_off = BACK_OFF_SECONDS

    def insist(self, act: Callable[[], Answer]) -> Answer:
        """
        Act again and again, as long as the database is away, and return the answer.

        The act may have been done, and only the news of it lost: it must bear to be done again.
        """
        while True:
            try:
                answer = act()
            except Exception as error:
                if not (self.covers(error) and self.wait_out(error)):
                    raise
            else:
                self.renew()
                return answer

    def covers(self, error: Exception) -> bool:
        """Return whether an error is to be waited out."""
        return self._store.is_away(error) and not self._store.connection.in_atomic_block

    def wait_out(self, error: Exception) -> bool:
        """Wait until there is a connection again; return False if the worker is to stop instead."""
        said = log_words.of_error(error)
        logger.error("The database %r does not answer, the worker waits: %s", self._store.alias, said)
        while not self._is_stopping():
            self._wakeup.rest(self._back_off * random.uniform(2 / 3, 4 / 3))
            self._back_off = min(self._back_off * 2, BACK_OFF_SECONDS_MAX)
            if not self._is_stopping() and self._answers():
                logger.info("The database %r answers again.", self._store.alias)
                return True
        return False

    def renew(self) -> None:
        """Begin the next wait with the shortest rest: all is well."""
        self._back_off = BACK_OFF_SECONDS

    def _answers(self) -> bool:
        try:
            self._store.reopen()
        except Exception as error:
            if not self._store.is_away(error):
                raise
            return False
        return True
